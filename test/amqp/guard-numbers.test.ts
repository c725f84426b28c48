import type { EventContext } from 'rhea';
import { describe, expect, test } from 'vitest';

import * as wire from './guard-frames.js';
import { answers, clientFlight, fromHub, startClient, startHub, toHub, type Peer } from './guard-peer.js';

const last = 2 ** 32 - 1;

/** A field of a frame that rhea wrote: list32 behind a small descriptor, and every number as wide as its value. */
function uintIn(frame: Buffer, field: number): number {
  let at = 8 + 3 + 9;
  for (let i = 0; i < field; i++) at += widths[frame[at]!]!;
  const code = frame[at]!;
  return code === 0x43 ? 0 : code === 0x52 ? frame[at + 1]! : frame.readUInt32BE(at + 1);
}
const widths: Record<number, number> = { 0x40: 1, 0x41: 1, 0x42: 1, 0x43: 1, 0x52: 2, 0x70: 5 };

function fieldsOf(frame: Buffer): number {
  return frame.readUInt32BE(8 + 3 + 5);
}

function performativeOf(frame: Buffer): number {
  return frame[10]!;
}

describe('N19: a hub that counts from just below 2^32', () => {
  test('delivers a thousand messages, and reads each settlement and the credit in its own numbers', async () => {
    const count = 1000;
    const start = last - 500;
    const settled: number[] = [];
    const counts: number[] = [];
    await using hub = await startHub(async ({ socket, frames }) => {
      socket.write(answers({ initialDeliveryCount: last - 5, nextOutgoingId: last - 3 }));
      for (let sent = 0; sent < count; sent++) {
        const deliveryId = (start + sent) >>> 0;
        // The shortest encoding is what real hubs use.
        const id =
          deliveryId > 255
            ? wire.uint(deliveryId)
            : deliveryId === 0
              ? wire.hex('43')
              : Buffer.from([0x52, deliveryId]);
        socket.write(wire.transfer({ handle: fromHub, deliveryId: id, payload: wire.message() }));
        if (sent % 10 !== 9) continue;
        await until(() => settledIn(frames()).length === sent + 1, socket);
      }
      settled.push(...settledIn(frames()));
      counts.push(
        ...frames()
          .filter(
            (frame) => performativeOf(frame) === 0x13 && fieldsOf(frame) > 4 && uintIn(frame, 4) === fromHub,
          )
          .map((frame) => uintIn(frame, 5)),
      );
      socket.end();
    });
    await using client = startClient(hub.port);
    client.receiver.on('message', ({ delivery, receiver }: EventContext) => {
      delivery!.accept();
      if (client.messages.length % 10 === 9) receiver!.add_credit(10);
    });
    expect(await client.ended).toBeUndefined();
    expect(client.messages).toHaveLength(count);
    expect(settled).toEqual(Array.from({ length: count }, (_, i) => (start + i) >>> 0));
    // The first flow left before the hub had said where it counts from.
    expect(counts.slice(0, 3)).toEqual([0, (last - 5 + 10) >>> 0, (last - 5 + 20) >>> 0]);
  });

  test('may repeat the number of a delivery in each of its transfers', async () => {
    const deliveryId = last - 5;
    const payload = wire.message({ body: wire.described(0x75, wire.binary('in pieces')) });
    const pieces = [payload.subarray(0, 1), payload.subarray(1, 9), payload.subarray(9)];
    await using hub = await startHub(({ socket }) => {
      const transfers = pieces.map((piece, n) =>
        wire.transfer({ handle: fromHub, deliveryId, more: n < pieces.length - 1, payload: piece }),
      );
      socket.write(Buffer.concat([answers(), ...transfers]));
    });
    await using client = startClient(hub.port);
    const [message] = await client.received(1);
    expect((message!.body as { content: Buffer }).content.toString()).toBe('in pieces');
  });
});

describe('N18: a disposition', () => {
  test('of a delivery that is long settled settles no other one', async () => {
    // rhea keeps deliveries in a ring of 2 048, and finds number 2 098 when it is told of 50.
    await using hub = await startHub(async ({ socket, until: framesUntil }) => {
      socket.write(Buffer.concat([answers(), wire.flow({ handle: toHub, linkCredit: wire.uint(5000) })]));
      await framesUntil(clientFlight + 2000);
      for (let first = 0; first < 2000; first += 200) {
        socket.write(wire.disposition({ role: 'receiver', first, last: first + 199 }));
      }
      socket.write(wire.flow({ nextIncomingId: 2000 }));
      await framesUntil(clientFlight + 2200);
      socket.write(wire.disposition({ role: 'receiver', first: 50 }));
      socket.write(wire.disposition({ role: 'receiver', first: 2199 }));
    });
    await using client = startClient(hub.port);
    const accepted: number[] = [];
    const send = (count: number) => {
      for (let i = 0; i < count; i++) client.sender.send({ body: 'x' });
    };
    client.sender.once('sendable', () => {
      send(2000);
    });
    await new Promise<void>((resolve) => {
      client.sender.on('accepted', ({ delivery }: EventContext) => {
        accepted.push(delivery!.id);
        if (accepted.length === 2000) setImmediate(send, 200);
        if (delivery!.id === 2199) resolve();
      });
    });
    expect(accepted).toEqual([...Array.from({ length: 2000 }, (_, id) => id), 2199]);
  });

  test('of deliveries that were never sent does nothing', async () => {
    await using hub = await startHub(async ({ socket, until: framesUntil }) => {
      socket.write(answers());
      socket.write(wire.disposition({ role: 'receiver', first: 7 }));
      await framesUntil(clientFlight + 1);
      socket.write(wire.disposition({ role: 'receiver', first: 4000, last: 4100 }));
      socket.write(wire.disposition({ role: 'sender', first: 3 }));
      socket.write(wire.disposition({ role: 'receiver', first: 0 }));
    });
    await using client = startClient(hub.port);
    client.sender.once('sendable', () => client.sender.send({ body: 'x' }));
    const delivery = await new Promise((resolve) => {
      client.sender.once('accepted', (context: EventContext) => {
        resolve(context.delivery!.id);
      });
    });
    expect(delivery).toBe(0);
  });
});

/** The delivery ids that dispositions of a receiver settle, in order. */
function settledIn(frames: Buffer[]): number[] {
  return frames
    .filter((frame) => performativeOf(frame) === 0x15)
    .flatMap((frame) => {
      const [first, end] = [uintIn(frame, 1), uintIn(frame, 2)];
      return Array.from({ length: ((end - first) >>> 0) + 1 }, (_, i) => (first + i) >>> 0);
    });
}

async function until(condition: () => boolean, socket: Peer['socket']): Promise<void> {
  while (!condition()) await new Promise((resolve) => socket.once('data', resolve));
}
