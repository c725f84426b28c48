import { join } from 'node:path';

import { systemClock, type Clock } from '../../clock.js';
import { AgentError, errorText } from '../../errors.js';
import { silentLog, type Log } from '../../log.js';
import type { Catalog } from './catalog.js';
import { DamageKeeper } from './damage.js';
import { cutOff, diskFiles, type Files } from './files.js';
import { Housekeeping } from './housekeeping.js';
import { own, type Owner } from './owner.js';
import { Reader, type ReadLimit } from './reader.js';
import { headerBytes, kindCount, type Item, type Operation, type Ref } from './record.js';
import { recover } from './recovery.js';
import { Spares } from './spares.js';
import { Writer, type CommitOptions, type StoredListener } from './writer.js';

/**
 * The durable log: what has to outlast the process, and the power.
 *
 * **What it holds.** Items: a kind (0 to 15), bytes, and an id that the log gives it. A commit puts and removes items;
 * it is on disk, synced, when its promise resolves, and it is there whole or not at all. Items of one kind are read
 * in the order of their ids, which is the order of commits.
 *
 * **Files** (mode 0600, in a directory of mode 0700):
 *
 *     00000007-00000007.0-9f3a11c2.log   a segment: records, one commit each (`segment.ts`, `record.ts`)
 *     00000007-00000007.0-9f3a11c2.sum   what it holds, in short: a cache (`summary.ts`)
 *     spare-5e01d3c2a711                 the next segment, all its blocks allocated (`spares.ts`)
 *     damaged/                           bytes that failed their checksum (`damage.ts`)
 *     owner-4711-03ac5b7713fe            the socket that says who owns the directory (`owner.ts`)
 *
 * **Invariants**
 *
 * 1. What is acknowledged was synced before: the record in its segment, and the segment's name in the directory.
 * 2. One write and one sync at a time; the next write starts behind the last byte that was synced.
 * 3. Ids ascend from record to record and from segment to segment.
 * 4. A byte that is acknowledged is never written over. A file is used again only when nothing in it is alive and,
 *    durably, it is no segment any more.
 * 5. A removal stays on disk as long as the put that it is about. Segments disappear oldest first; one that
 *    disappears earlier holds no removal that is needed, or has it copied (`compaction.ts`).
 * 6. A sync that failed is never asked again. The segment ends before what it was to sync; its successor says where.
 *
 * **Recovery.** Segments are taken in order. A finished one is known from its summary; one without is read through
 * (`scan.ts`), which costs one record per damage. Their removals are applied to what is alive. Only the newest can
 * have a write that was cut off; it was never acknowledged. If the newest ends cleanly it is synced, for it may have
 * been read from the page cache only, and written on; else it is finished and the next commit starts another.
 * A finished segment's records are checked when they are read, so damage there is found then.
 *
 * **Damage** never stops anything: the bytes are set aside, said loudly, and the item is removed. A damaged removal
 * means that an item comes back: a message is sent twice rather than lost.
 *
 * **A failing disk**: see `writer.ts`. **A full disk**: see `spares.ts`. Reading goes on in both cases.
 *
 * **Memory**: a bit per waiting item, a kilobyte or so per segment, the place tables of four segments and the write
 * buffer; it does not depend on how much is waiting, except for the bit.
 */
export class DurableLog implements AsyncDisposable {
  #closing: Promise<void> | undefined;

  private constructor(private readonly parts: Parts) {}

  /**
   * Opens a directory, which is made if it is not there, and owns it until the log is closed.
   * Errors: `try-again` when another process owns it; `config` when a newer version wrote it or it belongs to
   * another user; `cannot-create`; `io`.
   */
  static async open(options: LogOptions): Promise<DurableLog> {
    const { directory, files = diskFiles, ownership = own } = options;
    await files.makeDirectory(directory);
    const owner = await ownership(directory);
    try {
      return new DurableLog(await open({ ...options, files }, owner));
    } catch (error) {
      await owner.release();
      throw error;
    }
  }

  /** The longest value that a put may have when it is alone in its record, bytes. */
  get longestValue(): number {
    return this.parts.writer.longestRecord - headerBytes - 6;
  }

  /**
   * All of it or nothing, as one record. Returns what its puts are called from now on, in their order.
   * Errors: `data` when it is too long for a record; `try-again` when the disk is full; `io`.
   */
  commit(operations: readonly Operation[], options?: CommitOptions): Promise<readonly Ref[]> {
    if (operations.length === 0) return Promise.resolve([]);
    return this.#closing ? Promise.reject(closed()) : this.parts.writer.write([operations], options);
  }

  /** A record each: when it fails, the first ones may have been stored all the same. Returns and errors as above. */
  commitEach(operations: readonly Operation[], options?: CommitOptions): Promise<readonly Ref[]> {
    if (this.#closing) return Promise.reject(closed());
    return this.parts.writer.write(
      operations.map((operation) => [operation]),
      options,
    );
  }

  /** Items of a kind with ids above `after`, in order; none when there are no more. Errors: `io`. */
  async read(kind: number, after: number, limit: ReadLimit): Promise<readonly Item[]> {
    if (this.#closing) throw closed();
    return this.parts.reader.read(kind, after, limit);
  }

  /** Every item of a kind that is alive when its turn comes. */
  async *items(kind: number, after = 0): AsyncGenerator<Item> {
    for (let position = after; ;) {
      const items = await this.read(kind, position, { count: 1000, bytes: 1024 * 1024 });
      if (items.length === 0) return;
      for (const item of items) {
        if (this.parts.catalog.isAlive(item.ref.id)) yield item;
        position = item.ref.id;
      }
    }
  }

  /** Tells of every item in the moment in which it is on disk, in the order of their ids, before anyone can read it. */
  onStored(listener: StoredListener): void {
    this.parts.writer.onStored = listener;
  }

  /** Calls the listener when something is about to be written: what it commits then shares the write, and its sync. */
  beforeWrite(listener: () => void): void {
    this.parts.writer.beforeWrite = listener;
  }

  /** How many items of a kind there are. */
  count(kind: number): number {
    return this.parts.catalog.count(kind);
  }

  /** What they take on disk. */
  bytes(kind: number): number {
    return this.parts.catalog.bytes(kind);
  }

  isAlive(ref: Ref): boolean {
    return this.parts.catalog.isAlive(ref.id);
  }

  stats(): LogStats {
    const { segments } = this.parts.catalog;
    return {
      segments: segments.length,
      diskBytes: (segments.length + this.parts.spares.count) * this.parts.segmentBytes,
      damage: this.parts.damage.found,
    };
  }

  /** Reads everything once; what is damaged is found, set aside and reported on the way. */
  async verify(signal?: AbortSignal): Promise<{ readonly items: number; readonly damaged: number }> {
    const before = this.parts.damage.found.regions;
    let items = 0;
    for (let kind = 0; kind < kindCount; kind++) {
      for await (const _item of this.items(kind)) {
        signal?.throwIfAborted();
        items++;
      }
    }
    return { items, damaged: this.parts.damage.found.regions - before };
  }

  /** Waits for the commits that were asked for, and lets go of the directory. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    try {
      await this.parts.writer.finish();
      await this.parts.housekeeping.stop();
      await this.parts.reader.close();
    } finally {
      await this.parts.owner.release();
    }
  }
}

export interface LogOptions {
  readonly directory: string;
  readonly log?: Log;
  readonly clock?: Pick<Clock, 'monotonic'>;
  /** Size of a segment, bytes. Default 4 MiB. A record has to fit into one. */
  readonly segmentBytes?: number;
  /** Default: the disk. */
  readonly files?: Files;
  /** Default: `own`. */
  readonly ownership?: (directory: string) => Promise<Owner>;
}

export interface LogStats {
  readonly segments: number;
  /** Of segments and spares; an upper bound, as some are cut to size. */
  readonly diskBytes: number;
  /** Found since the start. */
  readonly damage: { readonly regions: number; readonly bytes: number };
}

const defaultSegmentBytes = 4 * 1024 * 1024;
interface Parts {
  readonly catalog: Catalog;
  readonly reader: Reader;
  readonly writer: Writer;
  readonly housekeeping: Housekeeping;
  readonly damage: DamageKeeper;
  readonly owner: Owner;
  readonly spares: Spares;
  readonly segmentBytes: number;
}

async function open(options: LogOptions & { files: Files }, owner: Owner): Promise<Parts> {
  const { directory, files, log = silentLog, clock = systemClock } = options;
  const segmentBytes = options.segmentBytes ?? defaultSegmentBytes;
  const damage = new DamageKeeper(files, join(directory, 'damaged'), log);
  const recovered = await recover({ files, directory, damage, log });
  const { catalog } = recovered;
  const spares = new Spares(files, directory, segmentBytes);
  const onLost = (refs: readonly Ref[]): void => {
    // Only so that the next start does not find the same damage again.
    writer.write([refs.map((ref) => ({ remove: ref }))]).catch((error: unknown) => {
      log.debug('a damaged record could not be removed', { error: errorText(error) });
    });
  };
  const reader = new Reader({ files, directory, catalog, damage, log, onLost });
  const io = { files, directory, catalog, reader, spares, segmentBytes, log };
  const housekeeping: Housekeeping = new Housekeeping({ ...io, writer: () => writer });
  const writer: Writer = new Writer({ ...io, clock, housekeeping }, recovered);
  for (const fileName of recovered.unused) {
    await spares.recycle(fileName).catch(() => {
      housekeeping.owe(() => spares.recycle(fileName));
    });
  }
  for (const { fileName, end } of recovered.overlong) {
    await cutOff(files, join(directory, fileName), end).catch(() => {
      housekeeping.owe(() => cutOff(files, join(directory, fileName), end));
    });
  }
  return { catalog, reader, writer, housekeeping, damage, owner, spares, segmentBytes };
}

function closed(): AgentError {
  return new AgentError('io', 'the store is closed');
}
