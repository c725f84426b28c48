import type { AddressInfo, Server } from 'node:net';
import { once } from 'node:events';

import '../../src/no-debug.js';
import rhea, { type Connection, type Delivery, type EventContext } from 'rhea';
import { afterEach, expect, test } from 'vitest';

import { Settlement, type SettledAs } from '../../src/amqp/settle.js';

const open: (Connection | Server)[] = [];
afterEach(() => {
  for (const it of open.splice(0)) it.close();
});

/** A peer that sends `count` messages over one link, and the outcome of each as its dispositions state it. */
async function peerThatSends(
  count: number,
): Promise<{ deliveries: Delivery[]; outcomes: Promise<string[]> }> {
  const container = rhea.create_container();
  const server = container.listen({ port: 0, host: '127.0.0.1' });
  open.push(server);
  await once(server, 'listening');

  const byTag = new Map<string, string>();
  const outcomes = new Promise<string[]>((resolve) => {
    const options = { sender_options: { treat_modified_as_released: false } };
    container.options = { ...container.options, ...options };
    container.on('sendable', ({ sender }: EventContext) => {
      if (byTag.size > 0) return;
      for (let n = 0; n < count; n++) {
        byTag.set(String(n), '');
        sender?.send({ body: n }, Buffer.from(String(n)));
      }
    });
    for (const outcome of ['accepted', 'rejected', 'released', 'modified']) {
      container.on(outcome, ({ delivery }: EventContext) => {
        byTag.set(String(delivery?.tag), outcome);
        if (![...byTag.values()].includes('')) resolve([...byTag.values()]);
      });
    }
  });

  const client = rhea.create_container().connect({
    host: '127.0.0.1',
    port: (server.address() as AddressInfo).port,
    reconnect: false,
  });
  open.push(client);
  const deliveries: Delivery[] = [];
  const receiver = client.open_receiver({ source: 'commands', credit_window: count, autoaccept: false });
  await new Promise<void>((resolve) => {
    receiver.on('message', ({ delivery }: EventContext) => {
      deliveries.push(delivery!);
      if (deliveries.length === count) resolve();
    });
  });
  return { deliveries, outcomes };
}

const settlements: Record<string, SettledAs> = {
  accepted: { outcome: 'accept' },
  rejected: { outcome: 'reject', reason: 'no' },
  released: { outcome: 'release' },
  modified: { outcome: 'modified', deliveryFailed: true, undeliverableHere: true },
};

test('six neighbours settled in one turn reach the peer as accept, reject, release, accept, modified, accept', async () => {
  const wanted = ['accepted', 'rejected', 'released', 'accepted', 'modified', 'accepted'];
  const { deliveries, outcomes } = await peerThatSends(wanted.length);
  const settlement = new Settlement();
  deliveries.forEach((delivery, n) => {
    settlement.settle(delivery, settlements[wanted[n]!]!);
  });
  expect(await outcomes).toEqual(wanted);
});

test('rhea alone gives the second of two neighbours the outcome of the first, which is why Settlement exists', async () => {
  const { deliveries, outcomes } = await peerThatSends(2);
  deliveries[0]!.accept();
  deliveries[1]!.reject({ condition: 'amqp:precondition-failed', description: 'no' });
  expect(await outcomes).toEqual(['accepted', 'accepted']);
});

test('a thousand random outcomes all arrive as they were given', async () => {
  const names = Object.keys(settlements);
  const wanted = Array.from({ length: 1000 }, (_, n) => names[(n * 7919 + (n >> 3)) % names.length]!);
  const { deliveries, outcomes } = await peerThatSends(wanted.length);
  const settlement = new Settlement();
  deliveries.forEach((delivery, n) => {
    settlement.settle(delivery, settlements[wanted[n]!]!);
  });
  expect(await outcomes).toEqual(wanted);
});
