import { once } from 'node:events';
import { Duplex } from 'node:stream';

import fc from 'fast-check';
import type { EventContext } from 'rhea';
import { describe, expect, test } from 'vitest';

import { guard, unreadableReason, type TracedFrame } from '../../src/amqp/guard.js';
import { afterClose } from './guard-attacks.js';
import * as wire from './guard-frames.js';
import {
  answers,
  clientFlight,
  clientOf,
  fromHub,
  limits,
  startClient,
  startHub,
  type Peer,
  toHub,
} from './guard-peer.js';

/** A socket without a network: what is emitted as `data` arrives, what is written is kept. */
class LocalSocket extends Duplex {
  readonly written: Buffer[] = [];
  override _read(): void {
    /* `arrive` does it */
  }
  override _write(bytes: Buffer, _encoding: string, done: () => void): void {
    this.written.push(bytes);
    done();
  }
  arrive(bytes: Buffer): void {
    this.emit('data', bytes);
  }
}

/** A guard that has seen a client's first flight, and whatever it hands over. */
function local(options = {}) {
  const socket = new LocalSocket();
  const guarded = guard(socket, { ...limits, ...options });
  const handed: Buffer[] = [];
  const errors: Error[] = [];
  guarded.on('data', (bytes) => handed.push(bytes));
  guarded.on('error', (error) => errors.push(error));
  const session = [
    wire.begin({ remoteChannel: wire.nul }),
    wire.attach({ name: 'to the hub', handle: toHub, role: 'sender' }),
  ];
  const link = [
    wire.attach({ name: 'from the hub', handle: fromHub, role: 'receiver' }),
    wire.flow({ handle: fromHub, linkCredit: wire.uint(1000) }),
  ];
  for (const frame of [wire.amqpHeader, wire.open(), ...session, ...link]) guarded.write(frame);
  return { socket, guarded, handed, errors };
}

function transfers(count: number, bytes: (id: number) => Buffer): Buffer[] {
  return Array.from({ length: count }, (_, id) =>
    wire.transfer({
      handle: fromHub,
      deliveryId: id,
      payload: wire.message({ body: wire.described(0x75, wire.binary(bytes(id))) }),
    }),
  );
}

/** The frames in bytes that hold nothing else. */
function framesIn(bytes: Buffer): Buffer[] {
  const frames: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += frames.at(-1)!.length)
    frames.push(bytes.subarray(at, at + bytes.readUInt32BE(at)));
  return frames;
}

describe('what passes', () => {
  test('is byte for byte what came, in whole frames, however it was cut up', () => {
    const sizes = fc.array(fc.oneof(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 5000 })), {
      maxLength: 12,
    });
    const cuts = fc.array(fc.oneof(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 4000 })), {
      minLength: 1,
      maxLength: 50,
    });
    fc.assert(
      fc.property(sizes, cuts, (bodySizes, chunkSizes) => {
        const { socket, handed, errors } = local();
        const messages = transfers(bodySizes.length, (id) => Buffer.alloc(bodySizes[id]!, id + 1));
        const stream = Buffer.concat([
          answers(),
          wire.heartbeat,
          ...messages,
          wire.detach(fromHub),
          wire.close(),
        ]);
        for (let at = 0, i = 0; at < stream.length; i++) {
          const size = chunkSizes[i % chunkSizes.length]!;
          socket.arrive(Buffer.from(stream.subarray(at, at + size)));
          at += size;
        }
        expect(errors).toEqual([]);
        expect(Buffer.concat(handed).equals(stream)).toBe(true);
        const [header, ...pieces] =
          handed[0]!.length === 8
            ? handed
            : [handed[0]!.subarray(0, 8), handed[0]!.subarray(8), ...handed.slice(1)];
        expect(header).toEqual(wire.amqpHeader);
        for (const piece of pieces)
          for (const frame of framesIn(piece)) expect(frame.length).toBe(frame.readUInt32BE(0));
      }),
      { numRuns: 300 },
    );
  });

  test('is not copied when it came in one piece', () => {
    const { socket, handed } = local();
    const chunk = Buffer.concat([answers(), ...transfers(3, () => Buffer.alloc(1000))]);
    socket.arrive(chunk);
    expect(handed).toHaveLength(1);
    expect(handed[0]).toBe(chunk);
  });

  test('is nothing of a frame that stalls in the middle, while every byte counts as a sign of life', () => {
    let signs = 0;
    const { socket, handed } = local({ onBytes: () => signs++ });
    socket.arrive(answers());
    const [frame] = transfers(1, () => Buffer.alloc(60_000));
    for (let at = 0; at < 50_000; at += 10_000) socket.arrive(frame!.subarray(at, at + 10_000));
    expect(signs).toBe(6);
    expect(handed).toHaveLength(1);
  });

  test('does not include what a peer says after its close', async () => {
    await using hub = await startHub(({ socket }) => socket.write(afterClose));
    await using client = startClient(hub.port);
    const closed = once(client.connection, 'connection_close');
    await closed;
    await once(client.guarded, 'close');
    expect(client.connection.is_closed()).toBe(true);
  });

  test('has what came before a violation, and nothing behind it', () => {
    const { socket, handed, errors } = local();
    const [first, second] = transfers(2, () => Buffer.from('hello'));
    socket.arrive(Buffer.concat([answers(), first!, wire.hex('00000000'), second!]));
    socket.arrive(second!);
    expect(Buffer.concat(handed)).toEqual(Buffer.concat([answers(), first!]));
    expect(errors).toHaveLength(1);
    expect(socket.destroyed).toBe(true);
  });

  test('reaches a listener that comes late', async () => {
    const socket = new LocalSocket();
    const guarded = guard(socket, limits);
    socket.push(wire.amqpHeader);
    await new Promise(setImmediate);
    const [bytes] = await once(guarded, 'data');
    expect(bytes).toEqual(wire.amqpHeader);
  });
});

describe('what leaves', () => {
  test('in one turn is one write', async () => {
    const socket = new LocalSocket();
    await using client = clientOf(guard(socket, limits), (connected) => setImmediate(connected));
    while (socket.written.length === 0) await new Promise(setImmediate);
    await new Promise(setImmediate);
    expect(socket.written).toHaveLength(1);
    expect(framesIn(socket.written[0]!.subarray(8))).toHaveLength(clientFlight);
    for (let i = 0; i < 3; i++) client.guarded.write(wire.heartbeat);
    await new Promise(setImmediate);
    expect(socket.written[1]).toEqual(Buffer.concat([wire.heartbeat, wire.heartbeat, wire.heartbeat]));
  });

  test('before the end is not lost', async () => {
    const { socket, guarded } = local();
    guarded.write(wire.close());
    guarded.end();
    await once(socket, 'finish');
    expect(framesIn(Buffer.concat(socket.written).subarray(8)).at(-1)).toEqual(wire.close());
  });

  test('is nothing any more after a violation', async () => {
    const { socket, guarded } = local();
    socket.arrive(wire.hex('00000000'));
    expect(guarded.write(wire.heartbeat)).toBe(false);
    await new Promise(setImmediate);
    expect(socket.written).toEqual([]);
  });
});

test('frames can be traced in both directions', () => {
  const traced: (TracedFrame & { direction: string })[] = [];
  const { socket } = local({
    trace: (direction: string, frame: TracedFrame) => traced.push({ direction, ...frame }),
  });
  socket.arrive(Buffer.concat([answers(), wire.heartbeat]));
  expect(traced.map(({ direction, performative }) => `${direction} ${performative}`)).toEqual([
    ...['open', 'begin', 'attach', 'attach', 'flow'].map((name) => `out ${name}`),
    ...['open', 'begin', 'attach', 'attach', 'flow', 'empty'].map((name) => `in ${name}`),
  ]);
  expect(traced.at(-1)).toMatchObject({ direction: 'in', performative: 'empty', channel: 0, bytes: 8 });
});

describe('a message that rhea must not decode', () => {
  const body = (value: Buffer) => wire.message({ body: wire.described(0x77, value) });
  const unreadable: { name: string; payload: Buffer; says: string }[] = [
    {
      name: 'an array of 2^32-1 nulls',
      payload: body(wire.hex('f0 00000005 ffffffff 40')),
      says: 'an array claims 4294967295 elements in 0 bytes',
    },
    {
      name: 'a list of 30 million',
      payload: body(wire.claiming({ code: 0xd0, size: 5, count: 3e7, content: wire.nul })),
      says: 'a list claims 30000000 elements in 1 bytes',
    },
    {
      name: 'deep nesting',
      payload: body(wire.nested(40, wire.nul)),
      says: 'values are nested more than 32 deep',
    },
    {
      name: 'a value that is cut off',
      payload: body(wire.hex('b1 00000010 41')),
      says: 'a string of 16 bytes does not fit in',
    },
    {
      name: 'an unknown section',
      payload: wire.described(0x60, wire.list()),
      says: 'it has a section of an unknown kind',
    },
    {
      name: 'something that is no section',
      payload: wire.string('hello'),
      says: 'it holds something that is no section',
    },
    {
      name: 'annotations that are a string',
      payload: wire.described(0x72, wire.string('x')),
      says: 'its message annotations are no map',
    },
    {
      name: 'properties that are null',
      payload: wire.described(0x73, wire.nul),
      says: 'its properties are no list',
    },
    {
      name: 'a property __proto__',
      payload: wire.described(0x74, wire.map(wire.string('__proto__'), wire.map())),
      says: 'the key of a map is __proto__',
    },
    {
      name: 'an error that is null',
      payload: body(wire.described(0x1d, wire.nul)),
      says: 'an error is not a list',
    },
    {
      name: 'a large body',
      payload: wire.message({ body: wire.described(0x75, wire.binary(Buffer.alloc(3000))) }),
      says: 'it is larger than 2000 bytes',
    },
    { name: 'no payload', payload: Buffer.alloc(0), says: 'it is empty' },
  ];

  /** How the payload can be spread over transfers. */
  const spreads: Record<string, (payload: Buffer) => Buffer[]> = {
    'one transfer': (payload) => [payload],
    'two transfers, the first without payload': (payload) => [Buffer.alloc(0), payload],
    'transfers of one byte and the rest': (payload) => [
      payload.subarray(0, 1),
      Buffer.alloc(0),
      payload.subarray(1),
      Buffer.alloc(0),
    ],
    'transfers of seven bytes': (payload) =>
      Array.from({ length: Math.ceil(payload.length / 7) + 1 }, (_, i) => payload.subarray(7 * i, 7 * i + 7)),
  };

  function delivery(id: number, pieces: Buffer[]): Buffer {
    const parts = pieces.map((payload, i) =>
      wire.transfer({
        handle: fromHub,
        deliveryId: i === 0 ? id : wire.nul,
        more: i < pieces.length - 1,
        payload,
      }),
    );
    return Buffer.concat(parts);
  }

  test.each(Object.entries(spreads))(
    'arrives as an empty one that says why, and the next one as usual: %s',
    async (_, spread) => {
      const payloads = unreadable.flatMap(({ payload }) => [payload, wire.message()]);
      await using hub = await startHub(({ socket }) => {
        socket.write(answers());
        for (const [id, payload] of payloads.entries()) socket.write(delivery(id, spread(payload)));
      });
      await using client = startClient(hub.port, { maxMessageBytes: 2000 });
      client.receiver.add_credit(payloads.length);
      const messages = await client.received(payloads.length);
      for (const [i, { says }] of unreadable.entries()) {
        const message = messages[2 * i]!;
        expect(unreadableReason(message)).toBe(says);
        expect({ ...message, delivery_annotations: undefined, body: message.body.content }).toEqual({
          delivery_annotations: undefined,
          body: Buffer.alloc(0),
        });
        expect(unreadableReason(messages[2 * i + 1]!)).toBeUndefined();
        expect(messages[2 * i + 1]!.body.content).toEqual(Buffer.from('hello'));
      }
    },
  );

  test('can be one of so many values that rhea would take long', async () => {
    const list = wire.described(0x77, wire.list(...Array.from({ length: 66_000 }, () => wire.nul)));
    await using hub = await startHub(({ socket }) => {
      socket.write(answers());
      socket.write(delivery(0, [list.subarray(0, 60_000), list.subarray(60_000)]));
    });
    await using client = startClient(hub.port);
    const [message] = await client.received(1);
    expect(unreadableReason(message!)).toBe('a list claims 66000 elements in 66000 bytes');
  });

  test('can be one that its sender gave up half-way', async () => {
    await using hub = await startHub(({ socket }) => {
      socket.write(answers());
      socket.write(
        wire.transfer({ handle: fromHub, deliveryId: 0, more: true, payload: wire.message().subarray(0, 9) }),
      );
      socket.write(wire.transfer({ handle: fromHub, aborted: true }));
    });
    await using client = startClient(hub.port);
    const [message] = await client.received(1);
    expect(unreadableReason(message!)).toBe('its sender gave it up');
  });

  test('can still be rejected by its delivery', async () => {
    let hubSees: Peer['until'] = () => Promise.resolve([]);
    await using hub = await startHub(({ socket, until }) => {
      hubSees = until;
      socket.write(answers());
      socket.write(wire.transfer({ handle: fromHub, deliveryId: 0, payload: unreadable[0]!.payload }));
    });
    await using client = startClient(hub.port);
    const [context] = (await once(client.receiver, 'message')) as [EventContext];
    expect(context.delivery!.tag).toEqual(Buffer.from('tag'));
    context.delivery!.reject({ condition: 'unreadable' });
    const rejection = (await hubSees(clientFlight + 1)).at(-1)!;
    expect(rejection.includes('unreadable')).toBe(true);
  });

  test('a large one in many transfers is kept once, and arrives whole', async () => {
    const large = Buffer.alloc(200_000, 'x');
    const payload = wire.message({ body: wire.described(0x75, wire.binary(large)) });
    await using hub = await startHub(({ socket }) => {
      socket.write(answers());
      socket.write(
        delivery(
          0,
          Array.from({ length: 21 }, (_, i) => payload.subarray(i * 10_000, (i + 1) * 10_000)),
        ),
      );
    });
    await using client = startClient(hub.port);
    const [message] = await client.received(1);
    expect((message!.body as { content: Buffer }).content.equals(large)).toBe(true);
  });
});
