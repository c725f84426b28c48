import { headerBytes, payloadIsSound, readHeader, type RecordHeader } from './record.js';

/** Zeros after the last record. */
export const terminatorBytes = headerBytes;

/**
 * Reads a segment's bytes from front to back, record by record, and costs one record per damage:
 *
 * - a sound header over a damaged payload says where the next record starts: exactly that record is damaged;
 * - anything else is skipped up to the next place where the segment's mark begins a sound header;
 * - when there is no such place, 24 zero bytes say that the last write was complete. Whatever else is there is a
 *   write that was cut off, or a damaged last record: nobody can tell, so it counts as damage. It is no longer than
 *   the longest write.
 */
export type Found =
  | { readonly found: 'record'; readonly at: number; readonly header: RecordHeader }
  | { readonly found: 'damage'; readonly at: number; readonly bytes: number }
  /** Always the last. `at` is where the next record may be written. */
  | { readonly found: 'end'; readonly at: number };

export interface ScanOptions {
  readonly mark: number;
  readonly from: number;
  /** No write is longer. */
  readonly longestWrite: number;
}

export function* scan(bytes: Buffer, { mark, from, longestWrite }: ScanOptions): Generator<Found> {
  let at = from;
  for (;;) {
    const header = readHeader(bytes, at, mark);
    if (header && at + header.bytes <= bytes.length) {
      if (payloadIsSound(bytes, at, header)) yield { found: 'record', at, header };
      else yield { found: 'damage', at, bytes: header.bytes };
      at += header.bytes;
      continue;
    }
    const next = findHeader(bytes, at + 1, mark);
    if (next !== undefined) {
      yield { found: 'damage', at, bytes: next - at };
      at = next;
      continue;
    }
    const tail = endsCleanly(bytes, at) ? 0 : cutOffBytes(bytes, at, longestWrite);
    if (tail > 0) yield { found: 'damage', at, bytes: tail };
    yield { found: 'end', at: at + tail };
    return;
  }
}

function findHeader(bytes: Buffer, from: number, mark: number): number | undefined {
  const pattern = Buffer.alloc(4);
  pattern.writeUInt32LE(mark);
  for (let at = bytes.indexOf(pattern, from); at >= 0; at = bytes.indexOf(pattern, at + 1)) {
    if (readHeader(bytes, at, mark)) return at;
  }
  return undefined;
}

function endsCleanly(bytes: Buffer, at: number): boolean {
  return isZero(bytes.subarray(at, at + terminatorBytes));
}

function cutOffBytes(bytes: Buffer, at: number, longestWrite: number): number {
  let end = Math.min(bytes.length, at + longestWrite);
  while (end > at && bytes[end - 1] === 0) end--;
  return end - at;
}

function isZero(bytes: Buffer): boolean {
  return bytes.every((byte) => byte === 0);
}
