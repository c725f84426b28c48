/** Row H8 of the fault matrix: ways to say "accepted" that IoT Hub does not use, and AMQP allows. */
import '../../src/no-debug.js';

import { once } from 'node:events';
import type { AddressInfo } from 'node:net';

import rhea, { type Delivery, type EventContext } from 'rhea';
import { expect, onTestFinished, test } from 'vitest';

import { SenderLink } from '../../src/amqp/sender-link.js';
import { startClient } from '../amqp/guard-peer.js';
import { never } from '../amqp/hub.js';

/** The state of a delivery that was accepted; rhea's typings do not have it. */
const accepted = (rhea.message as unknown as { accepted(): { described(): object } }).accepted().described();

/** A peer that answers each delivery so, and our end of a link to it. */
async function linkTo(answer: (delivery: Delivery) => void) {
  const container = rhea.create_container();
  container.options = { receiver_options: { autoaccept: false, autosettle: false } };
  const settledByUs: number[] = [];
  container.on('message', ({ delivery }: EventContext) => {
    answer(delivery!);
  });
  container.on('settled', ({ delivery }: EventContext) => settledByUs.push(delivery!.id));
  const server = container.listen({ port: 0, host: '127.0.0.1' });
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const { sender, guarded, connection } = startClient(port);
  onTestFinished(() => {
    connection.close();
    server.close();
  });
  await once(sender, 'sendable');
  const link = new SenderLink(sender.name, { over: never, fail: () => undefined, outlet: guarded });
  return { link, settledByUs };
}

test('H8: settled without saying how is taken for accepted', async () => {
  const { link } = await linkTo((delivery) => {
    delivery.update(true);
  });
  expect(await link.send(Buffer.from([0, 0x53, 0x75, 0xa0, 1, 120]))).toEqual({ outcome: 'accepted' });
});

test('H8: accepted and not settled is accepted, and settled by us', async () => {
  const { link, settledByUs } = await linkTo((delivery) => {
    delivery.update(false, accepted);
  });
  expect(await link.send(Buffer.from([0, 0x53, 0x75, 0xa0, 1, 120]))).toEqual({ outcome: 'accepted' });
  await expect.poll(() => settledByUs).toEqual([0]);
});
