import { join } from 'node:path';

import type { Log } from '../../log.js';
import type { Catalog } from './catalog.js';
import { Contents, Removals } from './contents.js';
import { cutOff, removeDurably, removeQuietly, type Files } from './files.js';
import type { Reader } from './reader.js';
import { encodeRecord, recordBytes, removeBytes, type Operation, type Ref } from './record.js';
import { readSegment } from './read-segment.js';
import { terminatorBytes } from './scan.js';
import { encodeSegmentHeader, fileNameOf, newMark, noPrevious, Segment } from './segment.js';
import type { Spares } from './spares.js';
import { savedSummary, saveSummary, summaryNameOf, summaryOf } from './summary.js';

/**
 * Compaction writes what is alive in a run of neighbouring segments to one new file in their place, so the order of
 * items stays what it is. It also takes along the removals that are still needed: those of items that older
 * segments hold. Its output goes to a spare, so it works on a full disk.
 *
 * The new file counts from the moment its name does: it is complete and synced before it is renamed, and its name
 * covers the numbers of the old ones, which are then of no use any more.
 */
export interface CompactionOptions {
  readonly files: Files;
  readonly directory: string;
  readonly catalog: Catalog;
  readonly reader: Reader;
  readonly spares: Spares;
  readonly segmentBytes: number;
  readonly log: Log;
  /** Has to be done before any segment may disappear. */
  readonly owe: (work: () => Promise<void>) => void;
}

/** Waste that is always tolerated, in segments; beyond it, as much as half of what is alive. */
const toleratedSegments = 2;
/** A compaction that frees less than this part of a segment is not worth its writes. */
const worthwhile = 1 / 4;
/** How full its output may become. Headers of removals are only estimated. */
const fullest = 7 / 8;
const removesPerRecord = 1000;
/** Ids in a rewritten segment are kept as 32-bit distances. */
const longestDistance = 2 ** 32 - 1;

/** The run whose rewriting frees most, if there is enough waste to care. The last segment is never part of it. */
export function chooseRun(
  segments: readonly Segment[],
  isMovable: (segment: Segment) => boolean,
  segmentBytes: number,
): readonly Segment[] | undefined {
  let live = 0;
  let waste = 0;
  for (const segment of segments) {
    live += segment.live.liveBytes;
    waste += segment.end - segment.live.liveBytes;
  }
  if (waste <= Math.max(toleratedSegments * segmentBytes, live / 2)) return undefined;

  const limit = segmentBytes * fullest;
  let best: readonly Segment[] | undefined;
  let bestGain = segmentBytes * worthwhile;
  let start = 0;
  let size = 0;
  let gain = 0;
  for (let end = 0; end < segments.length - 1; end++) {
    const segment = segments[end];
    if (!segment) continue;
    if (!isMovable(segment)) {
      start = end + 1;
      size = gain = 0;
      continue;
    }
    size += rewrittenBytes(segment);
    gain += segment.end - rewrittenBytes(segment);
    for (let oldest = segments[start]; oldest && start <= end; oldest = segments[start]) {
      if (size <= limit && segment.live.next - oldest.live.base <= longestDistance) break;
      size -= rewrittenBytes(oldest);
      gain -= oldest.end - rewrittenBytes(oldest);
      start++;
    }
    if (gain > bestGain) {
      best = segments.slice(start, end + 1);
      bestGain = gain;
    }
  }
  return best;
}

/** Rewrites the run, if there is a spare to do it with. */
export async function compact(run: readonly Segment[], options: CompactionOptions): Promise<void> {
  const { files, directory, spares, reader, catalog, log, owe } = options;
  const [oldest] = run;
  const newest = run.at(-1);
  const spare = spares.take();
  if (!oldest || !newest || spare === undefined) return;
  const name = {
    first: oldest.name.first,
    last: newest.name.last,
    generation: 1 + Math.max(...run.map((segment) => segment.name.generation)),
    mark: newMark(),
  };
  const path = join(directory, fileNameOf(name));
  let output: Output;
  try {
    output = await write(run, name.mark, options);
    await writeFile(join(directory, spare), output, options);
  } catch (error) {
    spares.putBack(spare);
    throw error;
  }
  const { contents, bytes, refs } = output;
  const segment = new Segment(name, contents.live, bytes.length - terminatorBytes, contents.foreign.count);
  // Its bits say what was alive when it was copied; what has died since is said further on in the log.
  const summary = summaryOf(segment, contents);
  await reader.exclusively(async () => {
    if (!run.every((old) => catalog.has(old))) {
      // Damage was found in one of them meanwhile, and what is known of it has changed: next time.
      spares.putBack(spare);
      return;
    }
    try {
      await files.rename(join(directory, spare), path);
      await files.syncDirectory(directory);
    } catch (error) {
      // Nobody knows which name it has. Under the new one it must not outlive what it was made from.
      owe(() => removeDurably(files, directory, fileNameOf(name)));
      throw error;
    }
    for (const ref of refs) if (!catalog.isAlive(ref.id)) contents.live.remove(ref);
    catalog.replace(run, segment);
    for (const old of run) {
      await reader.release(old);
      await removeQuietly(files, join(directory, summaryNameOf(old.name)));
      // If one stays, it must go before the file that covers it does.
      await spares.recycle(old.fileName).catch(() => {
        owe(() => spares.recycle(old.fileName));
      });
    }
  });
  await cutOff(files, path, bytes.length);
  await saveSummary(options, segment.name, summary);
  log.debug('rewrote segments of the store', {
    segments: run.length,
    into: segment.fileName,
    items: refs.length,
    bytes: bytes.length,
  });
}

interface Output {
  readonly bytes: Buffer;
  readonly contents: Contents;
  readonly refs: readonly Ref[];
}

async function write(
  run: readonly Segment[],
  mark: number,
  { reader, catalog, segmentBytes, ...io }: CompactionOptions,
): Promise<Output> {
  const base = run[0]?.live.base ?? 0;
  const number = run[0]?.name.first ?? 0;
  const contents = new Contents(base);
  const refs: Ref[] = [];
  const bytes = Buffer.alloc(segmentBytes);
  let end = encodeSegmentHeader({ mark, number, base, previous: noPrevious }).copy(bytes);
  const add = (operations: readonly Operation[], sequence: number): void => {
    const size = recordBytes(operations);
    if (end + size + terminatorBytes > bytes.length)
      throw new Error('what is alive does not fit into one segment');
    for (const operation of operations) {
      if ('remove' in operation) contents.foreign.push(operation.remove);
    }
    end = encodeRecord(bytes, end, mark, sequence, operations);
  };

  const removals: Operation[] = [];
  for (const segment of run) {
    for (const ref of await removalsOf(segment, io)) {
      const target = catalog.segmentOf(ref.id);
      if (target && !run.includes(target)) removals.push({ remove: ref });
    }
  }
  for (let i = 0; i < removals.length; i += removesPerRecord) {
    add(removals.slice(i, i + removesPerRecord), base);
  }
  for (const segment of run) {
    for (const { ref, value } of await reader.readSegment(segment)) {
      const at = end;
      add([{ put: { kind: ref.kind, value: [value] } }], ref.id);
      contents.put(at, ref.bytes, ref);
      refs.push(ref);
    }
  }
  return { bytes: bytes.subarray(0, end + terminatorBytes), contents, refs };
}

async function removalsOf(
  segment: Segment,
  { files, directory }: Pick<CompactionOptions, 'files' | 'directory'>,
): Promise<Removals> {
  if (segment.foreignRemovals === 0) return new Removals();
  const summary = await savedSummary({ files, directory }, segment.name);
  if (summary) return summary.foreign;
  const file = await files.open(join(directory, segment.fileName), 'read');
  const { contents } = await readSegment(file, segment.name, { end: segment.end }).finally(() =>
    file.close(),
  );
  return contents.foreign;
}

async function writeFile(path: string, { bytes }: Output, { files }: CompactionOptions): Promise<void> {
  const file = await files.open(path, 'write');
  try {
    await file.write(bytes, 0);
    await file.sync();
  } finally {
    await file.close();
  }
}

function rewrittenBytes(segment: Segment): number {
  return segment.live.liveBytes + segment.foreignRemovals * (removeBytes + 1);
}
