import { Contents } from './contents.js';
import type { StoreFile } from './files.js';
import { encodeRecord, recordBytes, refOf, type Operation, type Ref } from './record.js';
import { terminatorBytes } from './scan.js';
import {
  encodeSegmentHeader,
  Segment,
  segmentHeaderBytes,
  type Previous,
  type SegmentName,
} from './segment.js';

/** The segment that is being written. */
export class ActiveSegment {
  constructor(
    readonly segment: Segment,
    readonly contents: Contents,
    readonly file: StoreFile,
    readonly capacity: number,
  ) {}

  static fresh(name: SegmentName, nextId: number, file: StoreFile, capacity: number): ActiveSegment {
    const contents = new Contents(nextId);
    return new ActiveSegment(new Segment(name, contents.live, 0, 0), contents, file, capacity);
  }

  /** Whether anything of it was acknowledged. */
  get isBegun(): boolean {
    return this.segment.end > 0;
  }

  /** Bytes of records that it still takes. */
  get room(): number {
    return this.capacity - Math.max(this.segment.end, segmentHeaderBytes) - terminatorBytes;
  }

  /**
   * A group of records as the next write to the file, the segment's header before the first. `sequence` is the id of their
   * first item. `into` is large enough for header, records and terminator.
   */
  encode(
    into: Buffer,
    group: Iterable<{ readonly records: readonly (readonly Operation[])[] }>,
    sequence: number,
    previous: Previous,
  ): Buffer {
    const { mark, first: number } = this.segment.name;
    let end = 0;
    if (!this.isBegun) {
      end += encodeSegmentHeader({ mark, number, base: sequence, previous }).copy(into);
    }
    for (const { records } of group) {
      for (const operations of records) {
        end = encodeRecord(into, end, mark, sequence, operations);
        for (const operation of operations) if ('put' in operation) sequence++;
      }
    }
    into.fill(0, end, end + terminatorBytes);
    return into.subarray(0, end + terminatorBytes);
  }

  /**
   * Takes a record into the accounts, after it has reached the disk at the segment's end, and moves the end. `refs`
   * gets what its puts are called. The caller tells the catalog.
   */
  record(operations: readonly Operation[], sequence: number, refs: Ref[]): void {
    const at = Math.max(this.segment.end, segmentHeaderBytes);
    const bytes = recordBytes(operations);
    for (const operation of operations) {
      if ('put' in operation) {
        const ref = refOf(operation.put, sequence++);
        this.contents.put(at, bytes, ref);
        refs.push(ref);
      } else if (this.contents.live.ordinal(operation.remove.id) < 0) {
        this.contents.foreign.push(operation.remove);
        this.segment.foreignRemovals++;
      }
    }
    this.segment.end = at + bytes;
  }
}
