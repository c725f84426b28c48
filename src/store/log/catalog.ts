import { kindCount, type Ref } from './record.js';
import type { Segment } from './segment.js';

/** The segments of an open store, oldest first, and which items in them are alive. Their ids ascend with them. */
export class Catalog {
  #segments: Segment[] = [];
  readonly #counts = new Float64Array(kindCount);
  readonly #bytes = new Float64Array(kindCount);

  get segments(): readonly Segment[] {
    return this.#segments;
  }

  has(segment: Segment): boolean {
    return this.#segments.includes(segment);
  }

  /** Live items of a kind. */
  count(kind: number): number {
    return this.#counts[kind] ?? 0;
  }

  /** What they take on disk. */
  bytes(kind: number): number {
    return this.#bytes[kind] ?? 0;
  }

  push(segment: Segment): void {
    this.#segments.push(segment);
    this.#account(segment, 1);
  }

  /** Takes a run of segments out, and puts another one in its place if there is one. */
  replace(run: readonly Segment[], by?: Segment): void {
    const [oldest] = run;
    if (!oldest) return;
    for (const segment of run) this.#account(segment, -1);
    this.#segments.splice(this.#segments.indexOf(oldest), run.length, ...(by ? [by] : []));
    if (by) this.#account(by, 1);
  }

  /** For an item that has just been written to the newest segment, which has accounted for it itself. */
  added({ kind, bytes }: Ref): void {
    this.#counts[kind] = this.count(kind) + 1;
    this.#bytes[kind] = this.bytes(kind) + bytes;
  }

  /** Marks an item as dead, wherever it is. */
  remove(ref: Ref): void {
    const segment = this.segmentOf(ref.id);
    if (!segment) return;
    const before = segment.live.bytes[ref.kind] ?? 0;
    if (!segment.live.remove(ref)) return;
    this.#counts[ref.kind] = this.count(ref.kind) - 1;
    this.#bytes[ref.kind] = this.bytes(ref.kind) - before + (segment.live.bytes[ref.kind] ?? 0);
  }

  isAlive(id: number): boolean {
    const segment = this.segmentOf(id);
    if (!segment) return false;
    const ordinal = segment.live.ordinal(id);
    return ordinal >= 0 && segment.live.isAlive(ordinal);
  }

  /** The segment that holds the item, dead or alive. */
  segmentOf(id: number): Segment | undefined {
    const segment = this.#segments[this.#firstBeyond(id)];
    return segment && segment.live.ordinal(id) >= 0 ? segment : undefined;
  }

  /** The oldest segment with a live item of this kind whose id may be above `after`. */
  nextWith(kind: number, after: number): Segment | undefined {
    for (let i = this.#firstBeyond(after + 1); i < this.#segments.length; i++) {
      const segment = this.#segments[i];
      if (segment && (segment.live.counts[kind] ?? 0) > 0) return segment;
    }
    return undefined;
  }

  /** Index of the first segment that holds an id of `id` or above. */
  #firstBeyond(id: number): number {
    let low = 0;
    let high = this.#segments.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#segments[middle]?.live.next ?? 0) <= id) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #account({ live }: Segment, sign: 1 | -1): void {
    for (let kind = 0; kind < kindCount; kind++) {
      this.#counts[kind] = this.count(kind) + sign * (live.counts[kind] ?? 0);
      this.#bytes[kind] = this.bytes(kind) + sign * (live.bytes[kind] ?? 0);
    }
  }
}
