import { createHash } from 'node:crypto';

import type { HubClock } from './clock.js';
import type { HubMessage } from './message.js';

/**
 * The built-in Event Hubs-compatible endpoint: what devices sent, in a fixed number of logs. All of a device is in
 * one of them, in order. Events leave a log when it holds too many, too much, or when they are too old.
 */
export class Partitions {
  readonly all: readonly Partition[];
  readonly createdAt: number;
  readonly #byDevice = new Map<string, Partition>();

  constructor(count: number, retention: Retention, clock: HubClock) {
    this.createdAt = clock.now();
    this.all = Array.from({ length: count }, (_, id) => new Partition(String(id), retention, clock));
  }

  /** The partition of a device: always the same one. */
  of(deviceId: string): Partition {
    let partition = this.#byDevice.get(deviceId);
    if (partition === undefined) this.#byDevice.set(deviceId, (partition = this.#hashed(deviceId)));
    return partition;
  }

  #hashed(deviceId: string): Partition {
    const hash = createHash('sha1').update(deviceId).digest().readUInt32BE(0);
    const partition = this.all[hash % this.all.length];
    if (partition === undefined) throw new RangeError('a hub has at least one partition');
    return partition;
  }
}

export interface Retention {
  /** Each partition keeps at most so many events, */
  count: number;
  /** so many bytes of bodies, */
  bytes: number;
  /** and none older than this, in milliseconds. */
  ageMs: number;
}

export interface StoredEvent {
  /** From 0, without gaps, per partition. */
  readonly sequenceNumber: number;
  /** Bytes before it in the partition. */
  readonly offset: number;
  /** Milliseconds since the epoch. */
  readonly enqueuedAt: number;
  readonly deviceId: string;
  readonly message: HubMessage;
  /** Made by the first reader, used by the others. */
  encoded?: Buffer;
}

export class Partition {
  readonly id: string;
  readonly #retention: Retention;
  readonly #clock: HubClock;
  /** The events from sequence number `#first` on. */
  #events: StoredEvent[] = [];
  #next = 0;
  #bytes = 0;
  #offset = 0;
  readonly #watchers = new Set<() => void>();

  constructor(id: string, retention: Retention, clock: HubClock) {
    this.id = id;
    this.#retention = retention;
    this.#clock = clock;
  }

  /** Sequence number of the oldest event that is kept; that of the next one when there is none. */
  get first(): number {
    return this.#next - this.#events.length;
  }

  /** Sequence number that the next event gets. */
  get next(): number {
    return this.#next;
  }

  get last(): StoredEvent | undefined {
    return this.#events.at(-1);
  }

  append(deviceId: string, message: HubMessage): void {
    const enqueuedAt = this.#clock.now();
    this.#events.push({ sequenceNumber: this.#next++, offset: this.#offset, enqueuedAt, deviceId, message });
    this.#offset += message.body.length + overheadBytes;
    this.#bytes += message.body.length;
    this.#trim();
    for (const wake of this.#watchers) wake();
  }

  /** The event with this sequence number, or the oldest after it. */
  read(sequenceNumber: number): StoredEvent | undefined {
    this.#trim();
    return this.#events[Math.max(0, sequenceNumber - this.first)];
  }

  /** Sequence number of the first event that a reader with this start gets; the next one's when there is none. */
  find(start: StartPosition): number {
    this.#trim();
    if (start.from === 'latest') return this.#next;
    const found = this.#events.find((event) => isAfter(event, start));
    return found?.sequenceNumber ?? this.#next;
  }

  /** Calls `wake` after each append; returns what ends that. */
  watch(wake: () => void): () => void {
    this.#watchers.add(wake);
    return () => {
      this.#watchers.delete(wake);
    };
  }

  /** All that is kept, oldest first. */
  get events(): readonly StoredEvent[] {
    return this.#events;
  }

  restore(events: StoredEvent[]): void {
    const last = events.at(-1);
    this.#events = events;
    this.#next = last === undefined ? 0 : last.sequenceNumber + 1;
    this.#offset = last === undefined ? 0 : last.offset + last.message.body.length + overheadBytes;
    this.#bytes = events.reduce((sum, { message }) => sum + message.body.length, 0);
  }

  #trim(): void {
    const { count, bytes, ageMs } = this.#retention;
    const oldest = this.#clock.now() - ageMs;
    let gone = 0;
    let size = this.#bytes;
    for (const event of this.#events) {
      const left = this.#events.length - gone;
      if (left <= count && size <= bytes && event.enqueuedAt >= oldest) break;
      size -= event.message.body.length;
      gone++;
    }
    if (gone === 0) return;
    this.#bytes = size;
    this.#events.splice(0, gone);
  }
}

/** What an event takes besides its body, so that even empty ones have offsets of their own. */
const overheadBytes = 64;

/** Where a reader begins. */
export type StartPosition =
  { from: 'latest' } | { from: 'offset' | 'sequence' | 'time'; value: number; inclusive: boolean };

function isAfter(
  event: StoredEvent,
  { from, value, inclusive }: Exclude<StartPosition, { from: 'latest' }>,
): boolean {
  const own = { offset: event.offset, sequence: event.sequenceNumber, time: event.enqueuedAt }[from];
  return inclusive ? own >= value : own > value;
}

/**
 * Reads a selector such as `amqp.annotation.x-opt-offset > '-1'`; undefined when it is none that Event Hubs knows.
 */
export function parseSelector(expression: string): StartPosition | undefined {
  const match = /^\s*amqp\.annotation\.(x-opt-[a-z-]+)\s*(>=?)\s*'?(@latest|-?\d+)'?\s*$/i.exec(expression);
  if (match === null) return undefined;
  const [, name = '', operator, value = ''] = match;
  const from = selectorNames[name.toLowerCase()];
  if (from === undefined) return undefined;
  if (value.toLowerCase() === '@latest') return { from: 'latest' };
  return { from, value: Number(value), inclusive: operator === '>=' };
}

const selectorNames: Record<string, 'offset' | 'sequence' | 'time'> = {
  'x-opt-offset': 'offset',
  'x-opt-sequence-number': 'sequence',
  'x-opt-enqueued-time': 'time',
  'x-opt-enqueuedtimeutc': 'time',
};
