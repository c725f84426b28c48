import fc from 'fast-check';
import { expect, test } from 'vitest';

import type { CommandInbox } from '../../src/handlers/inbox.js';
import type { Command } from '../../src/model.js';
import { Inbox, type InboxOptions } from '../../src/store/inbox.js';
import { Ledger } from '../../src/store/ledger.js';
import { Spool } from '../../src/store/spool.js';
import { FakeDisk, seeded, systemError } from './fake-disk.js';
import { HandClock, message, openLog } from './kit.js';

interface Opened extends AsyncDisposable {
  readonly spool: Spool;
  readonly ledger: Ledger;
  /** As the dispatcher's worker sees it, and as people do. */
  readonly inbox: Inbox & CommandInbox;
}

async function openInbox(
  disk = new FakeDisk(),
  { clock, ...options }: Partial<InboxOptions> & { clock?: HandClock } = {},
): Promise<Opened> {
  const log = await openLog(disk, clock ? { clock } : {});
  const spool = await Spool.open(log);
  const replyMessage: InboxOptions['replyMessage'] = ({ deviceId, messageId }, { outcome }, { body }) =>
    message(`${outcome} ${messageId ?? '?'}`, { deviceId, encoded: body });
  const timing = clock === undefined ? {} : { clock, machine: clock };
  const ledger = await Ledger.open(log, spool, { replyMessage, ...timing });
  const inbox = await Inbox.open(log, spool, ledger, { replyMessage, ...timing, ...options });
  return { spool, ledger, inbox, [Symbol.asyncDispose]: () => log.close() };
}

const command = (messageId: string, fields: Partial<Command> = {}): Command => ({
  deviceId: 'dev1',
  messageId,
  deliveryCount: 0,
  lockToken: 'token',
  properties: { command: 'update' },
  body: Buffer.from(`body of ${messageId}`),
  ...fields,
});

async function take({ ledger, inbox }: Opened, messageId: string, fields: Partial<Command> = {}) {
  await ledger.received(messageId);
  await inbox.take(messageId, command(messageId, fields), 'update');
  return [...inbox.entries()].at(-1)!.id;
}

async function replies(spool: Spool): Promise<string[]> {
  const { messages } = await spool.read(Spool.start, { count: 1000 });
  return messages.map(({ messageId, encoded }) => `${messageId}: ${encoded.toString()}`);
}

const done = { outcome: 'accept' } as const;
const no = { outcome: 'reject', reason: 'no' } as const;
const seen = (inbox: Inbox) =>
  [...inbox.entries()].map(({ command: { messageId }, state }) => [messageId, state]);

test('a command that is taken is accepted and waits, with its body, also after a power cut', async () => {
  const disk = new FakeDisk();
  const id = await take(await openInbox(disk), 'm1');
  await using opened = await openInbox(disk.afterPowerCut());
  expect(await opened.ledger.received('m1')).toEqual({ state: 'decided', outcome: done });
  expect([...opened.inbox.waiting()]).toMatchObject([
    {
      id,
      command: { messageId: 'm1', properties: { command: 'update' } },
      handler: 'update',
      state: 'waiting',
      attempts: 0,
    },
  ]);
  expect(await opened.inbox.began(id)).toEqual({
    event: 'command',
    deviceId: 'dev1',
    messageId: 'm1',
    deliveryCount: 0,
    properties: { command: 'update' },
    body: Buffer.from('body of m1'),
  });
});

test('it is accepted and kept, or neither, wherever the power is cut', async () => {
  for (let call = 0; ; call++) {
    const disk = new FakeDisk(seeded(call));
    const opened = await openInbox(disk);
    const before = disk.trace.length;
    disk.fault = () => (disk.trace.length - before >= call ? 'power cut' : undefined);
    const taken = await take(opened, 'm1').then(
      () => true,
      () => false,
    );
    await using after = await openInbox(disk.afterPowerCut());
    const { state } = await after.ledger.received('m1');
    expect(seen(after.inbox)).toEqual(state === 'decided' ? [['m1', 'waiting']] : []);
    if (!taken) continue;
    expect(state).toBe('decided');
    break;
  }
});

test('what is done goes in one piece with the reply, wherever the power is cut', async () => {
  for (const [outcome, states] of [
    [done, []],
    [no, [['m1', 'dead']]],
  ] as const) {
    for (let call = 0; ; call++) {
      const disk = new FakeDisk(seeded(call));
      const opened = await openInbox(disk);
      const id = await take(opened, 'm1');
      await opened.inbox.began(id);
      const before = disk.trace.length;
      disk.fault = () => (disk.trace.length - before >= call ? 'power cut' : undefined);
      const finished = await opened.inbox.finished(id, outcome, { body: Buffer.from('said') }).then(
        () => true,
        () => false,
      );
      await using after = await openInbox(disk.afterPowerCut());
      const waiting = await replies(after.spool);
      expect(seen(after.inbox)).toEqual(waiting.length === 0 ? [['m1', 'unknown']] : states);
      expect(waiting).toEqual(waiting.length === 0 ? [] : [`${outcome.outcome} m1: said`]);
      if (!finished) continue;
      expect(waiting).toHaveLength(1);
      break;
    }
  }
});

test('a run that nobody heard the end of is unknown, and one of the failures', async () => {
  const disk = new FakeDisk();
  const opened = await openInbox(disk);
  const id = await take(opened, 'm1');
  await opened.inbox.began(id);
  expect([...opened.inbox.waiting()]).toEqual([]);
  await using after = await openInbox(disk.afterPowerCut());
  expect([...after.inbox.waiting()]).toMatchObject([
    { state: 'unknown', attempts: 1, failures: 1, dueInMs: 0 },
  ]);
  await after.inbox.began(id);
  await after.inbox.postponed(id, { by: 'attempt', reason: 'busy' });
  expect([...after.inbox.waiting()]).toMatchObject([
    { state: 'waiting', attempts: 2, failures: 2, reason: 'busy' },
  ]);
});

test('an outcome that cannot be recorded leaves the run unknown, in the same process', async () => {
  const disk = new FakeDisk();
  await using opened = await openInbox(disk);
  const id = await take(opened, 'm1');
  await opened.inbox.began(id);
  disk.fault = () => systemError('EIO');
  await expect(opened.inbox.finished(id, done, undefined)).rejects.toMatchObject({ code: 'io' });
  disk.fault = () => undefined;
  expect([...opened.inbox.waiting()]).toMatchObject([{ state: 'unknown', attempts: 1, failures: 1 }]);
});

test('a command that is put back waits longer each time, but not when the agent was merely stopped', async () => {
  const clock = new HandClock();
  await using opened = await openInbox(new FakeDisk(), {
    clock,
    retryDelay: { firstMs: 1000, mostMs: 3000 },
  });
  const id = await take(opened, 'm1');
  const due = () => [...opened.inbox.waiting()][0]!.dueInMs;
  const delays: number[] = [];
  for (const by of ['stopping', 'attempt', 'installation', 'attempt', 'stopping'] as const) {
    await opened.inbox.began(id);
    await opened.inbox.postponed(id, { by });
    delays.push(due());
  }
  expect(delays).toEqual([0, 1000, 2000, 3000, 3000]);
  expect([...opened.inbox.waiting()]).toMatchObject([{ attempts: 5, failures: 2 }]);
  clock.pass(3000);
  expect(due()).toBe(0);
});

test('a delay goes on over a restart, and a clock that is set does not change it', async () => {
  const clock = new HandClock();
  const disk = new FakeDisk();
  const opened = await openInbox(disk, { clock, retryDelay: { firstMs: 60_000, mostMs: 60_000 } });
  const id = await take(opened, 'm1');
  await opened.inbox.began(id);
  await opened.inbox.postponed(id, { by: 'attempt' });
  clock.pass(20_000);
  clock.nowMs += 1e12;
  await using after = await openInbox(disk.afterPowerCut(), {
    clock,
    retryDelay: { firstMs: 60_000, mostMs: 60_000 },
  });
  expect([...after.inbox.waiting()]).toMatchObject([{ dueInMs: 40_000, ageMs: 20_000 }]);
});

test("its sender's time for it is told by the hub's clock, and by this machine's since then", async () => {
  const clock = new HandClock();
  await using opened = await openInbox(new FakeDisk(), { clock });
  // A device whose clock is years off.
  await take(opened, 'm1', { enqueuedAt: 1e12, expiresAt: 1e12 + 30_000 });
  const expired = () => [...opened.inbox.waiting()][0]!.isExpired;
  clock.pass(29_000);
  expect(expired()).toBe(false);
  clock.pass(2_000);
  expect(expired()).toBe(true);
});

test('commands keep the order in which they were taken, and their numbers, whatever changes', async () => {
  const disk = new FakeDisk();
  const opened = await openInbox(disk);
  const ids: number[] = [];
  for (const name of ['a', 'b', 'c']) ids.push(await take(opened, name));
  expect(ids).toEqual(ids.toSorted((a, b) => a - b));
  await opened.inbox.began(ids[0]!);
  await opened.inbox.finished(ids[1]!, no, undefined);
  await using after = await openInbox(disk.afterPowerCut());
  expect([...after.inbox.entries()].map(({ id, command: { messageId } }) => [id, messageId])).toEqual([
    [ids[0], 'a'],
    [ids[1], 'b'],
    [ids[2], 'c'],
  ]);
  expect(after.inbox.size).toEqual({ waiting: 2, dead: 1 });
});

test('a dead command is tried once more when told to, with all its attempts and however old it is', async () => {
  const clock = new HandClock();
  await using opened = await openInbox(new FakeDisk(), { clock });
  const { inbox } = opened;
  const id = await take(opened, 'm1', { enqueuedAt: 0, expiresAt: 1000 });
  await inbox.began(id);
  await inbox.finished(id, no, undefined);
  expect([...inbox.waiting()]).toEqual([]);
  expect([...inbox.entries()]).toMatchObject([{ state: 'dead', reason: 'no', dueInMs: Infinity }]);
  clock.pass(10_000);
  let arrivals = 0;
  using _subscription = inbox.onArrival(() => arrivals++);
  await inbox.retry(id);
  expect(arrivals).toBe(1);
  expect([...inbox.waiting()]).toMatchObject([{ failures: 0, dueInMs: 0, ageMs: 0, isExpired: false }]);
  expect(inbox.size).toEqual({ waiting: 1, dead: 0 });
});

test('what runs is neither dropped nor retried, what waits or is dead is', async () => {
  await using opened = await openInbox();
  const { inbox } = opened;
  const [running, waiting, dead] = [
    await take(opened, 'a'),
    await take(opened, 'b'),
    await take(opened, 'c'),
  ];
  await inbox.began(running);
  await inbox.finished(dead, no, undefined);
  for (const attempt of [inbox.drop(running), inbox.retry(running)]) {
    await expect(attempt).rejects.toMatchObject({ code: 'try-again' });
  }
  await inbox.drop(waiting);
  await inbox.drop(dead);
  expect(inbox.size).toEqual({ waiting: 1, dead: 0 });
  await expect(inbox.drop(waiting)).rejects.toMatchObject({ code: 'data' });
});

test('a full inbox takes nothing more, and nothing is accepted then', async () => {
  await using opened = await openInbox(new FakeDisk(), { maximumWaiting: 2 });
  await take(opened, 'a');
  const second = await take(opened, 'b');
  await expect(take(opened, 'c')).rejects.toMatchObject({ code: 'try-again' });
  expect(await opened.ledger.received('c')).toMatchObject({ state: 'open' });
  // A dead one is not in the way.
  await opened.inbox.finished(second, no, undefined);
  await take(opened, 'c');
  expect(opened.inbox.size).toEqual({ waiting: 2, dead: 1 });
});

test('of too many dead ones the newest are kept', async () => {
  await using opened = await openInbox(new FakeDisk(), { maximumDead: 2 });
  for (const name of ['a', 'b', 'c', 'd'])
    await opened.inbox.finished(await take(opened, name), no, undefined);
  expect(seen(opened.inbox)).toEqual([
    ['c', 'dead'],
    ['d', 'dead'],
  ]);
});

test('the same command is taken once', async () => {
  await using opened = await openInbox();
  await take(opened, 'm1');
  await opened.inbox.take('m1', command('m1'), 'update');
  expect(opened.inbox.size.waiting).toBe(1);
});

test('hostile names come back as they were', async () => {
  const disk = new FakeDisk();
  const properties = JSON.parse('{"__proto__":"x","constructor":"y","a\\u0000b":"\\ud800"}') as Record<
    string,
    string
  >;
  const body = Buffer.from([0, 255, 10, 13]);
  await take(await openInbox(disk), 'm1', { properties, body });
  await using after = await openInbox(disk.afterPowerCut());
  const [entry] = after.inbox.entries();
  expect(Object.entries(entry!.command.properties)).toEqual(Object.entries(properties));
  expect(await after.inbox.body(entry!.id)).toEqual(body);
});

test('a command with a recorded outcome never runs again, and has one reply, whatever crashes in between', async () => {
  const lives = fc.array(fc.record({ cut: fc.nat(20), later: fc.boolean() }), { minLength: 1, maxLength: 8 });
  await fc.assert(
    fc.asyncProperty(fc.nat(), lives, async (seed, each) => {
      let disk = new FakeDisk(seeded(seed));
      let runs = 0;
      let endings = 0;
      let ended = false;
      for (const { cut, later } of [...each, { cut: Infinity, later: false }]) {
        const opened = await openInbox(disk);
        const before = disk.trace.length;
        disk.fault = () => (disk.trace.length - before >= cut ? 'power cut' : undefined);
        try {
          // The hub delivers it until it is told.
          const known = await opened.ledger.received('m1');
          if (known.state !== 'decided') await opened.inbox.take('m1', command('m1'), 'update');
          for (const { id } of [...opened.inbox.waiting()]) {
            await opened.inbox.began(id);
            expect(ended).toBe(false);
            runs++;
            if (later) await opened.inbox.postponed(id, { by: 'attempt' });
            else await opened.inbox.finished(id, done, { body: Buffer.alloc(0) });
            if (!later) ended = true;
            endings++;
          }
        } catch (error) {
          if (cut === Infinity) throw error;
        }
        disk = disk.afterPowerCut();
      }
      expect(endings).toBeLessThanOrEqual(runs);
      await using last = await openInbox(disk);
      expect([...last.inbox.entries()]).toEqual([]);
      expect(await replies(last.spool)).toEqual(['accept m1: ']);
    }),
    { numRuns: 200 },
  );
});
