import { Contents } from './contents.js';
import type { StoreFile } from './files.js';
import { visitRecord, type RecordHeader } from './record.js';
import { scan } from './scan.js';
import { decodeSegmentHeader, segmentHeaderBytes, type HeaderFound, type SegmentName } from './segment.js';

/** The longest write, and so the longest stretch that a cut-off write can leave behind. */
export const longestWriteBytes = 1024 * 1024 + 4096;

/** What a segment turned out to hold. */
export interface Scanned {
  readonly header: HeaderFound;
  readonly contents: Contents;
  /** How many sound records there are. */
  readonly records: number;
  /** Damaged bytes, and where they were. */
  readonly regions: readonly { readonly at: number; readonly bytes: Buffer }[];
  /** Undamaged, and its last write was complete: it may be written on. */
  readonly endsCleanly: boolean;
  readonly end: number;
  /** The id after the last that it gives away. */
  readonly nextId: number;
}

export interface ScanBounds {
  /** Nothing behind it counts. Default: the end of the file. */
  readonly end?: number | undefined;
  /**
   * First id of the next segment: what was put here under that id or a higher one was never acknowledged, since the
   * id was given away again. Default: there is no next one.
   */
  readonly ceiling?: number;
}

/** Reads all of a segment's file. */
export async function readSegment(file: StoreFile, name: SegmentName, bounds?: ScanBounds): Promise<Scanned> {
  return scanSegment(await readWhole(file), name, bounds);
}

/** Looks through all bytes of a segment's file. Nothing of the result is a view of them. */
export function scanSegment(
  whole: Buffer,
  name: SegmentName,
  { end: limit, ceiling = Infinity }: ScanBounds = {},
): Scanned {
  const bytes = whole.subarray(0, limit);
  const header = headerOf(bytes, name);
  const regions: { at: number; bytes: Buffer }[] = [];
  let contents = header.found === 'header' ? new Contents(header.header.base) : undefined;
  let records = 0;
  let nextId = contents?.live.base ?? 0;
  let end = segmentHeaderBytes;
  for (const found of scan(bytes, {
    mark: name.mark,
    from: segmentHeaderBytes,
    longestWrite: longestWriteBytes,
  })) {
    switch (found.found) {
      case 'record':
        records++;
        contents ??= new Contents(found.header.sequence);
        nextId = Math.max(
          nextId,
          found.header.sequence,
          add(contents, bytes, found.at, found.header, ceiling),
        );
        break;
      case 'damage':
        regions.push({ at: found.at, bytes: Buffer.from(bytes.subarray(found.at, found.at + found.bytes)) });
        break;
      case 'end':
        end = found.at;
    }
  }
  if (records === 0 && header.found === 'nothing') {
    // Nothing was ever written here: what looks like damage is from an earlier life of the file.
    return { header, contents: new Contents(0), records, regions: [], endsCleanly: false, end, nextId };
  }
  const endsCleanly = regions.length === 0 && header.found === 'header';
  return { header, contents: contents ?? new Contents(0), records, regions, endsCleanly, end, nextId };
}

/** The header, if it is that of the segment; anything else that was there is a damaged one, or an earlier life's. */
export function headerOf(bytes: Buffer, name: SegmentName): HeaderFound {
  const found = decodeSegmentHeader(bytes.subarray(0, segmentHeaderBytes));
  return found.found === 'header' && found.header.mark !== name.mark ? { found: 'nothing' } : found;
}

/** Takes a record into the contents; returns the id after its last put. */
function add(contents: Contents, bytes: Buffer, at: number, record: RecordHeader, ceiling: number): number {
  if (record.sequence >= ceiling && hasPut(bytes, at, record)) return 0;
  let next = 0;
  visitRecord(bytes, at, record, {
    put: (ref) => {
      if (ref.id >= contents.live.next) contents.put(at, record.bytes, ref);
      next = ref.id + 1;
    },
    remove: (ref) => {
      contents.remove(ref);
    },
  });
  return next;
}

function hasPut(bytes: Buffer, at: number, record: RecordHeader): boolean {
  let puts = 0;
  visitRecord(bytes, at, record, { put: () => puts++, remove: () => undefined });
  return puts > 0;
}

/** All bytes of a file. What the disk cannot read becomes zeros, a page at a time. */
export async function readWhole(file: StoreFile, scratch = new Scratch()): Promise<Buffer> {
  const bytes = scratch.take(await file.size());
  try {
    const got = await file.read(bytes, 0);
    return bytes.subarray(0, got);
  } catch {
    bytes.fill(0);
    for (let at = 0; at < bytes.length; at += 4096) {
      await file.read(bytes.subarray(at, at + 4096), at).catch(() => 0);
    }
    return bytes;
  }
}

/** Memory for the bytes of one file after the other. */
export class Scratch {
  #bytes = Buffer.alloc(0);

  take(size: number): Buffer {
    if (this.#bytes.length < size) this.#bytes = Buffer.allocUnsafeSlow(size);
    return this.#bytes.subarray(0, size);
  }
}
