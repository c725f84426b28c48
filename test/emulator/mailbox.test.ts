import { afterEach, expect, test } from 'vitest';

import { HubClock } from '../../src/emulator/clock.js';
import { systemClock } from '../../src/clock.js';
import { Mailbox } from '../../src/emulator/mailbox.js';
import type { Locked, MailboxSettings } from '../../src/emulator/mailbox.js';

const clock = new HubClock(systemClock);
afterEach(() => {
  clock.stop();
});

test('hands out in order, as far as there is room', () => {
  const { mailbox, dead } = aMailbox();
  for (const item of ['a', 'b', 'c']) mailbox.enqueue(item, later());
  const device = aConsumer(2);
  mailbox.attach(device);
  expect(device.items()).toEqual(['a', 'b']);
  device.room = 1;
  mailbox.pump();
  expect(device.items()).toEqual(['a', 'b', 'c']);
  expect(dead).toEqual([]);
});

test('an abandoned message comes back before those behind it, one delivery older', () => {
  const { mailbox } = aMailbox();
  for (const item of ['a', 'b']) mailbox.enqueue(item, later());
  const device = aConsumer(1);
  mailbox.attach(device);
  device.room = 1;
  expect(mailbox.settle(device.got[0]!.token, 'abandon')).toBe('done');
  expect(device.items()).toEqual(['a', 'a']);
  expect(device.got[1]!.entry.deliveryCount).toBe(1);
  expect(device.got[1]!.token).not.toBe(device.got[0]!.token);
});

test('a lock that ended gives the message to someone else, and settles nothing any more', () => {
  const { mailbox } = aMailbox();
  mailbox.enqueue('a', later());
  const device = aConsumer(1);
  mailbox.attach(device);
  device.room = 1;
  clock.jump(60_000);
  mailbox.pump();
  expect(device.items()).toEqual(['a', 'a']);
  expect(device.got[1]!.entry.deliveryCount).toBe(0);
  expect(mailbox.settle(device.got[0]!.token, 'complete')).toBe('lock-lost');
  expect(mailbox.settle(device.got[1]!.token, 'complete')).toBe('done');
  expect(mailbox.depth).toBe(0);
});

test('ten abandons are the end', () => {
  const { mailbox, dead } = aMailbox();
  mailbox.enqueue('a', later());
  const device = aConsumer(100);
  mailbox.attach(device);
  for (let i = 0; i < 10; i++) mailbox.settle(device.got.at(-1)!.token, 'abandon');
  expect(device.got).toHaveLength(10);
  expect(dead).toEqual(['a DeliveryCountExceeded']);
});

test('expires what waits, and what comes back too late', () => {
  const { mailbox, dead } = aMailbox();
  mailbox.enqueue('locked', clock.now() + 1000);
  const device = aConsumer(1);
  mailbox.attach(device);
  mailbox.enqueue('waiting', clock.now() + 1000);
  clock.jump(1000);
  mailbox.pump();
  expect(dead).toEqual(['waiting Expired']);
  mailbox.settle(device.got[0]!.token, 'abandon');
  expect(dead).toEqual(['waiting Expired', 'locked Expired']);
});

test('takes no more than it holds', () => {
  const { mailbox } = aMailbox({ capacity: 2 });
  mailbox.enqueue('a', later());
  mailbox.enqueue('b', later());
  expect(mailbox.enqueue('c', later())).toBe('full');
});

test('a lost link gives back at once, or when the lock ends, as it is told', () => {
  for (const requeueLost of ['at-once', 'at-lock-end'] as const) {
    const { mailbox } = aMailbox({ requeueLost });
    mailbox.enqueue('a', later());
    const first = aConsumer(1);
    mailbox.attach(first);
    mailbox.detach(first);
    const second = aConsumer(1);
    mailbox.attach(second);
    expect(second.items()).toEqual(requeueLost === 'at-once' ? ['a'] : []);
    clock.jump(60_000);
    mailbox.pump();
    expect(second.items()).toEqual(['a']);
  }
});

test('counts every delivery when it is told to', () => {
  const { mailbox, dead } = aMailbox({ counts: 'every-delivery', maxDeliveryCount: 2 });
  mailbox.enqueue('a', later());
  const device = aConsumer(9);
  mailbox.attach(device);
  for (let i = 0; i < 2; i++) {
    clock.jump(60_000);
    mailbox.pump();
  }
  expect(device.got).toHaveLength(2);
  expect(dead).toEqual(['a DeliveryCountExceeded']);
});

test('a purge empties it and tells each', () => {
  const { mailbox, dead } = aMailbox();
  for (const item of ['a', 'b']) mailbox.enqueue(item, later());
  expect(mailbox.purge()).toBe(2);
  expect(dead).toEqual(['a Purged', 'b Purged']);
});

function aMailbox(settings: Partial<MailboxSettings> = {}): { mailbox: Mailbox<string>; dead: string[] } {
  const dead: string[] = [];
  const mailbox = new Mailbox<string>(
    {
      lockMs: 60_000,
      maxDeliveryCount: 10,
      capacity: 50,
      requeueLost: 'at-once',
      counts: 'abandons',
      ...settings,
    },
    clock,
    ({ item }, reason) => dead.push(`${item} ${reason}`),
  );
  return { mailbox, dead };
}

function aConsumer(room: number) {
  const got: Locked<string>[] = [];
  return {
    room,
    got,
    items: () => got.map(({ entry }) => entry.item),
    hasRoom(): boolean {
      return this.room > 0;
    },
    deliver(locked: Locked<string>): void {
      this.room--;
      got.push(locked);
    },
  };
}

const later = (): number => clock.now() + 3_600_000;
