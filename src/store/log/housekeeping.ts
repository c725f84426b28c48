import { join } from 'node:path';

import { errorText } from '../../errors.js';
import { chooseRun, compact, type CompactionOptions } from './compaction.js';
import { removeQuietly } from './files.js';
import type { Segment } from './segment.js';
import { summaryNameOf } from './summary.js';
import type { Writer } from './writer.js';

export interface HousekeepingOptions extends Omit<CompactionOptions, 'owe'> {
  readonly writer: () => Writer;
}

/**
 * What makes room, in the background: dead segments go, spares are made before they are needed, and where waste has
 * piled up, it is compacted. Every failure here only means that room is made later.
 */
export class Housekeeping {
  readonly #owed: (() => Promise<void>)[] = [];
  #running: Promise<void> | undefined;
  #again = false;
  #stopped = false;

  constructor(private readonly options: HousekeepingOptions) {}

  /** Has a look soon, unless it is looking already; then once more after that. */
  poke(): void {
    if (this.#stopped) return;
    this.#again = true;
    this.#running ??= this.#run();
  }

  /**
   * Something left from a failure that only another segment says is void, or covers. It has to be out of the way
   * before any segment disappears, else it would be taken for real at the next start.
   */
  owe(work: () => Promise<void>): void {
    this.#owed.push(work);
    this.poke();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    while (this.#again && !this.#stopped) {
      this.#again = false;
      await this.#attempt(() => this.#makeRoom());
      await this.#attempt(() => this.#prepareSpares());
    }
    this.#running = undefined;
  }

  async #attempt(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.options.log.debug('housekeeping of the store has to wait', { error: errorText(error) });
    }
  }

  async #makeRoom(): Promise<void> {
    await this.#settle();
    await this.#removeDead();
    await this.#compact();
  }

  async #settle(): Promise<void> {
    for (let work = this.#owed[0]; work; work = this.#owed[0]) {
      await work();
      this.#owed.shift();
    }
  }

  /**
   * A segment without a live item goes, if it is the oldest, or removes nothing that older ones hold: else the items
   * that it removes would be back after the next start.
   */
  async #removeDead(): Promise<void> {
    const { catalog } = this.options;
    for (const segment of [...catalog.segments]) {
      if (this.#stopped) return;
      if (!this.#isFinished(segment) || segment.live.liveCount > 0) continue;
      if (segment === catalog.segments[0] || segment.foreignRemovals === 0) await this.#remove(segment);
    }
  }

  async #remove(segment: Segment): Promise<void> {
    const { files, directory, catalog, reader, spares } = this.options;
    await reader.exclusively(async () => {
      await reader.release(segment);
      await removeQuietly(files, join(directory, summaryNameOf(segment.name)));
      // Gone for good, directory synced, before the next is touched: the removals in it must outlast their items.
      await spares.recycle(segment.fileName);
      catalog.replace([segment]);
    });
  }

  /** One is the ballast. The writer will want another soon when its segment is half full. */
  async #prepareSpares(): Promise<void> {
    const { spares } = this.options;
    const active = this.options.writer().active;
    if (!active) return;
    const wanted = active.segment.end > active.capacity / 2 ? 2 : 1;
    while (spares.count < wanted && !this.#stopped) await spares.make();
  }

  async #compact(): Promise<void> {
    const { catalog, segmentBytes, reader, spares } = this.options;
    const movable = (segment: Segment): boolean =>
      this.#isFinished(segment) && !reader.hasUnreadable(segment);
    while (spares.count > 0 && !this.#stopped) {
      const run = chooseRun(catalog.segments, movable, segmentBytes);
      if (!run) return;
      await compact(run, {
        ...this.options,
        owe: (work) => {
          this.owe(work);
        },
      });
    }
  }

  #isFinished(segment: Segment): boolean {
    return segment !== this.options.writer().active?.segment;
  }
}
