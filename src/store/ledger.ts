import { systemClock, type Clock } from '../clock.js';
import { AgentError } from '../errors.js';
import type { CommandOutcome, CommandReply, DeviceId } from '../model.js';
import { AgeClock, type Machine, type Stamp } from './age.js';
import { kinds } from './kinds.js';
import type { DurableLog } from './log/durable-log.js';
import type { Operation, PutOperation, Ref } from './log/record.js';
import type { CommitOptions } from './log/writer.js';
import type { Spool } from './spool.js';
import type { NewMessage } from './spooled-message.js';

/** What the ledger keeps of a command. */
export interface CommandFacts extends DeviceId {
  readonly messageId?: string | undefined;
}

/** Where a command stands. What is `started` and has no outcome is `unknown`, which counts as a fault. */
export type CommandState =
  | { readonly state: 'open'; readonly attempts: number; readonly faults: number }
  | { readonly state: 'unknown'; readonly attempts: number; readonly faults: number }
  | { readonly state: 'decided'; readonly outcome: CommandOutcome };

export interface FinishedCommand {
  /** Accept and reject are final; after a release the command is open again. */
  readonly outcome: CommandOutcome;
  /** The handler crashed, hung or has a bug. */
  readonly fault: boolean;
  /** To be queued as telemetry in the same commit as the outcome. */
  readonly reply?: CommandReply | undefined;
}

/** Makes a message of what is to be said about a command; undefined when none can be made. */
export type ReplyMessage = (
  command: CommandFacts,
  outcome: CommandOutcome,
  reply: CommandReply,
) => NewMessage | undefined;

export interface LedgerOptions {
  readonly replyMessage: ReplyMessage;
  /** A settled command is forgotten after this. Default 24 h. */
  readonly retainMs?: number | undefined;
  /** So many are remembered at most; settled ones go first, the oldest first. Default 10 000. */
  readonly maximumCount?: number | undefined;
  readonly clock?: Clock | undefined;
  readonly machine?: Machine | undefined;
}

export const ledgerDefaults = { retainMs: 24 * 3600 * 1000, maximumCount: 10_000 } as const;

/** One command, as its item in the log says (JSON). */
interface Entry {
  readonly key: string;
  readonly command: CommandFacts;
  readonly at: Stamp;
  readonly handler?: string | undefined;
  readonly progress: Progress;
}

type Progress =
  /** Delivered; never written, because after a crash nothing would depend on it. */
  | { readonly is: 'received'; readonly attempts: number; readonly faults: number }
  | { readonly is: 'started'; readonly attempts: number; readonly faults: number }
  | { readonly is: 'released'; readonly attempts: number; readonly faults: number }
  | { readonly is: 'decided'; readonly outcome: CommandOutcome }
  | { readonly is: 'settled'; readonly outcome: CommandOutcome };

const received = { is: 'received', attempts: 0, faults: 0 } as const;

interface Known {
  readonly key: string;
  readonly command: CommandFacts;
  at: Stamp;
  handler: string | undefined;
  progress: Progress;
  /** Of what the log holds; undefined when it holds nothing. */
  ref: Ref | undefined;
  /** Pending while a change of it is on its way to the disk. */
  changing: Promise<unknown> | undefined;
}

interface Change {
  readonly known: Known;
  readonly handler: string | undefined;
  readonly progress: Progress;
}

/** The hub keeps a command for two days at most; until then an unsettled one may come again. */
const longestLifeMs = 49 * 3600 * 1000;
/** How often ages are looked at. */
const pruneIntervalMs = 60_000;
const removesPerRecord = 1000;
const spareShare = 1 / 64;
/** A damaged record costs what is in it; and beyond some, a larger one is hardly cheaper. */
const changesPerRecord = 32;

/**
 * What is known of commands, so that one with a recorded outcome never runs again: received → started → decided →
 * settled, each an item that replaces the one before. Implements `CommandLedger` of `handlers/`.
 *
 * Changes that are asked for in the same turn of the event loop share records and a sync. That a command is settled,
 * or forgotten, goes along with the next of them: when the power is cut before that, its outcome is known all the same.
 */
export class Ledger {
  /** The one that changed longest ago first. */
  readonly #known = new Map<string, Known>();
  readonly #age: AgeClock;
  readonly #clock: Clock;
  readonly #options: Pick<LedgerOptions, 'replyMessage'> & { retainMs: number; maximumCount: number };
  #prunedAtMs = -Infinity;
  /** What this turn of the event loop has asked for. */
  #batches: Batch[] = [];
  /** The disk does not know yet that they are. */
  #settled: Known[] = [];
  #forgotten: Ref[] = [];

  private constructor(
    private readonly log: DurableLog,
    private readonly spool: Spool,
    { clock = systemClock, machine, ...options }: LedgerOptions,
  ) {
    this.#clock = clock;
    this.#age = new AgeClock(clock, machine);
    this.#options = {
      replyMessage: options.replyMessage,
      retainMs: options.retainMs ?? ledgerDefaults.retainMs,
      maximumCount: options.maximumCount ?? ledgerDefaults.maximumCount,
    };
  }

  static async open(log: DurableLog, spool: Spool, options: LedgerOptions): Promise<Ledger> {
    const ledger = new Ledger(log, spool, options);
    await ledger.#load();
    return ledger;
  }

  get size(): number {
    return this.#known.size;
  }

  /** Where the command stands; one that is not known is from now on. */
  async received(key: string, { deviceId, moduleId, messageId }: CommandFacts): Promise<CommandState> {
    const known = this.#known.get(key);
    if (known) {
      await known.changing?.catch(() => undefined);
      return stateOf(known.progress);
    }
    const command = { deviceId, moduleId, messageId };
    const at = this.#age.stamp();
    const untouched = { handler: undefined, progress: received, ref: undefined, changing: undefined };
    this.#known.set(key, { key, command, at, ...untouched });
    this.#prune();
    return stateOf(received);
  }

  /** Resolves when it is on disk that a handler begins. Errors: `io`, `try-again`: then it must not. */
  async started(key: string, { handler, attempt }: { handler: string; attempt: number }): Promise<void> {
    await this.#change(key, (known) => ({
      handler,
      progress: { is: 'started', attempts: attempt, faults: faultsOf(known.progress) },
    }));
  }

  /** Resolves when the outcome is on disk, and the reply with it. Errors: `io`, `try-again`. */
  async finished(key: string, { outcome, fault, reply }: FinishedCommand): Promise<void> {
    const command = this.#known.get(key)?.command;
    const message =
      command && reply !== undefined ? this.#options.replyMessage(command, outcome, reply) : undefined;
    const finish = ({ handler, progress }: Known) => ({
      handler,
      progress: progressAfter(progress, outcome, fault),
    });
    if (message) {
      await this.#change(key, finish, new Batch([this.spool.operation(message)]));
      this.spool.arrived();
    } else {
      await this.#change(key, finish);
    }
  }

  /**
   * Accepts a command in the commit that keeps it for later, and returns what the kept item is called.
   * Errors: `io`, `try-again`.
   */
  async accepted(key: string, kept: PutOperation): Promise<Ref> {
    const progress: Progress = { is: 'decided', outcome: { outcome: 'accept' } };
    const alone = new Batch([kept], { essential: false });
    const [ref] = await this.#change(key, ({ handler }) => ({ handler, progress }), alone);
    if (!ref) throw new AgentError('bug', 'a command was accepted twice');
    return ref;
  }

  /** The hub knows the outcome. Where nothing ran there is nothing to remember. */
  settled(key: string): Promise<void> {
    const known = this.#known.get(key);
    if (known?.progress.is === 'received') this.#known.delete(key);
    else if (known?.progress.is === 'decided') {
      known.progress = { is: 'settled', outcome: known.progress.outcome };
      this.#settled.push(known);
    }
    return Promise.resolve();
  }

  /** Writes what would have gone along with the next change. */
  async close(): Promise<void> {
    await this.#write();
  }

  /** What is known, the oldest change first. */
  *entries(): Generator<{ key: string; handler: string | undefined } & CommandFacts & CommandState> {
    for (const { key, handler, command, progress } of this.#known.values()) {
      yield { key, handler, ...command, ...stateOf(progress) };
    }
  }

  async #load(): Promise<void> {
    for await (const { ref, value } of this.log.items(kinds.command)) {
      const { key, command, at, handler, progress } = JSON.parse(value.toString()) as Entry;
      const older = this.#known.get(key);
      // Two of one command are there only if the record that replaced the first was damaged and is not.
      if (older?.ref) await this.log.commit([{ remove: older.ref }]);
      this.#known.delete(key);
      this.#known.set(key, { key, command, at, handler, progress, ref, changing: undefined });
    }
  }

  /** Resolves when the change is on disk, to what was put alongside. `alone`: in a record of its own. */
  #change(
    key: string,
    change: (known: Known) => Pick<Known, 'handler' | 'progress'>,
    alone?: Batch,
  ): Promise<readonly Ref[]> {
    const known = this.#known.get(key);
    if (!known) throw new AgentError('bug', 'the ledger was told of a command that it never received');
    if (known.changing) {
      const again = () => this.#change(key, change, alone);
      return known.changing.then(again, again);
    }
    const batch = alone ?? this.#openBatch();
    if (this.#batches.length === 0) setImmediate(() => void this.#write());
    if (this.#batches.at(-1) !== batch) this.#batches.push(batch);
    this.#add(known, change(known), batch);
    return batch.done;
  }

  #openBatch(): Batch {
    const last = this.#batches.at(-1);
    const isOpen = last?.alongside.length === 0 && last.changes.length < changesPerRecord;
    return isOpen ? last : new Batch();
  }

  #add(known: Known, { handler, progress }: Pick<Known, 'handler' | 'progress'>, batch: Batch): void {
    batch.changes.push({ known, handler, progress });
    known.changing = batch.done;
  }

  async #write(): Promise<void> {
    const batches = this.#batches;
    for (const known of this.#settled) {
      if (this.#known.get(known.key) !== known) continue; // forgotten meanwhile
      const batch = this.#openBatch();
      if (batches.at(-1) !== batch) batches.push(batch);
      this.#add(known, known, batch);
    }
    this.#settled = [];
    this.#batches = [];
    await Promise.all([...batches.map((batch) => this.#writeBatch(batch)), this.#removeForgotten()]);
  }

  /** Whoever waits for it hears how it went. */
  async #writeBatch(batch: Batch): Promise<void> {
    const { changes, alongside, options } = batch;
    const at = this.#age.stamp();
    const operations: Operation[] = changes.map((change) => putOf(change, at));
    operations.push(...alongside);
    for (const { known } of changes) if (known.ref) operations.push({ remove: known.ref });
    try {
      const refs = await this.log.commit(operations, options);
      changes.forEach((change, n) => {
        this.#stored(change, at, refs[n]);
      });
      batch.stored(refs.slice(changes.length));
    } catch (error) {
      for (const { known } of changes) known.changing = undefined;
      batch.failed(error);
    }
  }

  #stored({ known, handler, progress }: Change, at: Stamp, ref: Ref | undefined): void {
    known.at = at;
    known.handler = handler;
    known.progress = progress;
    known.ref = ref;
    known.changing = undefined;
    this.#known.delete(known.key);
    this.#known.set(known.key, known);
  }

  async #removeForgotten(): Promise<void> {
    const refs = this.#forgotten.splice(0, removesPerRecord);
    await this.log.commit(refs.map((ref) => ({ remove: ref }))).catch(() => {
      // With a later change, then. Until that is written they would only be back after a restart.
      this.#forgotten.push(...refs);
    });
  }

  /** Forgets what is too old, and what is too many. What is being worked on stays. */
  #prune(): void {
    const tooMany = this.#known.size - this.#options.maximumCount;
    if (tooMany <= 0 && this.#clock.monotonic() - this.#prunedAtMs < pruneIntervalMs) return;
    this.#prunedAtMs = this.#clock.monotonic();
    // A few more than needed, so that not every command makes it look for one to forget.
    const spare = Math.floor(this.#options.maximumCount * spareShare);
    const forgotten = [...this.#tooOld(), ...this.#superfluous(tooMany <= 0 ? 0 : tooMany + spare)];
    for (const { key, ref } of forgotten) {
      if (this.#known.delete(key) && ref) this.#forgotten.push(ref);
    }
  }

  *#tooOld(): Generator<Known> {
    for (const known of this.#known.values()) {
      const ageMs = this.#age.ageMs(known.at);
      if (ageMs <= this.#options.retainMs) return;
      if (known.changing) continue;
      if (known.progress.is === 'settled' || ageMs > longestLifeMs) yield known;
    }
  }

  *#superfluous(count: number): Generator<Known> {
    let left = count;
    for (const wanted of ['settled', 'decided', 'released'] as const) {
      for (const known of this.#known.values()) {
        if (left <= 0) return;
        if (known.progress.is !== wanted || known.changing) continue;
        left--;
        yield known;
      }
    }
  }
}

/** Changes that share a record, and what goes into it besides. */
class Batch {
  readonly changes: Change[] = [];
  /** Resolves when it is on disk, to what was put alongside. */
  readonly done: Promise<readonly Ref[]>;
  #resolve: (refs: readonly Ref[]) => void = () => undefined;
  #reject: (error: unknown) => void = () => undefined;

  constructor(
    readonly alongside: readonly Operation[] = [],
    readonly options: CommitOptions = { essential: true },
  ) {
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Nobody waits for what goes along with others.
    this.done.catch(() => undefined);
  }

  stored(refs: readonly Ref[]): void {
    this.#resolve(refs);
  }

  failed(error: unknown): void {
    this.#reject(error);
  }
}

function putOf({ known: { key, command }, handler, progress }: Change, at: Stamp): Operation {
  const entry: Entry = { key, command, at, handler, progress };
  return { put: { kind: kinds.command, value: [Buffer.from(JSON.stringify(entry))] } };
}

function stateOf(progress: Progress): CommandState {
  switch (progress.is) {
    case 'received':
    case 'released':
      return { state: 'open', attempts: progress.attempts, faults: progress.faults };
    case 'started':
      return { state: 'unknown', attempts: progress.attempts, faults: faultsOf(progress) };
    case 'decided':
    case 'settled':
      return { state: 'decided', outcome: progress.outcome };
  }
}

function progressAfter(progress: Progress, outcome: CommandOutcome, fault: boolean): Progress {
  if (outcome.outcome !== 'release') return { is: 'decided', outcome };
  const attempts = 'attempts' in progress ? progress.attempts : 0;
  const faults = 'faults' in progress ? progress.faults : 0;
  return { is: 'released', attempts, faults: faults + (fault ? 1 : 0) };
}

/** With the run that nobody heard the end of. */
function faultsOf(progress: Progress): number {
  const faults = 'faults' in progress ? progress.faults : 0;
  return progress.is === 'started' ? faults + 1 : faults;
}
