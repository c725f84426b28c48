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

/** Commands that came to the same at the same time, as an item of the log says (JSON). */
interface Page {
  readonly keys: readonly string[];
  readonly at: Stamp;
  readonly progress: Progress;
}

/** As it was written before there were pages. */
interface PageOfOne extends Omit<Page, 'keys'> {
  readonly key: string;
}

type Progress =
  /** Delivered; never written, because after a crash nothing would depend on it. */
  | { readonly is: 'received'; readonly attempts: number; readonly faults: number }
  | { readonly is: 'started'; readonly attempts: number; readonly faults: number }
  | { readonly is: 'released'; readonly attempts: number; readonly faults: number }
  | { readonly is: 'decided'; readonly outcome: CommandOutcome }
  | { readonly is: 'settled'; readonly outcome: CommandOutcome };

/** What nearly all commands come to; those that are at the same of these share a page. */
const usual = {
  received: { is: 'received', attempts: 0, faults: 0 },
  started: { is: 'started', attempts: 1, faults: 0 },
  accepted: { is: 'decided', outcome: { outcome: 'accept' } },
  acceptSettled: { is: 'settled', outcome: { outcome: 'accept' } },
} as const satisfies Record<string, Progress>;

interface Known {
  readonly key: string;
  /** Undefined when it was read from the log, until it is delivered again. */
  command: CommandFacts | undefined;
  at: Stamp;
  progress: Progress;
  /** Where that is in the log; undefined when it is not. */
  item: Item | undefined;
  /** Pending while a change of it is on its way to the disk. */
  changing: Promise<unknown> | undefined;
}

/** An item of the log, and how many commands it is still about. */
interface Item {
  readonly ref: Ref;
  commands: number;
}

interface Change {
  readonly known: Known;
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

const neverReceived = 'the ledger was told of a command that it never received';

/**
 * What is known of commands, so that one with a recorded outcome never runs again: received → started → decided →
 * settled. Implements `CommandLedger` of `handlers/`.
 *
 * Changes that are asked for in the same turn of the event loop share a sync, records, and pages. What the log says
 * last of a command counts, so that a page can go when the log has something newer of all that are on it. That it
 * goes, and that commands are settled, is written with the next changes. When the power is cut before that, more is
 * known than need be, and nothing that is not true.
 */
export class Ledger {
  /** The one that was decided longest ago, or arrived, first. */
  readonly #known = new Map<string, Known>();
  readonly #age: AgeClock;
  readonly #clock: Clock;
  readonly #options: Pick<LedgerOptions, 'replyMessage'> & { retainMs: number; maximumCount: number };
  #prunedAtMs = -Infinity;
  /** What this turn of the event loop has asked for. */
  #batches: Batch[] = [];
  /** The disk does not know yet that they are. */
  #settled: Known[] = [];
  /** Items that say nothing any more. */
  #outdated: Ref[] = [];

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
  received(key: string, { deviceId, moduleId, messageId }: CommandFacts): Promise<CommandState> {
    const command = { deviceId, moduleId, messageId };
    const known = this.#known.get(key);
    if (known) {
      known.command = command;
      const state = () => stateOf(known.progress);
      return known.changing ? known.changing.then(state, state) : Promise.resolve(state());
    }
    const progress = usual.received;
    const at = this.#age.stamp();
    this.#known.set(key, { key, command, at, progress, item: undefined, changing: undefined });
    this.#prune();
    return Promise.resolve(stateOf(progress));
  }

  /** Resolves when it is on disk that a handler begins. Errors: `io`, `try-again`: then it must not. */
  started(key: string, { attempt }: { handler: string; attempt: number }): Promise<unknown> {
    return this.#change(key, (progress) => progressOnStart(attempt, faultsOf(progress)));
  }

  /** Resolves when the outcome is on disk, and the reply with it. Errors: `io`, `try-again`. */
  finished(key: string, { outcome, fault, reply }: FinishedCommand): Promise<unknown> {
    const command = this.#known.get(key)?.command;
    const message =
      command && reply !== undefined ? this.#options.replyMessage(command, outcome, reply) : undefined;
    const finish = (progress: Progress) => progressAfter(progress, outcome, fault);
    if (!message) return this.#change(key, finish);
    return this.#change(key, finish, new Batch([this.spool.operation(message)])).then(() => {
      this.spool.arrived();
    });
  }

  /**
   * Accepts a command in the commit that keeps it for later, and returns what the kept item is called.
   * Errors: `io`, `try-again`.
   */
  async accepted(key: string, kept: PutOperation): Promise<Ref> {
    const [ref] = await this.#change(key, () => usual.accepted, new Batch([kept], { essential: false }));
    if (!ref) throw new AgentError('bug', 'a command was accepted twice');
    return ref;
  }

  /** The hub knows the outcome. Where nothing ran there is nothing to remember. */
  settled(key: string): Promise<void> {
    const known = this.#known.get(key);
    if (known?.progress.is === 'received') this.#known.delete(key);
    else if (known?.progress.is === 'decided') {
      known.progress = progressWhenSettled(known.progress);
      this.#settled.push(known);
    }
    return Promise.resolve();
  }

  /** Writes what would have gone along with the next change. */
  async close(): Promise<void> {
    await this.#write();
  }

  /** What is known, the oldest change first. */
  *entries(): Generator<{ key: string } & CommandState> {
    for (const { key, progress } of this.#known.values()) yield { key, ...stateOf(progress) };
  }

  async #load(): Promise<void> {
    for await (const { ref, value } of this.log.items(kinds.command)) {
      const page = JSON.parse(value.toString()) as Page | PageOfOne;
      const { at, progress } = page;
      const keys = 'key' in page ? [page.key] : page.keys;
      const item = { ref, commands: keys.length };
      for (const key of keys) {
        this.#forget(key);
        this.#known.set(key, { key, command: undefined, at, progress, item, changing: undefined });
      }
    }
  }

  /** Resolves when the change is on disk, to what was put alongside. `alone`: in a record of its own. */
  #change(key: string, change: (before: Progress) => Progress, alone?: Batch): Promise<readonly Ref[]> {
    const known = this.#known.get(key);
    if (!known) return Promise.reject(new AgentError('bug', neverReceived));
    if (known.changing) {
      const again = () => this.#change(key, change, alone);
      return known.changing.then(again, again);
    }
    if (this.#batches.length === 0) setImmediate(() => void this.#write());
    const batch = alone ?? this.#openBatch();
    if (alone) this.#batches.push(alone);
    batch.add(known, change(known.progress));
    return batch.done;
  }

  #openBatch(): Batch {
    const last = this.#batches.at(-1);
    if (last?.alongside.length === 0 && last.changes.length < changesPerRecord) return last;
    const batch = new Batch();
    this.#batches.push(batch);
    return batch;
  }

  async #write(): Promise<void> {
    for (const known of this.#settled) {
      const isForgotten = this.#known.get(known.key) !== known;
      if (!isForgotten) this.#openBatch().add(known, known.progress);
    }
    this.#settled = [];
    const batches = this.#batches;
    this.#batches = [];
    await Promise.all([...batches.map((batch) => this.#writeBatch(batch)), this.#removeOutdated()]);
  }

  /** Whoever waits for it hears how it went. */
  async #writeBatch(batch: Batch): Promise<void> {
    const at = this.#age.stamp();
    const pages = pagesOf(batch.changes);
    const puts = pages.map(({ progress, commands }): PutOperation => {
      const page: Page = { keys: commands.map(({ key }) => key), at, progress };
      return { put: { kind: kinds.command, value: [Buffer.from(JSON.stringify(page))] } };
    });
    try {
      const refs = await this.log.commit([...puts, ...batch.alongside], batch.options);
      for (const [n, { progress, commands }] of pages.entries()) {
        const ref = refs[n];
        const item = ref && { ref, commands: commands.length };
        for (const known of commands) this.#stored(known, { at, progress, item });
      }
      batch.stored(refs.slice(pages.length));
    } catch (error) {
      for (const { known } of batch.changes) known.changing = undefined;
      batch.failed(error);
    }
  }

  #stored(known: Known, { at, progress, item }: Pick<Known, 'at' | 'progress' | 'item'>): void {
    this.#leave(known.item);
    known.progress = progress;
    known.item = item;
    known.changing = undefined;
    // Ages are counted from what is decided, and the order of the map with them: to change places costs time.
    if (progress.is === 'started' || progress.is === 'settled') return;
    known.at = at;
    this.#known.delete(known.key);
    this.#known.set(known.key, known);
  }

  async #removeOutdated(): Promise<void> {
    const refs = this.#outdated.splice(0, removesPerRecord);
    await this.log.commit(refs.map((ref) => ({ remove: ref }))).catch(() => {
      this.#outdated.push(...refs); // with later changes, then
    });
  }

  #forget(key: string): void {
    this.#leave(this.#known.get(key)?.item);
    this.#known.delete(key);
  }

  #leave(item: Item | undefined): void {
    if (item && --item.commands === 0) this.#outdated.push(item.ref);
  }

  /** Forgets what is too old, and what is too many. What is being worked on stays. */
  #prune(): void {
    const tooMany = this.#known.size - this.#options.maximumCount;
    if (tooMany <= 0 && this.#clock.monotonic() - this.#prunedAtMs < pruneIntervalMs) return;
    this.#prunedAtMs = this.#clock.monotonic();
    // A few more than needed, so that not every command makes it look for one to forget.
    const spare = Math.floor(this.#options.maximumCount * spareShare);
    const forgotten = [...this.#tooOld(), ...this.#superfluous(tooMany <= 0 ? 0 : tooMany + spare)];
    for (const { key } of forgotten) this.#forget(key);
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

  add(known: Known, progress: Progress): void {
    this.changes.push({ known, progress });
    known.changing = this.done;
  }

  stored(refs: readonly Ref[]): void {
    this.#resolve(refs);
  }

  failed(error: unknown): void {
    this.#reject(error);
  }
}

function pagesOf(changes: readonly Change[]): { progress: Progress; commands: Known[] }[] {
  const pages = new Map<Progress, Known[]>();
  for (const { known, progress } of changes) {
    const commands = pages.get(progress);
    if (commands) commands.push(known);
    else pages.set(progress, [known]);
  }
  return Array.from(pages, ([progress, commands]) => ({ progress, commands }));
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

function progressOnStart(attempts: number, faults: number): Progress {
  return attempts === 1 && faults === 0 ? usual.started : { is: 'started', attempts, faults };
}

function progressAfter(progress: Progress, outcome: CommandOutcome, fault: boolean): Progress {
  if (outcome.outcome === 'accept') return usual.accepted;
  if (outcome.outcome === 'reject') return { is: 'decided', outcome };
  const attempts = 'attempts' in progress ? progress.attempts : 0;
  const faults = 'faults' in progress ? progress.faults : 0;
  return { is: 'released', attempts, faults: faults + (fault ? 1 : 0) };
}

function progressWhenSettled({ outcome }: Progress & { is: 'decided' }): Progress {
  return outcome.outcome === 'accept' ? usual.acceptSettled : { is: 'settled', outcome };
}

/** With the run that nobody heard the end of. */
function faultsOf(progress: Progress): number {
  const faults = 'faults' in progress ? progress.faults : 0;
  return progress.is === 'started' ? faults + 1 : faults;
}
