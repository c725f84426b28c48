import { randomUUID } from 'node:crypto';

import type { Clock } from '../clock.js';
import { AgentError } from '../errors.js';
import { isGone, thisProcess } from '../store/process-id.js';
import { SharedFile } from '../store/shared-file.js';
import type { EventPosition } from './event-position.js';
import { shareOf } from './shares.js';

export interface CheckpointOptions {
  /** The file; it is made when it is not there. */
  file: string;
  /** `{host}/{event hub}` and the consumer group that the positions are of. A file is for one group. */
  eventHub: string;
  group: string;
  partitions: readonly string[];
  /**
   * Milliseconds after which a monitor that does not show itself loses its partitions to the others. One whose
   * process is gone loses them at once.
   */
  leaseMs: number;
  clock: Clock;
}

/** A partition that is ours to read, with what was saved of it. */
export interface OwnedPartition {
  /** Higher than that of any owner before: the event hub sends those away. */
  epoch: number;
  /** Behind the last event that was dealt with; undefined when none ever was. */
  position: EventPosition | undefined;
}

/** A partition that we hold: how far we have come, and whether we let go of it. */
export interface HeldPartition {
  position: EventPosition;
  release: boolean;
}

/** What is ours after a beat. */
export interface Ownership {
  owned: ReadonlyMap<string, OwnedPartition>;
  /** Those of `owned` that other monitors need, to be released with a later beat. */
  giveUp: readonly string[];
}

/**
 * How far a consumer group has come, and which of its monitors on this machine reads which partition, in one file:
 *
 *     {"v":1,"eventHub":"…","group":"$Default",
 *      "monitors":{"<id>":{"process":"…","beat":7}},
 *      "partitions":{"0":{"epoch":3,"owner":"<id>","position":{"at":"offset","offset":"4711","sequenceNumber":12}}}}
 *
 * Each monitor comes by every second or so (`beat`), saves its positions, shows that it lives, and leaves with its
 * share of the partitions. An owner is never robbed: it gives up what others need, or it is dead, or it has not shown
 * itself for as long as a lease lasts. An owner that was only asleep is sent away by the event hub, because its
 * successor attaches with a higher epoch; and what it would save is not taken.
 */
export class Checkpoint {
  /** Who we are in the file. */
  readonly id = randomUUID();
  readonly #options: CheckpointOptions;
  readonly #file: SharedFile;
  readonly #process = thisProcess();
  /** The last beat that we saw of each monitor, and when, by our monotonic clock: no two clocks are compared. */
  readonly #seen = new Map<string, { beat: number; at: number }>();
  #beats = 0;
  #writtenAt = -Infinity;

  constructor(options: CheckpointOptions) {
    this.#options = options;
    this.#file = new SharedFile(options.file);
  }

  /**
   * Saves the positions of the partitions that we hold, gives back what we release, and takes what is our share. A
   * partition that is held and not in the answer, or with another epoch, was lost to another monitor.
   */
  async beat(held: ReadonlyMap<string, HeldPartition>): Promise<Ownership> {
    let ownership: Ownership = { owned: new Map(), giveUp: [] };
    await this.#change((table) => {
      this.#dropDead(table);
      table.monitors[this.id] = { process: this.#process, beat: ++this.#beats };
      this.#save(table, held);
      ownership = this.#share(table);
    });
    return ownership;
  }

  /** Saves the positions a last time and gives everything back. */
  async leave(held: ReadonlyMap<string, HeldPartition>): Promise<void> {
    await this.#change((table) => {
      this.#save(table, held);
      const { [this.id]: _us, ...others } = table.monitors;
      table.monitors = others;
      freeOrphans(table);
    });
  }

  async #change(change: (table: Table) => void): Promise<void> {
    const { clock, leaseMs } = this.#options;
    await this.#file.change((text) => {
      const table = this.#parse(text);
      const before = withoutBeats(table);
      change(table);
      const now = clock.monotonic();
      // To show that we live we need not write each time.
      if (withoutBeats(table) === before && now - this.#writtenAt < leaseMs / 4) return undefined;
      this.#writtenAt = now;
      return `${JSON.stringify(table, undefined, 1)}\n`;
    });
  }

  #dropDead(table: Table): void {
    const now = this.#options.clock.monotonic();
    const alive = Object.entries(table.monitors).filter(([id, { process, beat }]) => {
      const seen = this.#seen.get(id);
      if (seen?.beat !== beat) this.#seen.set(id, { beat, at: now });
      const silent = seen?.beat === beat && now - seen.at >= this.#options.leaseMs;
      return id === this.id || !(silent || isGone(process));
    });
    table.monitors = Object.fromEntries(alive);
    freeOrphans(table);
  }

  #save({ partitions }: Table, held: ReadonlyMap<string, HeldPartition>): void {
    for (const [id, partition] of Object.entries(partitions)) {
      if (partition.owner !== this.id) continue;
      const mine = held.get(id);
      if (mine !== undefined) partition.position = mine.position;
      // One that is ours and not held was taken by a beat whose end we did not see.
      if (mine === undefined || mine.release) delete partition.owner;
    }
  }

  #share({ monitors, partitions }: Table): Ownership {
    const owners = new Map(
      this.#options.partitions.map((id): [string, string | undefined] => [id, partitions[id]?.owner]),
    );
    const { take, giveUp } = shareOf(this.id, Object.keys(monitors), owners);
    for (const id of take) {
      const { epoch = 0, position } = partitions[id] ?? {};
      partitions[id] = { epoch: epoch + 1, owner: this.id, position };
    }
    const owned = Object.entries(partitions).filter(([, { owner }]) => owner === this.id);
    return {
      owned: new Map(owned.map(([id, { epoch, position }]) => [id, { epoch, position }])),
      giveUp,
    };
  }

  #parse(text: string | undefined): Table {
    const { eventHub, group, file } = this.#options;
    if (text === undefined) return { v: 1, eventHub, group, monitors: {}, partitions: {} };
    const table = readTable(text);
    if (table === undefined) {
      throw new AgentError('config', `${file} is not a checkpoint file`, {
        hint: 'name another file, or one that is not there yet',
      });
    }
    if (table.eventHub !== eventHub || table.group !== group) {
      throw new AgentError(
        'config',
        `${file} is the checkpoint of ${table.eventHub}, group ${table.group}, not of ${eventHub}, group ${group}`,
        { hint: 'each consumer group has a file of its own' },
      );
    }
    return table;
  }
}

function freeOrphans({ monitors, partitions }: Table): void {
  for (const partition of Object.values(partitions)) {
    if (partition.owner !== undefined && !Object.hasOwn(monitors, partition.owner)) delete partition.owner;
  }
}

interface Table {
  v: 1;
  eventHub: string;
  group: string;
  monitors: Record<string, { process: string; beat: number }>;
  partitions: Record<string, { epoch: number; owner?: string; position?: EventPosition | undefined }>;
}

function readTable(text: string): Table | undefined {
  try {
    const table = JSON.parse(text) as Partial<Table> | null;
    const isTable =
      table?.v === 1 &&
      typeof table.eventHub === 'string' &&
      typeof table.group === 'string' &&
      Object.values(table.monitors ?? {}).every(
        ({ process, beat }) => typeof process === 'string' && beat >= 0,
      ) &&
      Object.values(table.partitions ?? {}).every(
        ({ epoch, position }) =>
          Number.isSafeInteger(epoch) && (position === undefined || isPosition(position)),
      );
    return isTable ? ({ monitors: {}, partitions: {}, ...table } as Table) : undefined;
  } catch {
    return undefined;
  }
}

function isPosition(position: EventPosition): boolean {
  switch (position.at) {
    case 'start':
      return true;
    case 'time':
      return Number.isFinite(position.enqueuedAt);
    case 'offset':
      // It goes into a filter, between quotes.
      return typeof position.offset === 'string' && !position.offset.includes("'");
    default:
      return false;
  }
}

function withoutBeats({ monitors, partitions }: Table): string {
  return JSON.stringify([Object.keys(monitors), partitions]);
}
