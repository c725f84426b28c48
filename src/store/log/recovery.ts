import { join } from 'node:path';

import { AgentError, errorText } from '../../errors.js';
import type { Log } from '../../log.js';
import { ActiveSegment } from './active-segment.js';
import { Catalog } from './catalog.js';
import type { Contents, Removals } from './contents.js';
import type { DamageKeeper } from './damage.js';
import { cutOff, removeQuietly, type Files, type StoreFile } from './files.js';
import { headerOf, readSegment, type ScanBounds } from './read-segment.js';
import { terminatorBytes } from './scan.js';
import {
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
import { savedSummary, saveSummary, summaryNameOf, summaryOf } from './summary.js';

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
  // What an earlier process renamed and removed must not come back later: it is decided here, once.
  await files.syncDirectory(directory);
  const fileNames = await files.list(directory);
  const { kept: names, replaced } = separateReplaced(fileNames);
  await removeStraySummaries(options, fileNames, names);

  const candidates: Candidate[] = [];
  for (const name of names) {
    const header = await readSegmentHeader(options, name);
    if (isItself(options, name, header)) candidates.push({ name, header });
  }
  const ends = acknowledgedEnds(candidates);

  const found = await loadSegments(options, candidates, ends);
  const newest = found.findLastIndex((loaded) => loaded.found !== 'unused');

  const catalog = new Catalog();
  const unused = [...fileNames.filter(isSpareName), ...replaced];
  const overlong: Segment[] = [];
  let active: ActiveSegment | undefined;
  let nextId = 1;
  let previous = noPrevious;
  for (const [i, { name, header }] of candidates.entries()) {
    const loaded = found[i];
    if (!loaded || loaded.found === 'unused') {
      unused.push(fileNameOf(name));
      continue;
    }
    if (header.found === 'nothing') await reportHeader(options, name);
    const { segment } = loaded;
    for (const ref of loaded.foreign) catalog.remove(ref);
    catalog.push(segment);
    nextId = Math.max(nextId, loaded.nextId);
    const isNewest = i === newest;
    // Of a newest segment with a summary nobody knows why it was left.
    const failed = isNewest ? loaded.found === 'summary' : (ends.get(name.first)?.failed ?? false);
    if (name.generation === 0 && failed) overlong.push(segment);
    previous = { number: name.last, end: segment.end, failed };
    if (loaded.found === 'scanned') {
      active = loaded.endsCleanly && isNewest ? await reopen(options, segment, loaded.contents) : undefined;
      if (!active) await finish(options, segment, loaded.contents);
    }
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
    if (fileName.endsWith('.sum') && !wanted.has(fileName)) {
      await removeQuietly(files, join(directory, fileName));
    }
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
  const header = headerOf(bytes, name);
  if (header.found === 'newer') {
    throw new AgentError(
      'config',
      `the store ${directory} was written by a newer version (format ${header.version}; this one knows ${segmentVersion})`,
      { hint: 'install the newer version again, or name another directory; nothing was changed' },
    );
  }
  return header;
}

/** A file that somebody has renamed is left alone: its place in the log is not where its name says. */
function isItself({ log }: RecoveryOptions, name: SegmentName, header: HeaderFound): boolean {
  if (header.found !== 'header' || header.header.number === name.first) return true;
  log.error('a file in the store is not what its name says; it is left alone', { file: fileNameOf(name) });
  return false;
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
  | ({ readonly found: 'summary' } & LoadedSegment)
  | ({
      readonly found: 'scanned';
      readonly contents: Contents;
      readonly endsCleanly: boolean;
    } & LoadedSegment)
  | { readonly found: 'unused' };

interface LoadedSegment {
  readonly segment: Segment;
  readonly nextId: number;
  /** Its removals of items of older segments. */
  readonly foreign: Removals;
}

/** From the newest to the oldest, because each tells which ids of the one before it are void. */
async function loadSegments(
  options: RecoveryOptions,
  candidates: readonly Candidate[],
  ends: ReadonlyMap<number, Previous>,
): Promise<Loaded[]> {
  const found: Loaded[] = [];
  let ceiling = Infinity;
  for (const { name } of candidates.toReversed()) {
    const end = name.generation === 0 ? ends.get(name.first)?.end : undefined;
    const loaded = await loadSegment(options, name, { end, ceiling });
    if (loaded.found !== 'unused') ceiling = Math.min(ceiling, loaded.segment.live.base);
    found.unshift(loaded);
  }
  return found;
}

async function loadSegment(options: RecoveryOptions, name: SegmentName, bounds: ScanBounds): Promise<Loaded> {
  const summary = await savedSummary(options, name);
  if (summary && (bounds.end === undefined || bounds.end === summary.end)) {
    const segment = new Segment(name, summary.live, summary.end, summary.foreign.count);
    return { found: 'summary', segment, nextId: summary.live.next, foreign: summary.foreign };
  }
  const file = await options.files.open(join(options.directory, fileNameOf(name)), 'read');
  try {
    const isDurable = await syncRead(options, name, file);
    const { contents, end, header, nextId, records, regions, ...scanned } = await readSegment(
      file,
      name,
      bounds,
    );
    if (records === 0 && header.found === 'nothing') return { found: 'unused' };
    const { foreign } = contents;
    const segment = new Segment(name, contents.live, end, foreign.count);
    for (const { at, bytes } of regions) await options.damage.setAside(segment, at, bytes);
    const endsCleanly = scanned.endsCleanly && isDurable;
    return { found: 'scanned', segment, contents, endsCleanly, nextId, foreign };
  } finally {
    await file.close();
  }
}

/**
 * What is read from a segment that was still written may be in the page cache only, if the process that wrote it was
 * killed before its sync: so it is synced before anyone acts on it.
 */
async function syncRead({ log }: RecoveryOptions, name: SegmentName, file: StoreFile): Promise<boolean> {
  try {
    await file.sync();
    return true;
  } catch (error) {
    log.warn('a segment of the store could not be synced', {
      segment: fileNameOf(name),
      error: errorText(error),
    });
    return false;
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

/** Opens the newest segment for writing. */
async function reopen(
  { files, directory, log }: RecoveryOptions,
  segment: Segment,
  contents: Contents,
): Promise<ActiveSegment | undefined> {
  try {
    const file = await files.open(join(directory, segment.fileName), 'write');
    return new ActiveSegment(segment, contents, file, await file.size());
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
