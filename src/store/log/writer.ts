import { join } from 'node:path';

import type { Clock } from '../../clock.js';
import { AgentError, errorText } from '../../errors.js';
import type { Log } from '../../log.js';
import { ActiveSegment } from './active-segment.js';
import type { Catalog } from './catalog.js';
import { cutOff, isDiskFull, removeDurably, type Files, type StoreFile } from './files.js';
import type { Reader } from './reader.js';
import { recordBytes, type Operation, type Put, type Ref } from './record.js';
import { longestWriteBytes } from './read-segment.js';
import type { Recovered } from './recovery.js';
import { terminatorBytes } from './scan.js';
import { fileNameOf, newSegmentName, segmentHeaderBytes, type Previous } from './segment.js';
import { Serial } from './serial.js';
import type { Spares } from './spares.js';
import { saveSummary, summaryOf } from './summary.js';

export interface CommitOptions {
  /**
   * May use the last reserve of a full disk: for removals, and for what is small and has to be recorded before
   * anything else can go on. Default: when every operation is a removal.
   */
  readonly essential?: boolean;
}

export interface WriterOptions {
  readonly files: Files;
  readonly directory: string;
  readonly catalog: Catalog;
  readonly reader: Reader;
  readonly spares: Spares;
  readonly segmentBytes: number;
  readonly clock: Pick<Clock, 'monotonic'>;
  readonly log: Log;
  readonly housekeeping: {
    /** Told now and then that there may be something to tidy up. */
    poke(): void;
    /** Has to be done before any segment may disappear. */
    owe(work: () => Promise<void>): void;
  };
}

/** Told what a put is called, and what it holds. */
export type StoredListener = (ref: Ref, put: Put) => void;

/** One write and one sync take along what is waiting, up to here. */
const groupBytes = longestWriteBytes - segmentHeaderBytes - terminatorBytes;
/** What is written together when a caller asks for many records. */
const portionBytes = 256 * 1024;
/** What may wait for the disk; beyond it, commits are refused. */
const queueBytes = 32 * 1024 * 1024;
/** After the disk has failed or was full, for so long nothing is tried. */
const refuseMs = 1000;
/** Housekeeping has a look whenever so much of a segment was written. */
const progressShare = 1 / 64;

interface Portion {
  readonly records: readonly (readonly Operation[])[];
  readonly bytes: number;
}

/** What a caller waits for, or a part of it. */
interface Waiting extends Portion {
  readonly essential: boolean;
  readonly resolve: (refs: Ref[]) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Group commit. One write and one sync are in flight; what arrives meanwhile goes into the next. When a write or a
 * sync fails, the segment is finished where the last good one ended, and the same records go to a new segment from
 * memory: what a failed sync has left on the disk nobody knows, and the next sync would only say that all is well.
 * When that fails too, they are refused.
 */
export class Writer {
  onStored: StoredListener = () => undefined;
  beforeWrite: () => void = () => undefined;
  readonly #queue: Waiting[] = [];
  readonly #summaries = new Serial();
  #queuedBytes = 0;
  #running: Promise<void> | undefined;
  #active: ActiveSegment | undefined;
  #nextId: number;
  #nextNumber: number;
  #previous: Previous;
  #refusal: { readonly error: AgentError; readonly until: number } | undefined;
  #buffer = Buffer.alloc(0);

  constructor(
    private readonly options: WriterOptions,
    { active, nextId, nextNumber, previous }: Recovered,
  ) {
    this.#active = active;
    this.#nextId = nextId;
    this.#nextNumber = nextNumber;
    this.#previous = previous;
    if (active) this.#letReaderFollow(active);
  }

  get active(): ActiveSegment | undefined {
    return this.#active;
  }

  /** No record may be larger, bytes. */
  get longestRecord(): number {
    return Math.min(groupBytes, this.options.segmentBytes - segmentHeaderBytes - terminatorBytes);
  }

  /** Resolves when all the records are on disk, with what their puts are called. */
  write(
    records: readonly (readonly Operation[])[],
    { essential }: CommitOptions = {},
  ): Promise<readonly Ref[]> {
    let bytes = 0;
    for (const operations of records) {
      const size = recordBytes(operations);
      if (size > this.longestRecord) return Promise.reject(tooLarge(size, this.longestRecord));
      bytes += size;
    }
    if (records.length === 0) return Promise.resolve([]);
    if (this.#queuedBytes + bytes > queueBytes) return Promise.reject(diskTooSlow());
    if (bytes <= this.#portionBytes) return this.#enqueue({ records, bytes }, essential);
    const parts = this.#portions(records).map((portion) => this.#enqueue(portion, essential));
    return Promise.all(parts).then((refs) => refs.flat());
  }

  /** Waits until everything is written. */
  async finish(): Promise<void> {
    await this.#running;
    await this.#summaries.run(() => Promise.resolve());
  }

  /** Small enough that little of a segment stays empty. */
  get #portionBytes(): number {
    return Math.min(portionBytes, this.longestRecord);
  }

  #portions(records: readonly (readonly Operation[])[]): Portion[] {
    const portions: Portion[] = [];
    let first = 0;
    let bytes = 0;
    for (const [i, operations] of records.entries()) {
      const size = recordBytes(operations);
      if (bytes + size > this.#portionBytes && i > first) {
        portions.push({ records: records.slice(first, i), bytes });
        first = i;
        bytes = 0;
      }
      bytes += size;
    }
    return [...portions, { records: records.slice(first), bytes }];
  }

  #enqueue({ records, bytes }: Portion, essential = removesOnly(records)): Promise<Ref[]> {
    return new Promise((resolve, reject) => {
      this.#queue.push({ records, bytes, essential, resolve, reject });
      this.#queuedBytes += bytes;
      this.#running ??= this.#run();
    });
  }

  async #run(): Promise<void> {
    // What is asked for in the same turn of the event loop goes into the same write.
    await Promise.resolve();
    while (this.#queue.length > 0) {
      this.beforeWrite();
      const group = await this.#nextGroup();
      if (group.length > 0) await this.#writeGroup(group);
    }
    this.#running = undefined;
  }

  /** Makes room for the first that waits, or refuses it; takes along what else fits. */
  async #nextGroup(): Promise<Waiting[]> {
    const [first] = this.#queue;
    if (!first) return [];
    try {
      await this.#makeRoomFor(first);
    } catch (error) {
      this.#take(1);
      first.reject(error);
      return [];
    }
    const limit = Math.min(groupBytes, this.#active?.room ?? 0);
    const ballastIsThere = this.options.spares.count > 0;
    let bytes = 0;
    let count = 0;
    for (const waiting of this.#queue) {
      bytes += waiting.bytes;
      if (bytes > limit || !(waiting.essential || ballastIsThere)) break;
      count++;
    }
    return this.#take(count);
  }

  #take(count: number): Waiting[] {
    const taken = this.#queue.splice(0, count);
    for (const { bytes } of taken) this.#queuedBytes -= bytes;
    return taken;
  }

  /** Throws `try-again` when the disk is full, `io` when it is broken. */
  async #makeRoomFor({ bytes, essential }: Waiting): Promise<void> {
    const { spares, clock } = this.options;
    const rotate = bytes > (this.#active?.room ?? 0);
    // What is not essential is written only while the ballast is there, and leaves it there.
    const required = (essential ? 0 : 1) + (rotate ? 1 : 0);
    try {
      if (spares.count < required && this.#refusal && clock.monotonic() < this.#refusal.until) {
        throw this.#refusal.error;
      }
      while (spares.count < required) await spares.make();
      if (rotate) await this.#rotate();
    } catch (error) {
      throw this.#refuse(error);
    }
  }

  async #writeGroup(group: readonly Waiting[]): Promise<void> {
    let active: ActiveSegment;
    try {
      active = await this.#writeToActive(group);
    } catch (error) {
      this.options.log.warn(
        'a write to the store failed; what was not acknowledged is written to another file',
        { error: errorText(error) },
      );
      try {
        active = await this.#writeElsewhere(group);
      } catch (again) {
        await this.#leaveActive('failed');
        const refusal = this.#refuse(again);
        for (const { reject } of group) reject(refusal);
        return;
      }
    }
    this.#acknowledge(group, active);
  }

  async #writeElsewhere(group: readonly Waiting[]): Promise<ActiveSegment> {
    await this.#leaveActive('failed');
    // The ballast too, if need be: these records had been promised room.
    if (this.options.spares.count === 0) await this.options.spares.make();
    await this.#rotate();
    return this.#writeToActive(group);
  }

  async #writeToActive(group: readonly Waiting[]): Promise<ActiveSegment> {
    const active = this.#active;
    if (!active) throw new Error('there is no segment to write to');
    const size = group.reduce((sum, { bytes }) => sum + bytes, segmentHeaderBytes + terminatorBytes);
    const bytes = active.encode(this.#bufferOf(size), group, this.#nextId, this.#previous);
    await active.file.write(bytes, active.segment.end);
    await active.file.sync();
    return active;
  }

  #acknowledge(group: readonly Waiting[], active: ActiveSegment): void {
    const { segment, capacity } = active;
    if (!active.isBegun) {
      this.options.catalog.push(segment);
      this.#letReaderFollow(active);
    }
    const step = capacity * progressShare;
    const before = Math.floor(segment.end / step);
    for (const { records, resolve } of group) {
      const refs: Ref[] = [];
      for (const operations of records) this.#account(active, operations, refs);
      resolve(refs);
    }
    if (Math.floor(segment.end / step) > before) this.options.housekeeping.poke();
  }

  /** The record is on disk: now it counts. `refs` gets what its puts are called. */
  #account(active: ActiveSegment, operations: readonly Operation[], refs: Ref[]): void {
    const { catalog } = this.options;
    let next = refs.length;
    active.record(operations, this.#nextId, refs);
    this.#nextId += refs.length - next;
    for (const operation of operations) {
      if ('remove' in operation) {
        catalog.remove(operation.remove);
        continue;
      }
      const ref = refs[next++];
      if (!ref) continue;
      catalog.added(ref);
      this.onStored(ref, operation.put);
    }
  }

  /**
   * Leaves the active segment for a spare. Nothing is written to that yet: its header goes with its first records.
   * Its name, though, is made to last here, so that what is acknowledged in it can be found.
   */
  async #rotate(): Promise<void> {
    const { files, directory, spares, segmentBytes } = this.options;
    const spare = spares.take();
    if (spare === undefined) throw new Error('there is no file for another segment');
    const name = newSegmentName(this.#nextNumber);
    const file = await this.#openSpare(spare, fileNameOf(name));
    const fresh = ActiveSegment.fresh(name, this.#nextId, file, segmentBytes);
    this.#nextNumber++;
    try {
      await files.syncDirectory(directory);
    } catch (error) {
      await this.#discard(fresh);
      throw error;
    }
    await this.#leaveActive('full');
    this.#active = fresh;
    this.options.housekeeping.poke();
  }

  /** Under its new name; it is a spare again when that fails. */
  async #openSpare(spare: string, fileName: string): Promise<StoreFile> {
    const { files, directory, spares } = this.options;
    let file: StoreFile | undefined;
    try {
      file = await files.open(join(directory, spare), 'write');
      await files.rename(join(directory, spare), join(directory, fileName));
      return file;
    } catch (error) {
      await file?.close().catch(() => undefined);
      spares.putBack(spare);
      throw error;
    }
  }

  /** Nothing more is written to the active segment; it stays open for reading. */
  async #leaveActive(why: 'full' | 'failed'): Promise<void> {
    const active = this.#active;
    this.#active = undefined;
    if (!active) return;
    if (active.isBegun) this.#finish(active, why === 'failed');
    else await this.#discard(active);
  }

  #finish({ segment, contents }: ActiveSegment, failed: boolean): void {
    const { files, directory, housekeeping } = this.options;
    const { name, end, fileName } = segment;
    this.#previous = { number: name.last, end, failed };
    // Taken now, while its bits say what this segment alone knows; written later.
    const summary = summaryOf(segment, contents);
    void this.#summaries.run(() => saveSummary(this.options, name, summary));
    if (failed) housekeeping.owe(() => cutOff(files, join(directory, fileName), end));
  }

  /** Nothing was acknowledged in it; but what was written there may look as if it had been. */
  async #discard({ file, segment }: ActiveSegment): Promise<void> {
    const { files, directory, housekeeping } = this.options;
    await file.close().catch(() => undefined);
    housekeeping.owe(() => removeDurably(files, directory, segment.fileName));
  }

  #letReaderFollow({ segment, file, contents }: ActiveSegment): void {
    this.options.reader.follow(segment, { file, entries: contents.entries });
  }

  #bufferOf(bytes: number): Buffer {
    if (this.#buffer.length < bytes) this.#buffer = Buffer.allocUnsafeSlow(Math.max(2 * bytes, 64 * 1024));
    return this.#buffer;
  }

  #refuse(error: unknown): AgentError {
    if (this.#refusal && error === this.#refusal.error) return this.#refusal.error;
    const refusal = isDiskFull(error)
      ? new AgentError('try-again', `the disk is full: ${errorText(error)}`, {
          hint: 'what was acknowledged is safe; make room, or let the agent deliver what is waiting',
          cause: error,
        })
      : new AgentError('io', `the store cannot be written: ${errorText(error)}`, { cause: error });
    this.#refusal = { error: refusal, until: this.options.clock.monotonic() + refuseMs };
    return refusal;
  }
}

function removesOnly(records: Portion['records']): boolean {
  return records.every((operations) => operations.every((operation) => 'remove' in operation));
}

function tooLarge(bytes: number, limit: number): AgentError {
  return new AgentError('data', `${bytes} bytes are too much for one record; ${limit} are the limit`);
}

function diskTooSlow(): AgentError {
  return new AgentError('try-again', 'the disk does not keep up: 32 MiB are waiting to be written', {
    hint: 'wait for one write before asking for the next',
  });
}
