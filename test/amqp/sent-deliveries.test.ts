import { once } from 'node:events';
import type { Socket } from 'node:net';

import { describe, expect, test } from 'vitest';

import { Frame } from '../../src/amqp/guard/frame.js';
import { FrameWriter } from '../../src/amqp/guard/frame-writer.js';
import { SentDeliveries, type SendingLink, type Waiter } from '../../src/amqp/guard/sent-deliveries.js';
import { Walker } from '../../src/amqp/guard/values.js';
import { WriteBuffer } from '../../src/amqp/guard/write-buffer.js';
import { messageFormat } from '../../src/amqp/telemetry-link.js';
import { SenderLink } from '../../src/amqp/sender-link.js';
import type { SendOutcome } from '../../src/model.js';
import * as wire from './guard-frames.js';
import { answers, startClient, startHub, toHub, type Client, type Peer } from './guard-peer.js';
import { never } from './hub.js';

/** A transfer as it was written: header, descriptor, and a short list whose numbers all take five bytes. */
function transferIn(frame: Buffer) {
  if (frame[10] !== 0x14) return undefined;
  const more = frame[36] === 0x41;
  return { id: frame.readUInt32BE(20), format: frame.readUInt32BE(31), more, payload: frame.subarray(37) };
}

function transfersIn(frames: Buffer[]) {
  return frames.flatMap((frame) => transferIn(frame) ?? []);
}

/** A field of a frame that rhea wrote: list32 behind a small descriptor, and every number as wide as its value. */
function uintIn(frame: Buffer, field: number): number {
  const widths: Record<number, number> = { 0x40: 1, 0x43: 1, 0x52: 2, 0x70: 5 };
  let at = 8 + 3 + 9;
  for (let i = 0; i < field; i++) at += widths[frame[at]!]!;
  const code = frame[at]!;
  return code === 0x43 ? 0 : code === 0x52 ? frame[at + 1]! : frame.readUInt32BE(at + 1);
}

function framesOf(frames: Buffer[], performative: number): Buffer[] {
  return frames.filter((frame) => frame[10] === performative);
}

async function until(condition: () => boolean, socket: Socket): Promise<void> {
  while (!condition()) await once(socket, 'data');
}

/** Resolves when so many transfers have arrived. */
async function transfers({ frames, socket }: Peer, count: number) {
  await until(() => transfersIn(frames()).length >= count, socket);
  return transfersIn(frames());
}

async function linkOf(client: Client): Promise<SenderLink> {
  await once(client.sender, 'sendable');
  return new SenderLink(client.sender.name, {
    over: never,
    fail: () => undefined,
    outlet: client.guarded,
  });
}

/** Deliveries without a connection, and what they have written. */
function alone(counts: Partial<SendingLink>, firstId = 0) {
  const frames: Buffer[] = [];
  const out = new WriteBuffer((_bytes, taken) => {
    taken();
  });
  const writer = new FrameWriter(0, out, (at, length) =>
    frames.push(Buffer.from(out.bytes.subarray(at, at + length))),
  );
  const deliveries = new SentDeliveries(writer, firstId);
  const link: SendingLink = {
    handle: 0,
    allowed: 0,
    given: 0,
    sent: 0,
    onCredit: () => undefined,
    ...counts,
  };
  return { deliveries, link, frames, written: () => transfersIn(frames) };
}

function waiter(settled: (outcome: SendOutcome) => void): Waiter {
  return { settled, lost: () => undefined };
}

/** The hub accepts, as the guard has read it. */
function acceptedFrom(first: number, last: number, more: Partial<wire.DispositionFields> = {}): Frame {
  const bytes = wire.disposition({ role: 'receiver', first, last, ...more });
  const frame = new Frame(new Walker(8));
  frame.read(bytes, 0, bytes.length);
  return frame;
}

const text = (value: string) => Buffer.from(value);

describe('a delivery', () => {
  test('is a transfer with its format and payload, and has the outcome that the hub gives it', async () => {
    await using hub = await startHub(async (peer) => {
      peer.socket.write(answers());
      await transfers(peer, 5);
      const states = [
        wire.accepted,
        wire.described(
          0x25,
          wire.list(wire.described(0x1d, wire.list(wire.symbol('amqp:not-found'), wire.string('gone')))),
        ),
        wire.described(0x26, wire.hex('45')),
        wire.described(0x27, wire.list(wire.bool(true), wire.bool(true))),
        wire.described(0x27, wire.hex('45')),
      ];
      states.forEach((state, first) =>
        peer.socket.write(wire.disposition({ role: 'receiver', first, state })),
      );
      expect(transfersIn(peer.frames())).toEqual([
        { id: 0, format: 0, more: false, payload: text('first') },
        ...[1, 2, 3, 4].map((id) => ({
          id,
          format: messageFormat.batch,
          more: false,
          payload: text(`no. ${id}`),
        })),
      ]);
      peer.socket.end();
    });
    await using client = startClient(hub.port);
    const link = await linkOf(client);
    const outcomes = await Promise.all([
      link.send(text('first')),
      ...[1, 2, 3, 4].map((n) => link.send(text(`no. ${n}`), messageFormat.batch)),
    ]);
    expect(outcomes).toEqual([
      { outcome: 'accepted' },
      { outcome: 'rejected', condition: 'amqp:not-found', description: 'gone' },
      { outcome: 'released' },
      { outcome: 'modified', undeliverableHere: true },
      { outcome: 'modified', undeliverableHere: false },
    ]);
    expect(await client.ended).toBeUndefined();
  });

  test('that is not settled with its outcome is settled by us, and "received" is no outcome', async () => {
    let settled: Buffer | undefined;
    await using hub = await startHub(async (peer) => {
      peer.socket.write(answers());
      await transfers(peer, 2);
      const received = wire.described(0x23, wire.list(wire.uint(0), wire.hex('80 0000000000000000')));
      peer.socket.write(
        wire.disposition({ role: 'receiver', first: 0, last: 1, settled: false, state: received }),
      );
      peer.socket.write(wire.disposition({ role: 'receiver', first: 0, last: 1, settled: false }));
      await until(() => framesOf(peer.frames(), 0x15).length === 1, peer.socket);
      [settled] = framesOf(peer.frames(), 0x15);
    });
    await using client = startClient(hub.port);
    const link = await linkOf(client);
    expect(await Promise.all([link.send(text('a')), link.send(text('b'))])).toEqual([
      { outcome: 'accepted' },
      { outcome: 'accepted' },
    ]);
    // Role sender, from 0 to 1, settled.
    await expect
      .poll(() => settled?.subarray(8).toString('hex'))
      .toBe('005315c00d04427000000000700000000141');
  });

  test('larger than a frame goes in several, as far as the window of the session allows', async () => {
    const large = Buffer.alloc(300_000, 'large ');
    let first = 0;
    await using hub = await startHub(async (peer) => {
      peer.socket.write(answers({ incomingWindow: 3 }));
      await transfers(peer, 3);
      first = transfersIn(peer.frames()).length;
      peer.socket.write(wire.flow({ nextIncomingId: 3, incomingWindow: 1 }));
      await transfers(peer, 4);
      peer.socket.write(wire.flow({ nextIncomingId: 4 }));
      const all = await transfers(peer, 6);
      expect(Buffer.concat(all.slice(0, 5).map(({ payload }) => payload))).toEqual(large);
      expect(all.map(({ id, more }) => [id, more])).toEqual([
        ...[0, 0, 0, 0].map((id) => [id, true]),
        [0, false],
        [1, false],
      ]);
      peer.socket.write(wire.disposition({ role: 'receiver', first: 0, last: 1 }));
    });
    await using client = startClient(hub.port, { maxFrameBytes: 65_536 });
    const link = await linkOf(client);
    expect(link.credit).toBe(3);
    const sent = [link.send(large), link.send(text('behind it'))];
    expect(link.credit).toBe(0);
    await Promise.all(sent);
    expect(first).toBe(3);
  });

  test('given without credit waits for it', async () => {
    let before: number | undefined;
    await using hub = await startHub(async (peer) => {
      peer.socket.write(answers({ linkCredit: 2 }));
      await transfers(peer, 2);
      peer.socket.write(wire.disposition({ role: 'receiver', first: 0, last: 1 }));
      before = transfersIn(peer.frames()).length;
      peer.socket.write(
        wire.flow({
          handle: toHub,
          nextIncomingId: 2,
          deliveryCount: wire.uint(2),
          linkCredit: wire.uint(1),
        }),
      );
      await transfers(peer, 3);
      peer.socket.write(wire.disposition({ role: 'receiver', first: 2 }));
    });
    await using client = startClient(hub.port);
    const link = await linkOf(client);
    expect(link.credit).toBe(2);
    await Promise.all(['a', 'b', 'c'].map((body) => link.send(text(body))));
    expect(before).toBe(2);
    expect(link.credit).toBe(0);
  });

  test('without an outcome when the session ends is lost, and nothing is sent there any more', async () => {
    await using hub = await startHub(async (peer) => {
      peer.socket.write(answers());
      await transfers(peer, 1);
      peer.socket.write(wire.detach(toHub));
      await until(() => framesOf(peer.frames(), 0x16).length === 1, peer.socket);
      peer.socket.write(wire.end());
      await until(() => framesOf(peer.frames(), 0x17).length === 1, peer.socket);
      expect(transfersIn(peer.frames())).toHaveLength(1);
      peer.socket.end();
    });
    await using client = startClient(hub.port);
    const over = new AbortController();
    await once(client.sender, 'sendable');
    const link = new SenderLink(client.sender.name, {
      over: over.signal,
      fail: () => undefined,
      outlet: client.guarded,
    });
    const sent = link.send(text('never answered'));
    await once(client.sender, 'sender_close');
    link.ship(text('too late'), 0, { settled: () => undefined, lost: () => undefined });
    const credit = link.moreCredit(AbortSignal.timeout(5_000));
    over.abort(new Error('the link is gone'));
    await expect(sent).rejects.toThrow('the link is gone');
    await expect(credit).rejects.toThrow('the link is gone');
    expect(await client.ended).toBeUndefined();
  });
});

test('what rhea says of the session counts the transfers that went beside it', async () => {
  let counts: number[] = [];
  await using hub = await startHub(async (peer) => {
    peer.socket.write(answers());
    await transfers(peer, 5);
    peer.socket.write(wire.disposition({ role: 'receiver', first: 0, last: 4 }));
    const flows = () => framesOf(peer.frames(), 0x13);
    await until(() => flows().length === 2, peer.socket);
    counts = flows().map((flow) => uintIn(flow, 2));
  });
  await using client = startClient(hub.port);
  const link = await linkOf(client);
  await Promise.all(['a', 'b', 'c', 'd', 'e'].map((body) => link.send(text(body))));
  client.receiver.add_credit(5);
  await expect.poll(() => counts).toEqual([0, 5]);
});

test('an outcome for an id that is long settled, or was never sent, settles nothing', async () => {
  await using hub = await startHub(async (peer) => {
    peer.socket.write(answers({ linkCredit: 5_000, incomingWindow: 5_000 }));
    await transfers(peer, 2_000);
    for (let first = 0; first < 2_000; first += 250)
      peer.socket.write(wire.disposition({ role: 'receiver', first, last: first + 249 }));
    await transfers(peer, 2_200);
    // Number 2 098 has the place that 50 had.
    for (const first of [50, 7_000, 2_199]) peer.socket.write(wire.disposition({ role: 'receiver', first }));
  });
  await using client = startClient(hub.port);
  const link = await linkOf(client);
  const settled: number[] = [];
  const send = (from: number, to: number) =>
    Promise.all(
      Array.from({ length: to - from }, async (_, i) => {
        await link.send(text('x'));
        settled.push(from + i);
      }),
    );
  await send(0, 2_000);
  void send(2_000, 2_200);
  await expect.poll(() => settled.length).toBeGreaterThan(2_000);
  expect(settled.slice(2_000)).toEqual([2_199]);
});

test('no more are without an outcome than there are places for, and the next goes when the oldest has one', () => {
  const { deliveries, link } = alone({ allowed: 5_000 });
  deliveries.begin(10_000, 65_536);
  const settled: number[] = [];
  for (let n = 0; n < 2_049; n++)
    deliveries.send(
      link,
      text('x'),
      0,
      waiter(() => settled.push(n)),
    );
  expect(link.sent).toBe(2_048);
  expect(deliveries.credit(link)).toBe(0);
  deliveries.received(acceptedFrom(0, 0), 0, 0);
  deliveries.proceed();
  expect([settled, link.sent]).toEqual([[0], 2_049]);
});

test('a hub that takes as much as can be said is sent to', async () => {
  await using hub = await startHub(async (peer) => {
    peer.socket.write(answers({ linkCredit: 0xffff_ffff, incomingWindow: 0xffff_ffff }));
    await transfers(peer, 1);
    peer.socket.write(wire.disposition({ role: 'receiver', first: 0 }));
  });
  await using client = startClient(hub.port);
  const link = await linkOf(client);
  expect(await link.send(text('x'))).toEqual({ outcome: 'accepted' });
  expect(link.credit).toBeGreaterThan(1_000_000);
});

test('ids, credit and window go on past 2^32', () => {
  const start = 2 ** 32 - 2;
  const { deliveries, link, written } = alone({ allowed: 3, given: start, sent: start }, start);
  deliveries.begin(100, 65_536);
  expect(deliveries.credit(link)).toBe(5);
  const outcomes: SendOutcome[] = [];
  for (let n = 0; n < 6; n++)
    deliveries.send(
      link,
      text('x'),
      0,
      waiter((outcome) => outcomes.push(outcome)),
    );
  expect(written().map(({ id }) => id)).toEqual([start, start + 1, 0, 1, 2]);
  deliveries.received(acceptedFrom(start, 2), start, 2);
  expect(outcomes).toHaveLength(5);
  link.allowed = 4;
  deliveries.proceed();
  expect(
    written()
      .map(({ id }) => id)
      .at(-1),
  ).toBe(3);
});

describe('an outcome', () => {
  /** What is told of a delivery whose outcome the hub states so. */
  function toldOf(state: Buffer): SendOutcome[] {
    const { deliveries, link } = alone({ allowed: 1 });
    deliveries.begin(100, 65_536);
    const outcomes: SendOutcome[] = [];
    deliveries.send(
      link,
      text('x'),
      0,
      waiter((outcome) => outcomes.push(outcome)),
    );
    deliveries.received(acceptedFrom(0, 0, { state }), 0, 0);
    return outcomes;
  }

  test('may be named by a symbol', () => {
    const error = wire.described(
      wire.symbol('amqp:error:list'),
      wire.list(wire.symbol('amqp:not-found'), wire.string('gone')),
    );
    expect(toldOf(wire.described(wire.symbol('amqp:rejected:list'), wire.list(error)))).toEqual([
      { outcome: 'rejected', condition: 'amqp:not-found', description: 'gone' },
    ]);
  });

  test('that is none, of a delivery that is settled, is as if it were given back', () => {
    const received = wire.described(0x23, wire.list(wire.uint(0), wire.hex('80 0000000000000000')));
    expect(toldOf(received)).toEqual([{ outcome: 'released' }]);
  });

  test('of a range that nothing was sent of, or after the end, is not settled', () => {
    const { deliveries, link, frames } = alone({ allowed: 2 });
    deliveries.begin(100, 65_536);
    deliveries.send(
      link,
      text('x'),
      0,
      waiter(() => undefined),
    );
    frames.length = 0;
    deliveries.received(acceptedFrom(5_000, 5_100, { settled: false }), 5_000, 5_100);
    deliveries.close();
    deliveries.received(acceptedFrom(0, 0, { settled: false }), 0, 0);
    expect(frames).toEqual([]);
  });
});

test('who waits is told once that the session is over: of what has begun to leave, waits, and comes too late', () => {
  const { deliveries, link } = alone({ allowed: 2 });
  deliveries.begin(1, 512);
  const told: string[] = [];
  const send = (name: string) => {
    deliveries.send(link, Buffer.alloc(1_000), 0, {
      settled: () => told.push(`${name} settled`),
      lost: () => told.push(`${name} lost`),
    });
  };
  send('half out');
  send('waiting');
  deliveries.close();
  send('closing');
  deliveries.abandon(new Error('over'));
  deliveries.abandon(new Error('over'));
  send('late');
  expect(told).toEqual(['half out lost', 'waiting lost', 'closing lost', 'late lost']);
});

test('a link that the hub takes back in the same breath is over with what it said', async () => {
  await using hub = await startHub(({ socket }) => {
    socket.write(Buffer.concat([answers(), wire.detach(toHub)]));
  });
  await using client = startClient(hub.port);
  await once(client.sender, 'sender_close');
  const scope = {
    over: AbortSignal.abort(new Error('taken back')),
    fail: () => undefined,
    outlet: client.guarded,
  };
  expect(() => new SenderLink(client.sender.name, scope)).toThrow('taken back');
});
