import { systemClock, type Clock } from '../clock.js';
import { AgentError } from '../errors.js';
import type { CommandOutcome, CommandReply, DeviceId } from '../model.js';
import { AgeClock, type Machine, type Stamp } from './age.js';
import { kinds } from './kinds.js';
import type { DurableLog } from './log/durable-log.js';
import type { Operation, PutOperation, Ref } from './log/record.js';
import { Serial } from './log/serial.js';
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

interface Known {
  entry: Entry;
  /** Of what the log holds; undefined when it holds nothing. */
  ref: Ref | undefined;
  readonly serial: Serial;
}

/** The hub keeps a command for two days at most; until then an unsettled one may come again. */
const longestLifeMs = 49 * 3600 * 1000;
/** How often ages are looked at. */
const pruneIntervalMs = 60_000;
const prunedPerCommit = 1000;
const spareShare = 1 / 64;

/**
 * What is known of commands, so that one with a recorded outcome never runs again: received → started → decided →
 * settled, each in one commit that replaces the one before. Implements `CommandLedger` of `handlers/`.
 */
export class Ledger {
  /** The one that changed longest ago first. */
  readonly #known = new Map<string, Known>();
  readonly #age: AgeClock;
  readonly #clock: Clock;
  readonly #options: Pick<LedgerOptions, 'replyMessage'> & { retainMs: number; maximumCount: number };
  #prunedAtMs = -Infinity;

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
    if (known) return known.serial.run(() => Promise.resolve(stateOf(known.entry.progress)));
    const command = { deviceId, moduleId, messageId };
    const progress = { is: 'received', attempts: 0, faults: 0 } as const;
    const entry = { key, command, at: this.#age.stamp(), progress };
    this.#known.set(key, { entry, ref: undefined, serial: new Serial() });
    await this.#prune();
    return stateOf(progress);
  }

  /** Resolves when it is on disk that a handler begins. Errors: `io`, `try-again`: then it must not. */
  async started(key: string, { handler, attempt }: { handler: string; attempt: number }): Promise<void> {
    await this.#change(key, (entry) => {
      const faults = faultsOf(entry.progress);
      return { ...entry, handler, progress: { is: 'started', attempts: attempt, faults } };
    });
  }

  /** Resolves when the outcome is on disk, and the reply with it. Errors: `io`, `try-again`. */
  async finished(key: string, { outcome, fault, reply }: FinishedCommand): Promise<void> {
    const command = this.#known.get(key)?.entry.command;
    const message =
      command && reply !== undefined ? this.#options.replyMessage(command, outcome, reply) : undefined;
    await this.#change(
      key,
      (entry) => ({ ...entry, progress: progressAfter(entry.progress, outcome, fault) }),
      message ? [this.spool.operation(message)] : [],
    );
    if (message) this.spool.arrived();
  }

  /**
   * Accepts a command in the commit that keeps it for later, and returns what the kept item is called.
   * Errors: `io`, `try-again`.
   */
  async accepted(key: string, kept: PutOperation): Promise<Ref> {
    const outcome = { outcome: 'accept' } as const;
    const decide = (entry: Entry): Entry => ({ ...entry, progress: { is: 'decided', outcome } });
    const [ref] = await this.#change(key, decide, [kept], { essential: false });
    if (!ref) throw new AgentError('bug', 'a command was accepted twice');
    return ref;
  }

  /** The hub knows the outcome. Where nothing ran there is nothing to remember. */
  async settled(key: string): Promise<void> {
    const known = this.#known.get(key);
    if (!known) return;
    if (known.entry.progress.is === 'received') this.#known.delete(key);
    else await this.#settle(key);
  }

  async #settle(key: string): Promise<void> {
    await this.#change(key, (entry) => {
      if (entry.progress.is !== 'decided') return entry;
      return { ...entry, progress: { is: 'settled', outcome: entry.progress.outcome } };
    });
  }

  /** What is known, the oldest change first. */
  *entries(): Generator<{ key: string; handler: string | undefined } & CommandFacts & CommandState> {
    for (const { entry } of this.#known.values()) {
      yield { key: entry.key, handler: entry.handler, ...entry.command, ...stateOf(entry.progress) };
    }
  }

  async #load(): Promise<void> {
    for await (const { ref, value } of this.log.items(kinds.command)) {
      const entry = JSON.parse(value.toString()) as Entry;
      const older = this.#known.get(entry.key);
      // Two of one command are there only if the record that replaced the first was damaged and is not.
      if (older?.ref) await this.log.commit([{ remove: older.ref }]);
      this.#known.delete(entry.key);
      this.#known.set(entry.key, { entry, ref, serial: new Serial() });
    }
  }

  /** Returns what was put alongside. */
  #change(
    key: string,
    change: (entry: Entry) => Entry,
    alongside: readonly Operation[] = [],
    options: CommitOptions = { essential: true },
  ): Promise<readonly Ref[]> {
    const known = this.#known.get(key);
    if (!known) throw new AgentError('bug', 'the ledger was told of a command that it never received');
    return known.serial.run(async () => {
      const changed = change(known.entry);
      if (changed === known.entry) return [];
      const entry = { ...changed, at: this.#age.stamp() };
      const put = { kind: kinds.command, value: [Buffer.from(JSON.stringify(entry))] };
      const old = known.ref ? [{ remove: known.ref }] : [];
      const [ref, ...others] = await this.log.commit([{ put }, ...alongside, ...old], options);
      known.entry = entry;
      known.ref = ref;
      this.#known.delete(key);
      this.#known.set(key, known);
      return others;
    });
  }

  /** Forgets what is too old, and what is too many. What is being worked on stays. */
  async #prune(): Promise<void> {
    const tooMany = this.#known.size - this.#options.maximumCount;
    if (tooMany <= 0 && this.#clock.monotonic() - this.#prunedAtMs < pruneIntervalMs) return;
    this.#prunedAtMs = this.#clock.monotonic();
    // A few more than needed, so that not every command waits for one to be forgotten.
    const spare = Math.floor(this.#options.maximumCount * spareShare);
    const forgotten = [...this.#tooOld(), ...this.#superfluous(tooMany <= 0 ? 0 : tooMany + spare)];
    const refs: Ref[] = [];
    for (const [key, { ref }] of forgotten) {
      this.#known.delete(key);
      if (ref) refs.push(ref);
    }
    for (let i = 0; i < refs.length; i += prunedPerCommit) {
      await this.log.commit(refs.slice(i, i + prunedPerCommit).map((ref) => ({ remove: ref })));
    }
  }

  *#tooOld(): Generator<[string, Known]> {
    for (const [key, known] of this.#known) {
      const ageMs = this.#age.ageMs(known.entry.at);
      if (ageMs <= this.#options.retainMs) return;
      const isSettled = known.entry.progress.is === 'settled';
      if (isSettled || ageMs > longestLifeMs) yield [key, known];
    }
  }

  *#superfluous(count: number): Generator<[string, Known]> {
    let left = count;
    for (const wanted of ['settled', 'decided', 'released'] as const) {
      for (const [key, known] of this.#known) {
        if (left <= 0) return;
        if (known.entry.progress.is !== wanted) continue;
        left--;
        yield [key, known];
      }
    }
  }
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
