import { endianness } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';

import { errorText } from '../../errors.js';
import type { Log } from '../../log.js';
import { Entries, Removals, type Contents } from './contents.js';
import { removeQuietly, type Files, type StoreFile } from './files.js';
import { LiveSet } from './live-set.js';
import { kindCount } from './record.js';
import { fileNameOf, type Segment, type SegmentName } from './segment.js';

/**
 * What is known of a finished segment, in a file beside it (`….sum`), so that opening a store of a million messages
 * reads a few kilobytes per segment instead of all of it. It is a cache: never synced, checked by two checksums, and
 * made anew from the segment when it is missing or does not fit.
 *
 *     offset  bytes
 *      0      8      "IHSUM1LE", or BE: its arrays are in the byte order of the machine
 *      8      4      mark of the segment
 *     12      8      where its last record ends
 *     20      8      id of its first item                               (numbers of 8 bytes are float64)
 *     28      8      id after its last item
 *     36      4      items
 *     40      4      1 when there are gaps between the ids
 *     44      4      removals of items of older segments
 *     48      128    live items per kind
 *    176      128    their bytes per kind
 *    304      4      CRC32 of the second part
 *    308      4      CRC32 of the first part and the 308 bytes above
 *    312      …      first part:  a bit per item: alive as far as this segment knows; the distances of the ids from the
 *                    first, if there are gaps; the removals as in a record
 *      …      …      second part: offset, record length and kind of each item; read only when the segment is read
 */
export interface Summary {
  readonly end: number;
  readonly live: LiveSet;
  readonly foreign: Removals;
}

const magic = Buffer.from(`IHSUM1${endianness()}`, 'latin1');
const headBytes = 312;
const entryBytes = 9;

export function summaryNameOf(name: SegmentName): string {
  return fileNameOf(name).replace(/log$/, 'sum');
}

/** A summary of what the segment's own records say; later removals may or may not be in it. */
export function summaryOf({ name, end }: Segment, { live, foreign, entries }: Contents): Buffer {
  const { offsets, lengths, kinds } = entries.columns;
  const second = Buffer.concat([bytesOf(offsets), bytesOf(lengths), kinds]);
  const first = Buffer.concat([live.bits, bytesOf(live.distances ?? new Uint32Array()), foreign.encoded]);
  const head = Buffer.alloc(headBytes);
  magic.copy(head);
  head.writeUInt32LE(name.mark, 8);
  head.writeDoubleLE(end, 12);
  head.writeDoubleLE(live.base, 20);
  head.writeDoubleLE(live.next, 28);
  head.writeUInt32LE(live.size, 36);
  head.writeUInt32LE(live.distances ? 1 : 0, 40);
  head.writeUInt32LE(foreign.count, 44);
  bytesOf(live.counts).copy(head, 48);
  bytesOf(live.bytes).copy(head, 176);
  head.writeUInt32LE(crc32(second), 304);
  head.writeUInt32LE(crc32(first, crc32(head.subarray(0, 308))), 308);
  return Buffer.concat([head, first, second]);
}

/** Writes a summary beside its segment. A failure costs nothing but time at the next start. */
export async function saveSummary(
  { files, directory, log }: Directory & { log: Log },
  name: SegmentName,
  summary: Buffer,
): Promise<void> {
  const path = join(directory, summaryNameOf(name));
  try {
    await removeQuietly(files, path);
    const file = await files.create(path);
    try {
      await file.write(summary, 0);
    } finally {
      await file.close();
    }
  } catch (error) {
    log.debug('no summary was left beside a segment', { path, error: errorText(error) });
  }
}

interface Directory {
  readonly files: Files;
  readonly directory: string;
}

/** What a segment's summary says; undefined when there is none, or none that can be read and trusted. */
export function savedSummary(where: Directory, name: SegmentName): Promise<Summary | undefined> {
  return readSaved(where, name, readSummary);
}

/** Where the segment's items lie, from its summary; undefined as above. */
export function savedEntries(where: Directory, name: SegmentName): Promise<Entries | undefined> {
  return readSaved(where, name, readEntries);
}

async function readSaved<T>(
  { files, directory }: Directory,
  name: SegmentName,
  read: (file: StoreFile, name: SegmentName) => Promise<T>,
): Promise<T | undefined> {
  try {
    const file = await files.open(join(directory, summaryNameOf(name)), 'read');
    return await read(file, name).finally(() => file.close());
  } catch {
    // The segment itself says it too; it only takes longer.
    return undefined;
  }
}

async function readSummary(file: StoreFile, name: SegmentName): Promise<Summary | undefined> {
  const head = await readExactly(file, 0, headBytes);
  if (!head?.subarray(0, 8).equals(magic) || head.readUInt32LE(8) !== name.mark) return undefined;
  const { size, hasGaps, removals, firstBytes } = partSizes(head);
  if (firstBytes > (await file.size())) return undefined;
  const first = await readExactly(file, headBytes, firstBytes);
  if (!first || crc32(first, crc32(head.subarray(0, 308))) !== head.readUInt32LE(308)) return undefined;

  const bitBytes = Math.ceil(size / 8);
  const distancesEnd = bitBytes + (hasGaps ? 4 * size : 0);
  const live = LiveSet.restore({
    base: head.readDoubleLE(20),
    next: head.readDoubleLE(28),
    size,
    bits: Uint8Array.from(first.subarray(0, bitBytes)),
    distances: hasGaps ? new Uint32Array(copyOf(first.subarray(bitBytes, distancesEnd))) : undefined,
    counts: new Float64Array(copyOf(head.subarray(48, 48 + 8 * kindCount))),
    bytes: new Float64Array(copyOf(head.subarray(176, 176 + 8 * kindCount))),
  });
  const foreign = new Removals(first.subarray(distancesEnd));
  return foreign.count === removals ? { end: head.readDoubleLE(12), live, foreign } : undefined;
}

async function readEntries(file: StoreFile, name: SegmentName): Promise<Entries | undefined> {
  const head = await readExactly(file, 0, headBytes);
  if (!head?.subarray(0, 8).equals(magic) || head.readUInt32LE(8) !== name.mark) return undefined;
  const { size, firstBytes } = partSizes(head);
  const secondBytes = size * entryBytes;
  if (firstBytes + secondBytes > (await file.size())) return undefined;
  const second = await readExactly(file, headBytes + firstBytes, secondBytes);
  if (!second || crc32(second) !== head.readUInt32LE(304)) return undefined;
  return new Entries({
    offsets: new Uint32Array(copyOf(second.subarray(0, 4 * size))),
    lengths: new Uint32Array(copyOf(second.subarray(4 * size, 8 * size))),
    kinds: Uint8Array.from(second.subarray(8 * size)),
  });
}

function partSizes(head: Buffer): { size: number; hasGaps: boolean; removals: number; firstBytes: number } {
  const size = head.readUInt32LE(36);
  const hasGaps = head.readUInt32LE(40) === 1;
  const removals = head.readUInt32LE(44);
  return {
    size,
    hasGaps,
    removals,
    firstBytes: Math.ceil(size / 8) + (hasGaps ? 4 * size : 0) + 12 * removals,
  };
}

async function readExactly(file: StoreFile, position: number, bytes: number): Promise<Buffer | undefined> {
  const buffer = Buffer.alloc(bytes);
  return (await file.read(buffer, position)) === bytes ? buffer : undefined;
}

function bytesOf(array: Uint32Array | Float64Array): Buffer {
  return Buffer.from(array.buffer, array.byteOffset, array.byteLength);
}

/** Typed arrays want their bytes aligned. */
function copyOf(bytes: Buffer): ArrayBuffer {
  const copy = new ArrayBuffer(bytes.length);
  new Uint8Array(copy).set(bytes);
  return copy;
}
