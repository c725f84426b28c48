import { LiveSet } from './live-set.js';
import { decodeRemove, encodeRemove, removeBytes, type Ref } from './record.js';

/**
 * What the records of one segment say, gathered as they are written or read: where each item lies, which of them
 * are alive, and which items of older segments are removed here.
 */
export class Contents {
  readonly live: LiveSet;
  readonly entries = new Entries();
  readonly foreign = new Removals();

  constructor(base: number) {
    this.live = new LiveSet(base);
  }

  /** `at` and `bytes` are those of the whole record. */
  put(at: number, bytes: number, ref: Ref): void {
    this.live.add(ref);
    this.entries.push(at, bytes, ref.kind);
  }

  remove(ref: Ref): void {
    if (this.live.ordinal(ref.id) < 0) this.foreign.push(ref);
    else this.live.remove(ref);
  }
}

/** Where the items of a segment lie, in the order of their ids: 9 bytes each. */
export class Entries {
  #size: number;
  #offsets: Uint32Array;
  #lengths: Uint32Array;
  #kinds: Uint8Array;

  constructor(saved?: { offsets: Uint32Array; lengths: Uint32Array; kinds: Uint8Array }) {
    this.#size = saved?.kinds.length ?? 0;
    this.#offsets = saved?.offsets ?? new Uint32Array(64);
    this.#lengths = saved?.lengths ?? new Uint32Array(64);
    this.#kinds = saved?.kinds ?? new Uint8Array(64);
  }

  get size(): number {
    return this.#size;
  }

  get columns(): { offsets: Uint32Array; lengths: Uint32Array; kinds: Uint8Array } {
    const size = this.#size;
    return {
      offsets: this.#offsets.subarray(0, size),
      lengths: this.#lengths.subarray(0, size),
      kinds: this.#kinds.subarray(0, size),
    };
  }

  push(offset: number, length: number, kind: number): void {
    if (this.#size === this.#kinds.length) this.#grow();
    this.#offsets[this.#size] = offset;
    this.#lengths[this.#size] = length;
    this.#kinds[this.#size] = kind;
    this.#size++;
  }

  offset(ordinal: number): number {
    return this.#offsets[ordinal] ?? 0;
  }

  /** Of the record that holds the item. */
  length(ordinal: number): number {
    return this.#lengths[ordinal] ?? 0;
  }

  kind(ordinal: number): number {
    return this.#kinds[ordinal] ?? 0;
  }

  #grow(): void {
    const { offsets, lengths, kinds } = this.columns;
    this.#offsets = new Uint32Array(this.#size * 2);
    this.#lengths = new Uint32Array(this.#size * 2);
    this.#kinds = new Uint8Array(this.#size * 2);
    this.#offsets.set(offsets);
    this.#lengths.set(lengths);
    this.#kinds.set(kinds);
  }
}

/** Removals, kept as the bytes that they are in a record: a backlog that drains makes a million of them. */
export class Removals {
  #bytes: Buffer;
  #end: number;

  constructor(bytes: Buffer = Buffer.alloc(0)) {
    this.#bytes = bytes;
    this.#end = bytes.length;
  }

  get count(): number {
    return this.#end / removeBytes;
  }

  get encoded(): Buffer {
    return this.#bytes.subarray(0, this.#end);
  }

  push(ref: Ref): void {
    if (this.#end === this.#bytes.length) {
      const larger = Buffer.alloc(Math.max(64 * removeBytes, this.#end * 2));
      this.#bytes.copy(larger);
      this.#bytes = larger;
    }
    this.#end = encodeRemove(this.#bytes, this.#end, ref);
  }

  *[Symbol.iterator](): Generator<Ref> {
    for (let at = 0; at < this.#end; at += removeBytes) yield decodeRemove(this.#bytes, at);
  }
}
