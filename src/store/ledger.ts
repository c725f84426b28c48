import { systemClock, type Clock } from '../clock.js';
import { AgentError } from '../errors.js';
import type { CommandOutcome, CommandReply, DeviceId } from '../model.js';
import { AgeClock, type Machine, type Stamp } from './age.js';
import {
  accepted,
  onFinish,
  onSettle,
  onStart,
  stateOf,
  stateOfNew,
  type CommandState,
  type Progress,
} from './command-progress.js';
import { kinds } from './kinds.js';
import { Batch, decode, Page } from './ledger-page.js';
import type { DurableLog } from './log/durable-log.js';
import type { PutOperation, Ref } from './log/record.js';
import type { Spool } from './spool.js';
import type { NewMessage } from './spooled-message.js';

/** What a reply to a command says of it. */
export interface CommandFacts extends DeviceId {
  readonly messageId?: string | undefined;
}

export interface FinishedCommand {
  /** Accept and reject are final; after a release the command is open again. */
  readonly outcome: CommandOutcome;
  /** The handler crashed, hung or has a bug. */
  readonly fault: boolean;
  /** That the reply is about. */
  readonly command: CommandFacts;
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

/** The hub keeps a command for two days at most; until then an unsettled one may come again. */
const longestLifeMs = 49 * 3600 * 1000;
/** How often ages are looked at. */
const pruneIntervalMs = 60_000;
const removesPerRecord = 1000;
const spareShare = 1 / 64;
/** So many settled commands do not wait for the next change. */
const mostSettled = 1000;
/** A damaged record costs what is in it; and beyond some, a larger one is hardly cheaper. */
const changesPerRecord = 32;

/**
 * What is known of commands, so that one with a recorded outcome never runs again: started → decided → settled.
 * Implements `CommandLedger` of `handlers/`.
 *
 * Commands that come to the same in the same turn of the event loop share a page, which is an item of the log, and
 * pages share records and syncs. What the log says last of a command counts, so that a page can go when the log has
 * something newer of all that are on it. That it goes, and that commands are settled, is written with the next changes.
 * When the power is cut before that, more is known than need be, and nothing that is not true.
 *
 * In memory, too, a command is a key and its page: thousands are remembered, and each object that outlives its
 * youth costs the garbage collector.
 */
export class Ledger {
  /** The page that says last where a command stands, though it may be on its way to the disk. */
  readonly #pageOf = new Map<string, Page>();
  /** Those on disk, the oldest first; also some that say nothing any more. */
  #pages: Page[] = [];
  readonly #age: AgeClock;
  readonly #clock: Clock;
  readonly #options: Pick<LedgerOptions, 'replyMessage'> & { retainMs: number; maximumCount: number };
  #prunedAtMs = -Infinity;
  /** What this turn of the event loop has asked for. */
  #batches: Batch[] = [];
  /** Commands of which the disk does not know yet that they are settled. */
  #settled: string[] = [];
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
    return this.#pageOf.size;
  }

  /** Where the command stands: at once, unless that is on its way to the disk. */
  received(key: string): CommandState | Promise<CommandState> {
    const page = this.#pageOf.get(key);
    if (page === undefined) return stateOfNew;
    if (page.state.is === 'writing') return afterwards(page.state, () => this.received(key));
    return stateOf(page.progress);
  }

  /**
   * Resolves when it is on disk that a handler begins; the same promise for many that ask together.
   * Errors: `io`, `try-again`: then it must not.
   */
  started(key: string, run: { handler: string; attempt: number }): Promise<unknown> {
    const before = this.#pageOf.get(key);
    if (before?.state.is === 'writing') return afterwards(before.state, () => this.started(key, run));
    return this.#put(key, before, onStart(before?.progress, run.attempt));
  }

  /** Resolves when the outcome is on disk, and the reply with it. Errors: `io`, `try-again`. */
  finished(key: string, result: FinishedCommand): Promise<unknown> {
    const before = this.#pageOf.get(key);
    if (before?.state.is === 'writing') return afterwards(before.state, () => this.finished(key, result));
    const { outcome, fault, reply, command } = result;
    const progress = onFinish(before?.progress, outcome, fault);
    const message = reply && this.#options.replyMessage(command, outcome, reply);
    if (!message) return this.#put(key, before, progress);
    return this.#put(key, before, progress, new Batch([this.spool.operation(message)])).then(() => {
      this.spool.arrived();
    });
  }

  /**
   * Accepts a command in the commit that keeps it for later, and returns what the kept item is called.
   * Errors: `io`, `try-again`.
   */
  async accepted(key: string, kept: PutOperation): Promise<Ref> {
    const before = this.#pageOf.get(key);
    if (before?.state.is === 'writing') {
      return await afterwards(before.state, () => this.accepted(key, kept));
    }
    const batch = new Batch([kept], { essential: false });
    const [ref] = await this.#put(key, before, accepted, batch);
    if (!ref) throw new AgentError('bug', 'a command was accepted twice');
    return ref;
  }

  /** The hub knows the outcome. Where nothing ran there is nothing to remember. */
  settled(key: string): void {
    this.#settled.push(key);
    if (this.#settled.length === mostSettled) this.#writeSoon();
  }

  /** Writes what would have gone along with the next change. */
  async close(): Promise<void> {
    await this.#write();
  }

  /** What is known, in the order in which it came. */
  *entries(): Generator<{ key: string } & CommandState> {
    for (const [key, { progress }] of this.#pageOf) yield { key, ...stateOf(progress) };
  }

  async #load(): Promise<void> {
    for await (const { ref, value } of this.log.items(kinds.command)) {
      const { keys, at, progress } = decode(value);
      const page = new Page(progress, { is: 'written', ref, at });
      for (const key of keys) {
        this.#leave(this.#pageOf.get(key));
        this.#pageOf.delete(key); // so that it comes last
        this.#pageOf.set(key, page);
        page.add(key);
      }
      this.#pages.push(page);
    }
  }

  /** Resolves when the change is on disk, to what was put alongside. `alone`: in a record of its own. */
  #put(key: string, before: Page | undefined, progress: Progress, alone?: Batch): Promise<readonly Ref[]> {
    if (this.#batches.length === 0) this.#writeSoon();
    if (alone) this.#batches.push(alone);
    const batch = alone ?? this.#openBatch();
    this.#pageOf.set(key, batch.add(key, before, progress));
    return batch.done;
  }

  #openBatch(): Batch {
    const last = this.#batches.at(-1);
    if (last?.alongside.length === 0 && last.size < changesPerRecord) return last;
    const batch = new Batch();
    this.#batches.push(batch);
    return batch;
  }

  #writeSoon(): void {
    setImmediate(() => void this.#write());
  }

  async #write(): Promise<void> {
    this.#prune();
    this.#addSettled();
    const batches = this.#batches;
    this.#batches = [];
    await Promise.all([...batches.map((batch) => this.#writeBatch(batch)), this.#removeOutdated()]);
  }

  #addSettled(): void {
    for (const key of this.#settled) {
      const before = this.#pageOf.get(key);
      if (before?.state.is !== 'written' || before.progress.is !== 'decided') continue;
      this.#pageOf.set(key, this.#openBatch().add(key, before, onSettle(before.progress)));
    }
    this.#settled = [];
  }

  /** Whoever waits for it hears how it went. */
  async #writeBatch(batch: Batch): Promise<void> {
    const at = this.#age.stamp();
    const puts = batch.pages.map((page) => page.encode(at));
    try {
      const refs = await this.log.commit([...puts, ...batch.alongside], batch.options);
      for (const [n, page] of batch.pages.entries()) this.#stored(page, refs[n], at);
      batch.stored(refs.slice(batch.pages.length));
    } catch (error) {
      for (const page of batch.pages) this.#notStored(page);
      batch.failed(error);
    }
  }

  #stored(page: Page, ref: Ref | undefined, at: Stamp): void {
    if (page.state.is === 'written' || !ref) return;
    for (const before of page.state.before) this.#leave(before);
    page.state = { is: 'written', ref, at };
    this.#pages.push(page);
  }

  #notStored({ keys, state }: Page): void {
    if (state.is === 'written') return;
    for (const [n, key] of keys.entries()) {
      const before = state.before[n];
      if (before) this.#pageOf.set(key, before);
      else this.#pageOf.delete(key);
    }
  }

  async #removeOutdated(): Promise<void> {
    const refs = this.#outdated.splice(0, removesPerRecord);
    await this.log.commit(refs.map((ref) => ({ remove: ref }))).catch(() => {
      this.#outdated.push(...refs); // with later changes, then
    });
  }

  /** Forgets what is too old, and what is too many. What is being worked on stays. */
  #prune(): void {
    const tooMany = this.#pageOf.size - this.#options.maximumCount;
    if (tooMany <= 0 && this.#clock.monotonic() - this.#prunedAtMs < pruneIntervalMs) return;
    this.#prunedAtMs = this.#clock.monotonic();
    this.#forgetOld();
    // A few more than needed, so that not every command makes it look for one to forget.
    if (tooMany > 0) this.#forgetSome(tooMany + Math.floor(this.#options.maximumCount * spareShare));
    this.#pages = this.#pages.filter(({ commands }) => commands > 0);
  }

  #forgetOld(): void {
    for (const page of this.#pages) {
      const ageMs = page.state.is === 'written' ? this.#age.ageMs(page.state.at) : 0;
      if (ageMs <= this.#options.retainMs) return;
      if (page.progress.is === 'settled' || ageMs > longestLifeMs) this.#forget(page, Infinity);
    }
  }

  #forgetSome(count: number): void {
    let left = count;
    for (const wanted of ['settled', 'decided', 'released'] as const) {
      for (const page of this.#pages) {
        if (left <= 0) return;
        if (page.progress.is === wanted) left -= this.#forget(page, left);
      }
    }
  }

  /** Forgets commands of which the page is the last word, so many at most. Returns how many. */
  #forget(page: Page, most: number): number {
    let forgotten = 0;
    for (const key of page.keys) {
      if (forgotten === most || page.commands === 0) break;
      if (this.#pageOf.get(key) !== page) continue;
      this.#pageOf.delete(key);
      this.#leave(page);
      forgotten++;
    }
    return forgotten;
  }

  /** One command less; what is the last word of none can go from the disk. */
  #leave(page: Page | undefined): void {
    if (!page || --page.commands > 0) return;
    if (page.state.is === 'written') this.#outdated.push(page.state.ref);
  }
}

/** Asks when the change of the same command that is on its way to the disk is there, or cannot be. */
function afterwards<T>({ over }: { over: Promise<unknown> }, ask: () => T | Promise<T>): Promise<T> {
  return over.then(ask, ask);
}
