import { join } from 'node:path';

import { AgentError, errorText } from '../../errors.js';
import type { Log } from '../../log.js';
import { ActiveSegment } from './active-segment.js';
import { Catalog } from './catalog.js';
import type { Contents, Removals } from './contents.js';
import type { DamageKeeper } from './damage.js';
import { cutOff, removeQuietly, type Files, type StoreFile } from './files.js';
import { headerOf, readWhole, scanSegment, Scratch } from './read-segment.js';
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
import { savedSummary, saveSummary, summaryNameOf, summaryOf, type Summary } from './summary.js';

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
    if (loaded.found === 'scanned' && isNewest) {
      active = loaded.endsCleanly ? await reopen(options, segment, loaded.contents) : undefined;
      if (!active) await finish(options, loaded);
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
  | ({ readonly found: 'scanned'; readonly endsCleanly: boolean } & ScannedSegment)
  | { readonly found: 'unused' };

interface LoadedSegment {
  readonly segment: Segment;
  readonly nextId: number;
  /** Its removals of items of older segments. */
  readonly foreign: Removals;
}

interface ScannedSegment extends LoadedSegment {
  readonly contents: Contents;
  readonly fileBytes: number;
}

/**
 * From the newest to the oldest, because each tells which ids of the one before it are void. While one is looked
 * through, the next is read, and what is known of the last is saved: a store without summaries takes as long to open
 * as its bytes to read, or to check, whichever is longer.
 */
async function loadSegments(
  options: RecoveryOptions,
  candidates: readonly Candidate[],
  ends: ReadonlyMap<number, Previous>,
): Promise<Loaded[]> {
  const wanted = candidates.toReversed().map(({ name }) => {
    return { name, end: name.generation === 0 ? ends.get(name.first)?.end : undefined };
  });
  const found: Loaded[] = [];
  let ceiling = Infinity;
  let finishing = Promise.resolve();
  for await (const fetched of fetchSegments(options, wanted)) {
    const loaded = await understand(options, fetched, ceiling);
    found.unshift(loaded);
    if (loaded.found === 'unused') continue;
    const isNewest = ceiling === Infinity;
    ceiling = Math.min(ceiling, loaded.segment.live.base);
    if (loaded.found === 'scanned' && !isNewest) {
      await finishing;
      finishing = finish(options, loaded);
    }
  }
  await finishing;
  return found;
}

interface Wanted {
  readonly name: SegmentName;
  /** Where its successor says that it ends. */
  readonly end: number | undefined;
}

type Fetched = Wanted &
  (
    | { readonly summary: Summary }
    | {
        readonly bytes: Buffer;
        /** They are on disk, and not in the page cache only. */
        readonly isDurable: boolean;
      }
  );

/** What is on disk of each, one ahead of who asks; the bytes of one are there until the next but one is asked for. */
async function* fetchSegments(
  options: RecoveryOptions,
  wanted: readonly Wanted[],
): AsyncGenerator<Fetched, void> {
  const scratches = [new Scratch(), new Scratch()];
  let fetching: Promise<Fetched> | undefined;
  for (const [i, segment] of wanted.entries()) {
    const next = fetchSegment(options, segment, scratches[i % 2]);
    // Whose turn comes is heard of then; when another fails first, nobody asks.
    next.catch(() => undefined);
    if (fetching) yield await fetching;
    fetching = next;
  }
  if (fetching) yield await fetching;
}

async function fetchSegment(
  options: RecoveryOptions,
  { name, end }: Wanted,
  scratch: Scratch | undefined,
): Promise<Fetched> {
  const summary = await savedSummary(options, name);
  if (summary && (end === undefined || end === summary.end)) return { name, end, summary };
  const file = await options.files.open(join(options.directory, fileNameOf(name)), 'read');
  try {
    const isDurable = await syncRead(options, name, file);
    return { name, end, bytes: await readWhole(file, scratch), isDurable };
  } finally {
    await file.close();
  }
}

async function understand(
  { damage }: RecoveryOptions,
  { name, end: limit, ...fetched }: Fetched,
  ceiling: number,
): Promise<Loaded> {
  if ('summary' in fetched) {
    const { live, end, foreign } = fetched.summary;
    const segment = new Segment(name, live, end, foreign.count);
    return { found: 'summary', segment, nextId: live.next, foreign };
  }
  const { bytes, isDurable } = fetched;
  const { contents, end, header, nextId, records, regions, ...scanned } = scanSegment(bytes, name, {
    end: limit,
    ceiling,
  });
  if (records === 0 && header.found === 'nothing') return { found: 'unused' };
  const { foreign } = contents;
  const segment = new Segment(name, contents.live, end, foreign.count);
  for (const region of regions) await damage.setAside(segment, region.at, region.bytes);
  const endsCleanly = scanned.endsCleanly && isDurable;
  return { found: 'scanned', segment, contents, endsCleanly, nextId, foreign, fileBytes: bytes.length };
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
async function finish(
  options: RecoveryOptions,
  { segment, contents, fileBytes }: ScannedSegment,
): Promise<void> {
  const summary = summaryOf(segment, contents);
  const bytes = segment.end + terminatorBytes;
  if (fileBytes > bytes) {
    await cutOff(options.files, join(options.directory, segment.fileName), bytes).catch(() => undefined);
  }
  await saveSummary(options, segment.name, summary);
}
