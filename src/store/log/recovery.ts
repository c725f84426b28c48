import { join } from 'node:path';

import { AgentError, errorText, systemErrorCode } from '../../errors.js';
import type { Log } from '../../log.js';
import { ActiveSegment } from './active-segment.js';
import { Catalog } from './catalog.js';
import { Contents } from './contents.js';
import type { DamageKeeper } from './damage.js';
import { cutOff, type Files, type StoreFile } from './files.js';
import { visitRecord, type RecordHeader } from './record.js';
import { scan, terminatorBytes } from './scan.js';
import {
  decodeSegmentHeader,
  fileNameOf,
  parseFileName,
  Segment,
  segmentHeaderBytes,
  segmentVersion,
  noPrevious,
  type HeaderFound,
  type Previous,
  type SegmentName,
} from './segment.js';
import { isSpareName } from './spares.js';
import { readSummary, saveSummary, summaryNameOf, summaryOf } from './summary.js';

/** What a directory turned out to hold. */
export interface Recovered {
  readonly catalog: Catalog;
  /** The newest segment, if it ends cleanly and may be written on. It is the last of the catalog. */
  readonly active: ActiveSegment | undefined;
  readonly nextId: number;
  readonly nextNumber: number;
  /** Files that are no segments: not yet, or not any more. */
  readonly unused: readonly string[];
  /** Segments with something behind their end that looks like records, and is to be cut off. */
  readonly overlong: readonly Segment[];
  /** What the next segment says of the newest. */
  readonly previous: Previous;
}

export interface RecoveryOptions {
  readonly files: Files;
  readonly directory: string;
  readonly damage: DamageKeeper;
  readonly log: Log;
}

/** The longest write, and so the longest stretch that a cut-off write can leave behind. */
export const longestWriteBytes = 1024 * 1024 + 4096;

/** Reads a store's directory. Errors: `config` when a newer version wrote it, `io` when it cannot be read. */
export async function recover(options: RecoveryOptions): Promise<Recovered> {
  try {
    return await recoverSegments(options);
  } catch (error) {
    if (error instanceof AgentError) throw error;
    const message = `the store ${options.directory} cannot be read: ${errorText(error)}`;
    throw new AgentError('io', message, { cause: error });
  }
}

async function recoverSegments(options: RecoveryOptions): Promise<Recovered> {
  const { files, directory } = options;
  const fileNames = await files.list(directory);
  const { kept: names, replaced } = separateReplaced(fileNames);
  await removeStraySummaries(options, fileNames, names);

  const candidates: Candidate[] = [];
  for (const name of names) candidates.push({ name, header: await readSegmentHeader(options, name) });
  const ends = acknowledgedEnds(candidates);

  const catalog = new Catalog();
  const unused = [...fileNames.filter(isSpareName), ...replaced];
  let active: ActiveSegment | undefined;
  const overlong: Segment[] = [];
  let nextId = 1;
  let previous = noPrevious;
  for (const [i, { name, header }] of candidates.entries()) {
    const loaded = await loadSegment(options, name, { end: ends.get(name.first)?.end, floor: nextId });
    if (loaded.found === 'unused') {
      unused.push(fileNameOf(name));
      continue;
    }
    const { segment } = loaded;
    if (header.found === 'nothing') await reportHeader(options, name);
    nextId = Math.max(nextId, loaded.nextId, header.found === 'header' ? header.header.base : 0);
    for (const ref of loaded.foreign) catalog.remove(ref);
    catalog.push(segment);
    previous = { number: name.last, end: segment.end, failed: false };
    if (name.generation === 0 && ends.get(name.first)?.failed) overlong.push(segment);
    if (loaded.found === 'scanned' && loaded.endsCleanly && i === candidates.length - 1) {
      active = await reopen(options, segment, loaded.contents);
    }
    if (loaded.found === 'scanned' && !active) await finish(options, segment, loaded.contents);
  }
  const nextNumber = Math.max(0, ...names.map((name) => name.last)) + 1;
  return { catalog, active, nextId, nextNumber, unused, overlong, previous };
}

interface Candidate {
  readonly name: SegmentName;
  readonly header: HeaderFound;
}

/**
 * The segments in order, without those that a rewritten one covers: after a crash between its arrival and their
 * removal both are there, and either would do.
 */
function separateReplaced(fileNames: readonly string[]): { kept: SegmentName[]; replaced: string[] } {
  const names = fileNames.map(parseFileName).filter((name) => name !== undefined);
  names.sort((a, b) => a.first - b.first || b.last - a.last || b.generation - a.generation);
  const kept: SegmentName[] = [];
  const replaced: string[] = [];
  for (const name of names) {
    if (name.last > (kept.at(-1)?.last ?? 0)) kept.push(name);
    else replaced.push(fileNameOf(name));
  }
  return { kept, replaced };
}

async function removeStraySummaries(
  { files, directory }: RecoveryOptions,
  fileNames: readonly string[],
  names: readonly SegmentName[],
): Promise<void> {
  const wanted = new Set(names.map(summaryNameOf));
  for (const fileName of fileNames) {
    if (fileName.endsWith('.sum') && !wanted.has(fileName)) await files.remove(join(directory, fileName));
  }
}

async function readSegmentHeader(
  { files, directory }: RecoveryOptions,
  name: SegmentName,
): Promise<HeaderFound> {
  const path = join(directory, fileNameOf(name));
  const bytes = Buffer.alloc(segmentHeaderBytes);
  const file = await files.open(path, 'read');
  try {
    // An unreadable header is like a damaged one: the records are found without it.
    await file.read(bytes, 0).catch(() => 0);
  } finally {
    await file.close();
  }
  const header = decodeSegmentHeader(bytes);
  if (header.found === 'newer') {
    throw new AgentError(
      'config',
      `the store ${directory} was written by a newer version (format ${header.version}; this one knows ${segmentVersion})`,
      { hint: 'install the newer version again, or name another directory; nothing was changed' },
    );
  }
  const ours = header.found === 'header' && header.header.mark === name.mark;
  return ours ? header : { found: 'nothing' };
}

/** Where the segments end that their successor speaks of; those that failed between the two hold nothing. */
function acknowledgedEnds(candidates: readonly Candidate[]): Map<number, Previous> {
  const ends = new Map<number, Previous>();
  for (const { name, header } of candidates) {
    if (header.found !== 'header' || header.header.previous.number === 0) continue;
    const { previous } = header.header;
    ends.set(previous.number, previous);
    for (let number = previous.number + 1; number < name.first; number++) {
      ends.set(number, { number, end: 0, failed: true });
    }
  }
  return ends;
}

type Loaded =
  | {
      readonly found: 'summary';
      readonly segment: Segment;
      readonly nextId: number;
      readonly foreign: Contents['foreign'];
    }
  | ({
      readonly found: 'scanned';
      readonly segment: Segment;
      readonly foreign: Contents['foreign'];
    } & Scanned)
  | { readonly found: 'unused' };

async function loadSegment(
  options: RecoveryOptions,
  name: SegmentName,
  bounds: { end: number | undefined; floor: number },
): Promise<Loaded> {
  const end = name.generation === 0 ? bounds.end : undefined;
  const summary = await savedSummary(options, name);
  if (summary && summary.live.base >= bounds.floor && (end === undefined || end === summary.end)) {
    const segment = new Segment(name, summary.live, summary.end, summary.foreign.count);
    return { found: 'summary', segment, nextId: summary.live.next, foreign: summary.foreign };
  }
  const file = await options.files.open(join(options.directory, fileNameOf(name)), 'read');
  try {
    const scanned = await readContents(file, name, { end, floor: bounds.floor });
    if (scanned.records === 0 && scanned.header.found === 'nothing') return { found: 'unused' };
    const { contents } = scanned;
    const segment = new Segment(name, contents.live, scanned.end, contents.foreign.count);
    for (const { at, bytes } of scanned.regions) await options.damage.setAside(segment, at, bytes);
    return { found: 'scanned', segment, foreign: contents.foreign, ...scanned };
  } finally {
    await file.close();
  }
}

async function savedSummary(
  { files, directory }: RecoveryOptions,
  name: SegmentName,
): ReturnType<typeof readSummary> {
  try {
    const file = await files.open(join(directory, summaryNameOf(name)), 'read');
    try {
      return await readSummary(file, name);
    } finally {
      await file.close();
    }
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

export interface Scanned {
  readonly header: HeaderFound;
  readonly contents: Contents;
  readonly records: number;
  /** Damaged bytes, and where they were. */
  readonly regions: readonly { readonly at: number; readonly bytes: Buffer }[];
  readonly endsCleanly: boolean;
  readonly end: number;
  readonly nextId: number;
}

/** Reads all of a segment's file. `end`: nothing beyond counts; `floor`: nor do items with lower ids. */
export async function readContents(
  file: StoreFile,
  name: SegmentName,
  bounds: { end?: number | undefined; floor?: number },
): Promise<Scanned> {
  const bytes = (await readWhole(file)).subarray(0, bounds.end);
  const decoded = decodeSegmentHeader(bytes.subarray(0, segmentHeaderBytes));
  const header: HeaderFound =
    decoded.found === 'header' && decoded.header.mark === name.mark ? decoded : { found: 'nothing' };
  const floor = bounds.floor ?? 0;
  const regions: { at: number; bytes: Buffer }[] = [];
  let contents = header.found === 'header' ? new Contents(Math.max(floor, header.header.base)) : undefined;
  let records = 0;
  let nextId = contents?.live.base ?? floor;
  let end = segmentHeaderBytes;
  const add = (into: Contents, at: number, record: RecordHeader): void => {
    records++;
    nextId = Math.max(nextId, record.sequence);
    visitRecord(bytes, at, record, {
      put: (ref) => {
        if (ref.id >= into.live.next) into.put(at, record, ref);
        nextId = Math.max(nextId, ref.id + 1);
      },
      remove: (ref) => {
        into.remove(ref);
      },
    });
  };
  const from = { mark: name.mark, from: segmentHeaderBytes, longestWrite: longestWriteBytes };
  for (const found of scan(bytes, from)) {
    end = found.found === 'end' ? found.at : end;
    if (found.found === 'record') {
      contents ??= new Contents(Math.max(floor, found.header.sequence));
      add(contents, found.at, found.header);
    } else if (found.found === 'damage') {
      regions.push({ at: found.at, bytes: Buffer.from(bytes.subarray(found.at, found.at + found.bytes)) });
    }
  }
  contents ??= new Contents(floor);
  const clean = regions.length === 0 && header.found === 'header';
  // Without a header or a record nothing was ever written here: what looks like damage is an earlier life's.
  const unused = records === 0 && header.found === 'nothing';
  return { header, contents, records, regions: unused ? [] : regions, endsCleanly: clean, end, nextId };
}

/** All bytes of a file. What the disk cannot read becomes zeros, a page at a time. */
async function readWhole(file: StoreFile): Promise<Buffer> {
  const bytes = Buffer.alloc(await file.size());
  try {
    const got = await file.read(bytes, 0);
    return bytes.subarray(0, got);
  } catch {
    for (let at = 0; at < bytes.length; at += 4096) {
      await file.read(bytes.subarray(at, at + 4096), at).catch(() => 0);
    }
    return bytes;
  }
}

async function reportHeader({ directory, files, damage }: RecoveryOptions, name: SegmentName): Promise<void> {
  const file = await files.open(join(directory, fileNameOf(name)), 'read');
  try {
    const bytes = Buffer.alloc(segmentHeaderBytes);
    await file.read(bytes, 0).catch(() => 0);
    await damage.setAside({ fileName: fileNameOf(name) }, 0, bytes);
  } finally {
    await file.close();
  }
}

/**
 * Opens the newest segment for writing. What was read from it may still be in the page cache only, if the process
 * that wrote it was killed before its sync: so it is synced before anyone acts on it.
 */
async function reopen(
  { files, directory, log }: RecoveryOptions,
  segment: Segment,
  contents: Contents,
): Promise<ActiveSegment | undefined> {
  const path = join(directory, segment.fileName);
  try {
    const file = await files.open(path, 'write');
    try {
      await file.sync();
      return new ActiveSegment(segment, contents, file, await file.size());
    } catch (error) {
      await file.close();
      throw error;
    }
  } catch (error) {
    log.warn('the newest segment of the store cannot be written on', {
      segment: segment.fileName,
      error: errorText(error),
    });
    return undefined;
  }
}

/** The segment takes no more records: its file is cut to size, and a summary left beside it. */
async function finish(options: RecoveryOptions, segment: Segment, contents: Contents): Promise<void> {
  const summary = summaryOf(segment, contents);
  const path = join(options.directory, segment.fileName);
  await cutOff(options.files, path, segment.end + terminatorBytes).catch(() => undefined);
  await saveSummary(options, segment.name, summary);
}
