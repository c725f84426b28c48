import { join } from 'node:path';

import { AgentError, errorText, systemErrorCode } from '../../errors.js';
import type { Log } from '../../log.js';
import type { Catalog } from './catalog.js';
import type { Entries } from './contents.js';
import type { DamageKeeper } from './damage.js';
import type { Files, StoreFile } from './files.js';
import { readItem, type Item, type Ref } from './record.js';
import { readSegment } from './read-segment.js';
import { Segment } from './segment.js';
import { Serial } from './serial.js';
import { savedEntries } from './summary.js';

export interface ReadLimit {
  readonly count: number;
  /** Of what the items take on disk; the first item is read whatever its size. */
  readonly bytes: number;
}

/** What it takes to read a segment. */
export interface Opened {
  readonly file: StoreFile;
  readonly entries: Entries;
}

export interface ReaderOptions {
  readonly files: Files;
  readonly directory: string;
  readonly catalog: Catalog;
  readonly damage: DamageKeeper;
  readonly log: Log;
  /** Told which items a damaged record has cost; they are dead already. */
  readonly onLost: (refs: readonly Ref[]) => void;
}

/** Finished segments whose place table and descriptor are kept. */
const openSegments = 4;
const chunkBytes = 1024 * 1024;
/** Reading over a dead record is cheaper than another call, up to here. */
const gapBytes = 4096;
/** More unreadable records than this are no bad spot but a bad disk. */
const unreadableLimit = 100;

/**
 * Reads items in the order of their ids. One read at a time: so whoever replaces or deletes a segment's file does it
 * through `exclusively`, and no read can meet a file that has become something else.
 */
export class Reader {
  readonly #serial = new Serial();
  readonly #opened = new Map<Segment, Opened>();
  readonly #unreadable = new Set<number>();
  #active: Segment | undefined;

  constructor(private readonly options: ReaderOptions) {}

  /** Live items of a kind with ids above `after`; an empty list when there are none. Errors: `io`. */
  read(kind: number, after: number, limit: ReadLimit): Promise<Item[]> {
    return this.#serial.run(async () => {
      const items: Item[] = [];
      let position = after;
      let bytes = 0;
      while (items.length < limit.count && (items.length === 0 || bytes < limit.bytes)) {
        const segment = this.options.catalog.nextWith(kind, position);
        if (!segment) break;
        const opened = await this.#open(segment);
        if (!opened) continue;
        const left = { count: limit.count - items.length, bytes: limit.bytes - bytes };
        const wanted = this.#select(segment, opened.entries, kind, position, left);
        for (const item of await this.#collect(segment, opened, wanted.ordinals)) {
          items.push(item);
          bytes += item.ref.bytes;
        }
        position = wanted.reached;
      }
      return items;
    });
  }

  /** All live items of one segment. */
  readSegment(segment: Segment): Promise<Item[]> {
    return this.#serial.run(async () => {
      const opened = await this.#open(segment);
      if (!opened) return [];
      const ordinals: number[] = [];
      for (let i = 0; i < segment.live.size; i++) if (segment.live.isAlive(i)) ordinals.push(i);
      return this.#collect(segment, opened, ordinals);
    });
  }

  /** Whether an item of the segment could not be read; its file must stay. */
  hasUnreadable(segment: Segment): boolean {
    for (const id of this.#unreadable) if (segment.live.ordinal(id) >= 0) return true;
    return false;
  }

  /** The segment that is being written; its descriptor and place table are the writer's. */
  follow(segment: Segment, opened: Opened): void {
    this.#opened.delete(segment);
    this.#opened.set(segment, opened);
    this.#active = segment;
  }

  /** Does `work` between two reads. */
  exclusively<T>(work: () => Promise<T>): Promise<T> {
    return this.#serial.run(work);
  }

  /** Lets go of a segment's file. Only inside `exclusively`. */
  async release(segment: Segment): Promise<void> {
    const opened = this.#opened.get(segment);
    this.#opened.delete(segment);
    await opened?.file.close();
  }

  async close(): Promise<void> {
    await this.#serial.run(async () => {
      for (const segment of [...this.#opened.keys()]) await this.release(segment);
    });
  }

  #select(
    segment: Segment,
    entries: Entries,
    kind: number,
    after: number,
    limit: ReadLimit,
  ): { ordinals: number[]; reached: number } {
    const { live } = segment;
    const ordinals: number[] = [];
    let bytes = 0;
    for (let i = live.firstFrom(after + 1); i < live.size; i++) {
      if (entries.kind(i) !== kind || !live.isAlive(i) || this.#unreadable.has(live.idAt(i))) continue;
      ordinals.push(i);
      bytes += entries.length(i);
      if (ordinals.length >= limit.count || bytes >= limit.bytes) return { ordinals, reached: live.idAt(i) };
    }
    return { ordinals, reached: live.next - 1 };
  }

  async #collect(segment: Segment, { file, entries }: Opened, ordinals: number[]): Promise<Item[]> {
    const items: Item[] = [];
    for (let first = 0; first < ordinals.length;) {
      const last = endOfChunk(entries, ordinals, first);
      const chunk = ordinals.slice(first, last);
      const start = entries.offset(chunk[0] ?? 0);
      const tail = chunk.at(-1) ?? 0;
      // Not from Buffer's pool: the values that are handed out are views of it.
      const bytes = Buffer.allocUnsafeSlow(entries.offset(tail) + entries.length(tail) - start);
      // A file that has become shorter is damaged where it ends.
      const failure = await file.read(bytes, start).then(
        (got) => void bytes.fill(0, got),
        (error: unknown) => error,
      );
      if (failure === undefined) await this.#parse(segment, entries, chunk, bytes, start, items);
      else if (chunk.length === 1) this.#skipUnreadable(segment, chunk[0] ?? 0, failure);
      else {
        // One bad spot of the disk should not cost its neighbours.
        for (const ordinal of chunk) {
          items.push(...(await this.#collect(segment, { file, entries }, [ordinal])));
        }
      }
      first = last;
    }
    return items;
  }

  async #parse(
    segment: Segment,
    entries: Entries,
    ordinals: readonly number[],
    bytes: Buffer,
    start: number,
    items: Item[],
  ): Promise<void> {
    const damaged: number[] = [];
    for (const ordinal of ordinals) {
      const at = entries.offset(ordinal) - start;
      const id = segment.live.idAt(ordinal);
      const item = readItem(bytes, at, segment.name.mark, id);
      if (item === 'damaged') damaged.push(ordinal);
      else if (item) items.push(item);
    }
    if (damaged.length === 0) return;
    for (const region of regionsOf(entries, damaged)) {
      await this.options.damage.setAside(
        segment,
        region.at,
        bytes.subarray(region.at - start, region.end - start),
      );
    }
    this.#lose(segment, entries, damaged);
  }

  /** Whatever the damaged records put is lost. */
  #lose(segment: Segment, entries: Entries, damaged: readonly number[]): void {
    const lost: Ref[] = [];
    for (const ordinal of damaged) {
      const offset = entries.offset(ordinal);
      let i = ordinal;
      while (i > 0 && entries.offset(i - 1) === offset) i--;
      for (; i < entries.size && entries.offset(i) === offset; i++) {
        if (!segment.live.isAlive(i)) continue;
        const ref = { kind: entries.kind(i), id: segment.live.idAt(i), bytes: entries.length(i) };
        lost.push(ref);
        this.options.catalog.remove(ref);
      }
    }
    this.options.onLost(lost);
  }

  #skipUnreadable(segment: Segment, ordinal: number, error: unknown): void {
    if (this.#unreadable.size >= unreadableLimit) throw readError(error);
    this.#unreadable.add(segment.live.idAt(ordinal));
    this.options.log.error('the disk cannot read a record; it is skipped until the next start', {
      segment: segment.fileName,
      error: errorText(error),
    });
  }

  async #open(segment: Segment): Promise<Opened | undefined> {
    const known = this.#opened.get(segment);
    if (known) return known;
    const { files, directory, catalog, log } = this.options;
    let file: StoreFile;
    try {
      file = await files.open(join(directory, segment.fileName), 'read');
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT') throw readError(error);
      log.error('a segment of the store has disappeared, and its items with it', {
        segment: segment.fileName,
        items: segment.live.liveCount,
      });
      catalog.replace([segment]);
      return undefined;
    }
    try {
      await this.#evict();
      const saved = await savedEntries(this.options, segment.name);
      const isWhole = saved?.size === segment.live.size;
      const entries = isWhole ? saved : await this.#scan(segment, file);
      if (!entries) {
        await file.close();
        return undefined;
      }
      const opened = { file, entries };
      this.#opened.set(segment, opened);
      return opened;
    } catch (error) {
      await file.close();
      throw readError(error);
    }
  }

  /**
   * The place table from the segment itself. When it turns out to hold fewer items than it did, another segment
   * takes its place in the catalog, and the answer is undefined: look again.
   */
  async #scan(segment: Segment, file: StoreFile): Promise<Entries | undefined> {
    const { catalog, damage } = this.options;
    const { contents, regions } = await readSegment(file, segment.name, { end: segment.end });
    if (contents.live.size === segment.live.size) return contents.entries;
    for (const { at, bytes } of regions) await damage.setAside(segment, at, bytes);
    const { live, entries } = contents;
    for (let i = 0; i < live.size; i++) {
      const id = live.idAt(i);
      if (!catalog.isAlive(id)) live.remove({ kind: entries.kind(i), id, bytes: entries.length(i) });
    }
    catalog.replace([segment], new Segment(segment.name, live, segment.end, contents.foreign.count));
    return undefined;
  }

  async #evict(): Promise<void> {
    for (const segment of this.#opened.keys()) {
      if (this.#opened.size < openSegments) return;
      if (segment !== this.#active) await this.release(segment);
    }
  }
}

/** The bytes of damaged records, neighbours in one piece. */
function regionsOf(entries: Entries, damaged: readonly number[]): { at: number; end: number }[] {
  const regions: { at: number; end: number }[] = [];
  for (const ordinal of damaged) {
    const at = entries.offset(ordinal);
    const end = at + entries.length(ordinal);
    const last = regions.at(-1);
    if (last && at <= last.end) last.end = Math.max(last.end, end);
    else regions.push({ at, end });
  }
  return regions;
}

function endOfChunk(entries: Entries, ordinals: readonly number[], first: number): number {
  const start = entries.offset(ordinals[first] ?? 0);
  let end = start + entries.length(ordinals[first] ?? 0);
  let i = first + 1;
  for (; i < ordinals.length; i++) {
    const offset = entries.offset(ordinals[i] ?? 0);
    const length = entries.length(ordinals[i] ?? 0);
    if (offset > end + gapBytes || offset + length - start > chunkBytes) break;
    end = offset + length;
  }
  return i;
}

function readError(error: unknown): AgentError {
  return new AgentError('io', `the store cannot be read: ${errorText(error)}`, { cause: error });
}
