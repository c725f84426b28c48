import { kindCount, type Ref } from './record.js';

/**
 * Which items of one segment are alive: one bit each, and the sums per kind. This is all that stays in memory for a
 * segment that nobody reads, so that a million waiting messages take 125 kB.
 *
 * The items of a segment as it was written have ids without gaps, so the n-th item is `base + n`. Where there are
 * gaps (a rewritten segment, or a damaged one) the distances of the ids from `base` are kept too.
 */
export class LiveSet {
  readonly counts = new Float64Array(kindCount);
  readonly bytes = new Float64Array(kindCount);
  #bits: Uint8Array;
  #size = 0;
  #next: number;
  #distances: Uint32Array | undefined;

  constructor(
    readonly base: number,
    capacity = 64,
  ) {
    this.#next = base;
    this.#bits = new Uint8Array(Math.ceil(capacity / 8));
  }

  /** How many items the segment holds, dead or alive. */
  get size(): number {
    return this.#size;
  }

  /** The id after the last item. */
  get next(): number {
    return this.#next;
  }

  get liveCount(): number {
    return sum(this.counts);
  }

  get liveBytes(): number {
    return sum(this.bytes);
  }

  /** The distances of the ids from `base`, when there are gaps between them. */
  get distances(): Uint32Array | undefined {
    return this.#distances?.subarray(0, this.#size);
  }

  get bits(): Uint8Array {
    return this.#bits.subarray(0, Math.ceil(this.#size / 8));
  }

  /** Adds the next item, alive. Ids ascend; whoever calls looks to that. */
  add({ kind, id, bytes }: Ref): void {
    if (id !== this.#next && !this.#distances) this.#distances = Uint32Array.from(this.#noGaps());
    if (this.#distances) {
      if (this.#size === this.#distances.length) this.#distances = grown(this.#distances, Uint32Array);
      this.#distances[this.#size] = id - this.base;
    }
    if (this.#size === this.#bits.length * 8) this.#bits = grown(this.#bits, Uint8Array);
    this.#setBit(this.#size);
    this.#size++;
    this.#next = id + 1;
    this.#account(kind, 1, bytes);
  }

  /** The place of an item in the segment, or -1: it was never in it. */
  ordinal(id: number): number {
    const distance = id - this.base;
    if (distance < 0 || id >= this.#next) return -1;
    if (!this.#distances) return distance;
    const at = lowerBound(this.#distances, this.#size, distance);
    return this.#distances[at] === distance ? at : -1;
  }

  /** The first place whose id is `id` or higher; `size` when there is none. */
  firstFrom(id: number): number {
    const distance = Math.max(0, id - this.base);
    if (!this.#distances) return Math.min(distance, this.#size);
    return lowerBound(this.#distances, this.#size, distance);
  }

  idAt(ordinal: number): number {
    return this.base + (this.#distances ? (this.#distances[ordinal] ?? 0) : ordinal);
  }

  isAlive(ordinal: number): boolean {
    return ((this.#bits[ordinal >> 3] ?? 0) & (1 << (ordinal & 7))) !== 0;
  }

  /** Whether the item was alive, and is not any more. */
  remove({ kind, id, bytes }: Ref): boolean {
    const ordinal = this.ordinal(id);
    if (ordinal < 0 || !this.isAlive(ordinal)) return false;
    this.#bits[ordinal >> 3] = (this.#bits[ordinal >> 3] ?? 0) & ~(1 << (ordinal & 7));
    this.#account(kind, -1, -bytes);
    return true;
  }

  /** A set as it was saved (`summary.ts`). */
  static restore(saved: {
    base: number;
    next: number;
    size: number;
    bits: Uint8Array;
    distances: Uint32Array | undefined;
    counts: Float64Array;
    bytes: Float64Array;
  }): LiveSet {
    const set = new LiveSet(saved.base, 0);
    set.#bits = saved.bits;
    set.#size = saved.size;
    set.#next = saved.next;
    set.#distances = saved.distances;
    set.counts.set(saved.counts);
    set.bytes.set(saved.bytes);
    return set;
  }

  #account(kind: number, count: number, bytes: number): void {
    const left = (this.counts[kind] ?? 0) + count;
    this.counts[kind] = left;
    // The size of an item whose record was damaged is only known roughly; an empty set is empty all the same.
    this.bytes[kind] = left === 0 ? 0 : Math.max(0, (this.bytes[kind] ?? 0) + bytes);
  }

  #setBit(ordinal: number): void {
    this.#bits[ordinal >> 3] = (this.#bits[ordinal >> 3] ?? 0) | (1 << (ordinal & 7));
  }

  *#noGaps(): Generator<number> {
    for (let i = 0; i < this.#size; i++) yield i;
  }
}

function sum(values: Float64Array): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}

function grown<T extends Uint8Array | Uint32Array>(array: T, type: new (length: number) => T): T {
  const larger = new type(Math.max(64, array.length * 2));
  larger.set(array);
  return larger;
}

/** First index in `ascending[0, size)` whose value is not below `value`. */
export function lowerBound(ascending: Uint32Array, size: number, value: number): number {
  let low = 0;
  let high = size;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((ascending[middle] ?? 0) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
