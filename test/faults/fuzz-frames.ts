/**
 * Conversations of a hub with the client of `guard-peer`, made from a seed: valid ones, and what becomes of them when
 * frames and message bodies are damaged.
 */
import * as wire from '../amqp/guard-frames.js';
import { fromHub, toHub } from '../amqp/guard-peer.js';

export interface Conversation {
  /** What the hub says, as it arrives. */
  chunks: Buffer[];
  /** Where in it damaged frames start: a frame that is changed, out of place, or has a damaged body. */
  damagedFramesAt: number[];
  /** Deliveries. */
  messages: number;
}

/** Some thirty frames with ten messages. Half of the bodies are damaged, or that and some of the frames. */
export function conversation(seed: number, damage: 'none' | 'bodies' | 'frames'): Conversation {
  const random = new Random(seed);
  const damagedFrames = new Set<Buffer>();
  let messages = 0;
  const delivery = (): Buffer[] => {
    const payload = message(random);
    if (damage === 'none' || random.chance(0.5)) return transfers(messages++, payload, random);
    const frames = transfers(messages++, damaged(payload, random), random);
    for (const frame of frames) damagedFrames.add(frame);
    return frames;
  };
  const frames: Buffer[] = [
    wire.open(...(random.chance(0.5) ? openFields(random) : [])),
    wire.begin({ nextOutgoingId: random.oneOf([0, 1, 0xffffffff]) }),
    wire.attach({ name: 'to the hub', handle: toHub, role: 'receiver' }),
    wire.attach({ name: 'from the hub', handle: fromHub, role: 'sender' }),
    wire.flow({ handle: toHub }),
  ];
  for (let i = 0; i < 6; i++) frames.push(...delivery());
  frames.push(
    wire.heartbeat,
    wire.disposition({ role: 'receiver', first: 0, last: 1 }),
    wire.flow({ handle: toHub, drain: random.chance(0.2) }),
    wire.disposition({ role: 'sender', first: 0, last: messages - 1 }),
    wire.flow({
      handle: fromHub,
      deliveryCount: wire.uint(messages + random.below(2)),
      echo: random.chance(0.5),
    }),
    wire.disposition({ role: 'receiver', first: 2, state: wire.described(0x25, wire.list(failure(random))) }),
    wire.disposition({
      ...{ role: 'receiver', first: 3, settled: random.chance(0.5) },
      state: wire.described(random.oneOf([0x23, 0x24, 0x26, 0x27]), wire.list()),
    }),
  );
  for (let i = 0; i < 4; i++) frames.push(...delivery());
  frames.push(ending(random));
  if (damage === 'frames') damageSome(frames, damagedFrames, random);
  const damagedFramesAt: number[] = [];
  let at = wire.amqpHeader.length;
  for (const frame of frames) {
    if (damagedFrames.has(frame)) damagedFramesAt.push(at);
    at += frame.length;
  }
  return { chunks: cutUp(Buffer.concat([wire.amqpHeader, ...frames]), random), damagedFramesAt, messages };
}

function openFields(random: Random): Buffer[] {
  const { nul, uint, ushort, symbol } = wire;
  return [
    wire.string('hub'),
    uint(65536),
    ushort(8191),
    uint(240_000),
    nul,
    nul,
    nul,
    symbol('x'),
    map(random, 2),
  ];
}

function ending(random: Random): Buffer {
  const error = random.chance(0.5) ? failure(random) : wire.nul;
  return random.oneOf([
    wire.frame(
      wire.described(0x16, wire.list(wire.uint(random.oneOf([toHub, fromHub])), wire.bool(true), error)),
    ),
    wire.frame(wire.described(0x17, wire.list(error))),
    wire.frame(wire.described(0x18, wire.list(error))),
  ]);
}

function failure(random: Random): Buffer {
  return wire.described(0x1d, wire.list(wire.symbol('amqp:not-allowed'), wire.string('no'), map(random, 2)));
}

/** The transfers of a delivery: one, or a few. */
function transfers(id: number, payload: Buffer, random: Random): Buffer[] {
  const pieces: Buffer[] = [];
  const count = random.chance(0.7) ? 1 : random.below(4) + 2;
  for (let i = 0; i < count; i++) {
    const [start, end] = [
      Math.floor((payload.length * i) / count),
      Math.floor((payload.length * (i + 1)) / count),
    ];
    pieces.push(payload.subarray(start, end));
  }
  return pieces.map((piece, i) =>
    wire.transfer({
      handle: fromHub,
      deliveryId: i === 0 ? id : wire.nul,
      settled: random.chance(0.1),
      more: i < count - 1,
      payload: piece,
    }),
  );
}

function message(random: Random): Buffer {
  const sections = [
    random.chance(0.5) && wire.described(0x70, wire.list(wire.bool(true), wire.hex('5004'))),
    random.chance(0.7) && wire.described(0x72, map(random, 3)),
    random.chance(0.7) && wire.described(0x73, wire.list(wire.string('id'), wire.nul, wire.string('to'))),
    random.chance(0.7) && wire.described(0x74, map(random, 3)),
    random.oneOf([
      () => wire.described(0x75, wire.binary(Buffer.alloc(random.below(600)))),
      () => wire.described(0x76, wire.list(value(random, 3), value(random, 3))),
      () => wire.described(0x77, value(random, 4)),
    ])(),
  ];
  return Buffer.concat(sections.filter((section) => section !== false));
}

function map(random: Random, depth: number): Buffer {
  const items = Array.from({ length: random.below(4) }, (_, i) => [
    random.chance(0.5) ? wire.symbol(`x-opt-${i}`) : wire.string(`key ${i}`),
    value(random, depth - 1),
  ]);
  return wire.map(...items.flat());
}

/** Any value of AMQP 1.0, in any of its encodings. */
function value(random: Random, depth: number): Buffer {
  const compound = depth > 0 && random.chance(0.4);
  if (!compound) return random.oneOf(plain)(random);
  const items = () => Array.from({ length: random.below(4) }, () => value(random, depth - 1));
  return random.oneOf([
    () => wire.list(...items()),
    () => map(random, depth),
    () => narrow(0xc0, items()),
    () =>
      wire.described(
        random.oneOf([wire.symbol('com.microsoft:timespan'), wire.hex('80 0000013700000007')]),
        value(random, depth - 1),
      ),
    () => array(random, depth),
  ])();
}

const fixed = (code: number, width: number) => (random: Random) =>
  Buffer.concat([Buffer.from([code]), random.bytes(width)]);
const sized = (code: number) => (random: Random) => {
  const text = Buffer.from('abcdefgh'.slice(0, random.below(8)));
  return code < 0xb0
    ? Buffer.concat([Buffer.from([code, text.length]), text])
    : Buffer.concat([Buffer.from([code, 0, 0, 0, text.length]), text]);
};
const plain = [
  ...[0x40, 0x41, 0x42, 0x43, 0x44, 0x45].map((code) => fixed(code, 0)),
  ...[0x50, 0x51, 0x52, 0x53, 0x54, 0x55].map((code) => fixed(code, 1)),
  ...[0x60, 0x61].map((code) => fixed(code, 2)),
  ...[0x70, 0x71, 0x72, 0x73, 0x74].map((code) => fixed(code, 4)),
  ...[0x80, 0x81, 0x82, 0x83, 0x84].map((code) => fixed(code, 8)),
  ...[0x94, 0x98].map((code) => fixed(code, 16)),
  ...[0xa0, 0xa1, 0xa3, 0xb0, 0xb1, 0xb3].map(sized),
];

/** Arrays of one constructor: fixed, variable or without width. */
function array(random: Random, depth: number): Buffer {
  const element = random.oneOf([...plain, () => wire.list(value(random, depth - 1))]);
  const first = element(random);
  const items = [first, ...Array.from({ length: random.below(3) }, () => element(random))];
  const content = Buffer.concat([first.subarray(0, 1), ...items.map((item) => item.subarray(1))]);
  return wire.claiming({ code: 0xf0, size: content.length + 4, count: items.length, content });
}

/** A list or map with one-byte size and count, if it fits. */
function narrow(code: number, items: Buffer[]): Buffer {
  const content = Buffer.concat(items);
  return content.length > 250
    ? wire.list(...items)
    : Buffer.concat([Buffer.from([code, content.length + 1, items.length]), content]);
}

/** Damages one to three frames of the list, or their order. */
function damageSome(frames: Buffer[], damagedFrames: Set<Buffer>, random: Random): void {
  const count = random.below(3) + 1;
  for (let i = 0; i < count; i++) {
    const at = random.below(frames.length);
    const change = random.below(10);
    const frame =
      change === 0 ? Buffer.from(random.oneOf(frames)) : damagedFrame(frames[at] ?? wire.heartbeat, random);
    // A frame again, a frame less, or a damaged frame.
    frames.splice(at, change === 0 ? 0 : 1, ...(change === 1 ? [] : [frame]));
    damagedFrames.add(frame);
  }
}

/** Most often the header stays right, so that the damage gets further than that. */
function damagedFrame(frame: Buffer, random: Random): Buffer {
  if (frame.length < 8 || random.chance(0.15)) return damaged(frame, random);
  const body = damaged(frame.subarray(8), random);
  return wire.frame(body, { channel: frame.readUInt16BE(6) });
}

const telling = [0, 1, 2, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff];
const codes = [
  0x00, 0x40, 0x45, 0x53, 0x56, 0x70, 0x80, 0xa1, 0xa3, 0xb0, 0xb1, 0xc0, 0xc1, 0xd0, 0xd1, 0xe0, 0xf0,
];

/** The bytes with one to four changes. */
function damaged(bytes: Buffer, random: Random): Buffer {
  let result: Buffer = Buffer.from(bytes);
  const changes = random.below(4) + 1;
  for (let i = 0; i < changes; i++) result = random.oneOf(damages)(result, random);
  return result;
}

const damages: ((bytes: Buffer, random: Random) => Buffer)[] = [
  (bytes, random) => patched(bytes, random.below(bytes.length + 1), Buffer.from([random.below(256)])),
  (bytes, random) => patched(bytes, random.below(bytes.length + 1), Buffer.from([random.oneOf(codes)])),
  (bytes, random) => patched(bytes, random.below(bytes.length + 1), uint32(random.oneOf(telling))),
  (bytes, random) => bytes.subarray(0, random.below(bytes.length + 1)),
  (bytes, random) => spliced(bytes, random, random.bytes(random.below(5))),
  (bytes, random) => spliced(bytes, random, value(random, 2)),
  (bytes, random) => spliced(bytes, random, random.oneOf([bomb(0x40), bomb(0x45), bomb(0xc0)])),
  (bytes, random) => spliced(bytes, random, wire.nested(random.below(200), wire.nul)),
  (bytes, random) => spliced(bytes, random, bytes.subarray(random.below(bytes.length + 1))),
];

function bomb(code: number): Buffer {
  return Buffer.concat([wire.hex('f0 00000005 ffffffff'), Buffer.from([code])]);
}

function patched(bytes: Buffer, at: number, patch: Buffer): Buffer {
  const result = Buffer.from(bytes);
  patch.copy(result, at);
  return result;
}

/** A few bytes replaced by others, of which there may be more. */
function spliced(bytes: Buffer, random: Random, insert: Buffer): Buffer {
  const at = random.below(bytes.length + 1);
  return Buffer.concat([bytes.subarray(0, at), insert, bytes.subarray(at + random.below(6))]);
}

function cutUp(bytes: Buffer, random: Random): Buffer[] {
  const chunks: Buffer[] = [];
  const largest = random.oneOf([10, 100, 1000, 100_000]);
  for (let at = 0; at < bytes.length;) {
    const end = at + 1 + random.below(largest);
    chunks.push(bytes.subarray(at, end));
    at = end;
  }
  return chunks;
}

function uint32(number: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(number);
  return bytes;
}

/** mulberry32: small, and the same everywhere. */
class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  oneOf<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)] as T;
  }

  bytes(count: number): Buffer {
    return Buffer.from(Array.from({ length: count }, () => this.below(256)));
  }
}
