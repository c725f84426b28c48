import { randomBytes } from 'node:crypto';
import { crc32 } from 'node:zlib';

import type { LiveSet } from './live-set.js';

/**
 * A segment is one file of the log. Its name says which part of the log it is:
 *
 *     00000007-00000007.0-9f3a11c2.log        number 7, as it was written
 *     00000003-00000007.1-5be01d77.log        what was alive in the numbers 3 to 7, rewritten (`compaction.ts`)
 *     first    last     generation, mark
 *
 * A file that covers the numbers of another one replaces it. The file starts with
 *
 *     offset  bytes
 *      0      8      "IHSTORE\n"
 *      8      2      version of the format
 *     10      4      mark, as in the name
 *     14      6      number, as in the name (the first)
 *     20      6      id that its first item has, or will have
 *     26      6      number of the segment written before it; 0 when there is none, or when this one is rewritten
 *     32      6      where that one ends
 *     38      1      1 when that one was left because a write to it failed: what it holds beyond its end may look like
 *                    records, but was never acknowledged, and is written again here; so is what the numbers between
 *                    the two hold, if their files are still there
 *     39      5      zero
 *     44      4      CRC32 of the 44 bytes above
 *
 * and goes on with records, then 24 zero bytes after the last one. What comes behind those is zeros, or left over
 * from an earlier life of the file; it has another mark, so it is nothing.
 */
export interface SegmentName {
  readonly first: number;
  readonly last: number;
  readonly generation: number;
  readonly mark: number;
}

export interface SegmentHeader {
  readonly mark: number;
  readonly number: number;
  readonly base: number;
  readonly previous: Previous;
}

/** The segment before this one, and where it ends. */
export interface Previous {
  readonly number: number;
  readonly end: number;
  /** A write behind its end failed. */
  readonly failed: boolean;
}

/** For a segment that has none before it. */
export const noPrevious: Previous = { number: 0, end: 0, failed: false };

export const segmentVersion = 1;
export const segmentHeaderBytes = 48;
const magic = Buffer.from('IHSTORE\n', 'latin1');
const namePattern = /^(\d{8,15})-(\d{8,15})\.(\d{1,9})-([0-9a-f]{8})\.log$/;

/** One segment as it is known while the store is open. */
export class Segment {
  constructor(
    readonly name: SegmentName,
    /** Its items that are alive. */
    readonly live: LiveSet,
    /** Where its last record ends. */
    public end: number,
    /** How many of its removals are about items of older segments. */
    public foreignRemovals: number,
  ) {}

  get fileName(): string {
    return fileNameOf(this.name);
  }
}

export function newSegmentName(number: number): SegmentName {
  return { first: number, last: number, generation: 0, mark: newMark() };
}

/** Four random bytes, none of them zero, so that a mark is never found in a run of zeros. */
export function newMark(): number {
  for (;;) {
    const bytes = randomBytes(4);
    if (!bytes.includes(0)) return bytes.readUInt32LE();
  }
}

export function fileNameOf({ first, last, generation, mark }: SegmentName): string {
  const padded = (number: number): string => String(number).padStart(8, '0');
  return `${padded(first)}-${padded(last)}.${generation}-${mark.toString(16).padStart(8, '0')}.log`;
}

export function parseFileName(fileName: string): SegmentName | undefined {
  const match = namePattern.exec(fileName);
  if (!match) return undefined;
  const [, first, last, generation, mark] = match;
  return {
    first: Number(first),
    last: Number(last),
    generation: Number(generation),
    mark: Number.parseInt(mark ?? '', 16),
  };
}

export function encodeSegmentHeader({ mark, number, base, previous }: SegmentHeader): Buffer {
  const bytes = Buffer.alloc(segmentHeaderBytes);
  magic.copy(bytes);
  bytes.writeUInt16LE(segmentVersion, 8);
  bytes.writeUInt32LE(mark, 10);
  bytes.writeUIntLE(number, 14, 6);
  bytes.writeUIntLE(base, 20, 6);
  bytes.writeUIntLE(previous.number, 26, 6);
  bytes.writeUIntLE(previous.end, 32, 6);
  bytes.writeUInt8(previous.failed ? 1 : 0, 38);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 44)), 44);
  return bytes;
}

export type HeaderFound =
  | { readonly found: 'header'; readonly header: SegmentHeader }
  | { readonly found: 'newer'; readonly version: number }
  | { readonly found: 'nothing' };

export function decodeSegmentHeader(bytes: Buffer): HeaderFound {
  if (bytes.length < segmentHeaderBytes || !bytes.subarray(0, 8).equals(magic)) return { found: 'nothing' };
  if (crc32(bytes.subarray(0, 44)) !== bytes.readUInt32LE(44)) return { found: 'nothing' };
  const version = bytes.readUInt16LE(8);
  if (version > segmentVersion) return { found: 'newer', version };
  const header = {
    mark: bytes.readUInt32LE(10),
    number: bytes.readUIntLE(14, 6),
    base: bytes.readUIntLE(20, 6),
    previous: {
      number: bytes.readUIntLE(26, 6),
      end: bytes.readUIntLE(32, 6),
      failed: bytes.readUInt8(38) === 1,
    },
  };
  return { found: 'header', header };
}
