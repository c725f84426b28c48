import { systemClock, type Clock } from '../clock.js';
import { AgentError } from '../errors.js';
import type { Command, CommandOutcome, CommandReply, DeviceId, Properties } from '../model.js';
import { AgeClock, type Machine, type Stamp } from './age.js';
import { kinds } from './kinds.js';
import type { Ledger, ReplyMessage } from './ledger.js';
import type { DurableLog } from './log/durable-log.js';
import type { Item, Operation, PutOperation, Ref } from './log/record.js';
import { Serial } from './log/serial.js';
import type { Spool } from './spool.js';

/** A command without its body, as the hub delivered it. */
export interface KeptCommand extends DeviceId {
  readonly messageId?: string | undefined;
  readonly correlationId?: string | undefined;
  readonly userId?: string | undefined;
  readonly contentType?: string | undefined;
  readonly contentEncoding?: string | undefined;
  readonly expiresAt?: number | undefined;
  readonly enqueuedAt?: number | undefined;
  readonly sequenceNumber?: number | undefined;
  readonly ack?: string | undefined;
  readonly deliveryCount: number;
  readonly properties: Properties;
}

/** A command of the inbox. */
export interface InboxEntry {
  /** What people call it by: ascending over the life of a store, in the order in which commands were taken. */
  readonly id: number;
  readonly command: KeptCommand;
  readonly bodyBytes: number;
  /** The handler that took it. */
  readonly handler: string;
  /** `unknown`: its handler had begun when the agent ended. `dead`: given up. */
  readonly state: 'waiting' | 'running' | 'unknown' | 'dead';
  /** Runs that were begun. */
  readonly attempts: number;
  /** Of which failed or ended in "later"; the one that nobody heard the end of is one of them. */
  readonly failures: number;
  /** Why it is not done, as far as is known. */
  readonly reason: string | undefined;
  /** Wall clock, milliseconds since the epoch. */
  readonly takenAt: number;
  /** Milliseconds since then. */
  readonly ageMs: number;
  /** Until it is to be tried again; 0: now. Infinity for a dead one. */
  readonly dueInMs: number;
  /** Since it was taken its sender's time for it has run out. */
  readonly isExpired: boolean;
}

export interface InboxOptions {
  readonly replyMessage: ReplyMessage;
  /** How long a command waits before it is tried again; doubles each time. Default 5 s, at most 10 min. */
  readonly retryDelay?: { readonly firstMs: number; readonly mostMs: number } | undefined;
  /** So many may wait; what comes then is not taken. Default 1 000. */
  readonly maximumWaiting?: number | undefined;
  /** So many dead ones are kept, the newest. Default 1 000. */
  readonly maximumDead?: number | undefined;
  readonly clock?: Clock | undefined;
  readonly machine?: Machine | undefined;
}

interface Limits {
  readonly retryDelay: { readonly firstMs: number; readonly mostMs: number };
  readonly maximumWaiting: number;
  readonly maximumDead: number;
}

export const inboxDefaults: Limits = {
  retryDelay: { firstMs: 5_000, mostMs: 600_000 },
  maximumWaiting: 1_000,
  maximumDead: 1_000,
};

/**
 * One command, as its item in the log says. The item: the length of this as JSON (4 bytes, little-endian), the JSON,
 * and the body. Every change writes the item anew and removes the one before, in one commit.
 */
interface Entry {
  /** What the log called the first of its items, which does not say it. */
  readonly id: number;
  readonly key: string;
  readonly command: KeptCommand;
  readonly bodyBytes: number;
  readonly handler: string;
  readonly takenAt: Stamp;
  /** How long its sender wanted it to live from then on. */
  readonly lifeMs: number | undefined;
  /** When it last changed: what the delay is counted from. */
  readonly at: Stamp;
  readonly progress: Progress;
}

interface Progress {
  readonly is: 'waiting' | 'running' | 'dead';
  readonly attempts: number;
  readonly failures: number;
  /** How often it was put back with a delay. */
  readonly delays: number;
  readonly reason?: string | undefined;
}

interface ChangeOptions {
  readonly alongside?: readonly Operation[];
  readonly fresh?: Partial<Pick<Entry, 'takenAt' | 'lifeMs'>>;
  readonly essential?: boolean;
}

interface Known {
  entry: Entry;
  ref: Ref;
  /** Begun by this process, and so not unknown. */
  isOurs: boolean;
  readonly serial: Serial;
}

/**
 * Commands that the hub was told are done, until they are: taken → running → done, put back, or dead. A command is
 * here in the same commit that accepts it in the ledger, and it goes, or dies, in the commit that queues the telemetry
 * about it. Implements `CommandInbox` of `handlers/`.
 */
export class Inbox {
  /** In the order in which they were taken. */
  readonly #known = new Map<number, Known>();
  /** Of the ledger, for those that are here. */
  readonly #keys = new Set<string>();
  readonly #listeners = new Set<() => void>();
  readonly #age: AgeClock;
  readonly #options: Limits & Pick<InboxOptions, 'replyMessage'>;
  #dead = 0;

  private constructor(
    private readonly log: DurableLog,
    private readonly spool: Spool,
    private readonly ledger: Ledger,
    { clock = systemClock, machine, ...options }: InboxOptions,
  ) {
    this.#age = new AgeClock(clock, machine);
    this.#options = {
      replyMessage: options.replyMessage,
      retryDelay: options.retryDelay ?? inboxDefaults.retryDelay,
      maximumWaiting: options.maximumWaiting ?? inboxDefaults.maximumWaiting,
      maximumDead: options.maximumDead ?? inboxDefaults.maximumDead,
    };
  }

  static async open(log: DurableLog, spool: Spool, ledger: Ledger, options: InboxOptions): Promise<Inbox> {
    const inbox = new Inbox(log, spool, ledger, options);
    await inbox.#load();
    return inbox;
  }

  /** How many wait or run, and how many are dead. */
  get size(): { readonly waiting: number; readonly dead: number } {
    return { waiting: this.#known.size - this.#dead, dead: this.#dead };
  }

  /** All that is here, the oldest first. */
  *entries(): Generator<InboxEntry> {
    for (const known of this.#known.values()) yield this.#described(known);
  }

  *waiting(): Generator<InboxEntry & { state: 'waiting' | 'unknown' }> {
    for (const entry of this.entries()) {
      const { state } = entry;
      if (state === 'waiting' || state === 'unknown') yield { ...entry, state };
    }
  }

  /** Errors: `io`, also when it turns out to be damaged, which removes it. */
  async body(id: number): Promise<Buffer> {
    const { ref, entry } = this.#of(id);
    const [item] = await this.log.read(kinds.inbox, ref.id - 1, { count: 1, bytes: 1 });
    if (item?.ref.id === ref.id) return decode(item).body;
    this.#forget(id);
    throw new AgentError('io', `the command ${entry.command.messageId ?? id} was damaged on disk`);
  }

  /**
   * Resolves when the command is on disk, and accepted.
   * Errors: `try-again` when the inbox or the disk is full; `io`.
   */
  async take(key: string, command: Command, handler: string): Promise<void> {
    if (this.#keys.has(key)) return;
    if (this.size.waiting >= this.#options.maximumWaiting) {
      throw new AgentError('try-again', `the inbox is full: ${this.size.waiting} commands`);
    }
    const { body, lockToken: _, ...kept } = command;
    const at = this.#age.stamp();
    const entry = {
      key,
      command: kept,
      bodyBytes: body.length,
      handler,
      takenAt: at,
      lifeMs: lifeOf(kept, at),
      at,
      progress: { is: 'waiting', attempts: 0, failures: 0, delays: 0 },
    } as const;
    this.#keys.add(key);
    try {
      const ref = await this.ledger.accepted(key, encode(entry, body));
      this.#known.set(ref.id, { entry: { ...entry, id: ref.id }, ref, isOurs: true, serial: new Serial() });
    } catch (error) {
      this.#keys.delete(key);
      throw error;
    }
    this.#tell();
  }

  /**
   * Resolves, with the whole command, when it is on disk that a run begins; undefined when it was dropped meanwhile.
   * Errors: `io`, `try-again`.
   */
  async began(id: number): Promise<(KeptCommand & { event: 'command'; body: Buffer }) | undefined> {
    if (!this.#known.has(id)) return undefined;
    const body = await this.body(id);
    const { command } = this.#of(id).entry;
    const running = ({ progress }: Entry): Progress => ({
      ...progress,
      is: 'running',
      attempts: progress.attempts + 1,
      failures: failuresOf(progress),
    });
    await this.#change(id, running, { essential: false });
    return { ...command, event: 'command', body };
  }

  /** Errors: `io`, `try-again`. */
  async postponed(
    id: number,
    { by, reason }: { by: 'attempt' | 'installation' | 'stopping'; reason?: string | undefined },
  ): Promise<void> {
    await this.#change(id, ({ progress }) => ({
      is: 'waiting',
      attempts: progress.attempts,
      failures: by === 'attempt' ? progress.failures + 1 : progress.failures,
      delays: by === 'stopping' ? progress.delays : progress.delays + 1,
      reason: by === 'stopping' ? progress.reason : reason,
    }));
  }

  /** Resolves when it is on disk, with what is to be told about it. Errors: `io`, `try-again`. */
  async finished(
    id: number,
    outcome: Exclude<CommandOutcome, { outcome: 'release' }>,
    reply: CommandReply | undefined,
  ): Promise<void> {
    const { command } = this.#of(id).entry;
    const message = reply && this.#options.replyMessage(command, outcome, reply);
    const alongside = message ? [this.spool.operation(message)] : [];
    if (outcome.outcome === 'accept') {
      await this.#remove(id, alongside);
    } else {
      const { reason } = outcome;
      const dead = ({ progress }: Entry): Progress => ({
        ...progress,
        is: 'dead',
        failures: failuresOf(progress),
        reason,
      });
      await this.#change(id, dead, { alongside });
      this.#dead++;
      await this.#limitDead();
    }
    if (message) this.spool.arrived();
  }

  /** A dead or waiting command is to be tried at once, with all its attempts before it and no matter how old it is. */
  async retry(id: number): Promise<void> {
    const known = this.#of(id);
    this.#mustRest(known);
    const wasDead = known.entry.progress.is === 'dead';
    const waiting = ({ progress: { attempts, reason } }: Entry): Progress => ({
      is: 'waiting',
      attempts,
      failures: 0,
      delays: 0,
      reason,
    });
    const fresh = { takenAt: this.#age.stamp(), lifeMs: undefined };
    await this.#change(id, waiting, { fresh });
    if (wasDead) this.#dead--;
    this.#tell();
  }

  /** Forgets a command that does not run. */
  async drop(id: number): Promise<void> {
    this.#mustRest(this.#of(id));
    await this.#remove(id, []);
  }

  /** Calls `listener` when something is to be run at once. */
  onArrival(listener: () => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  async #load(): Promise<void> {
    const found: Known[] = [];
    for await (const item of this.log.items(kinds.inbox)) {
      found.push({ entry: decode(item).entry, ref: item.ref, isOurs: false, serial: new Serial() });
    }
    // Every change moves a command to the end of the log; people and lanes go by when it was taken.
    found.sort((a, b) => a.entry.id - b.entry.id || a.ref.id - b.ref.id);
    for (const known of found) {
      const { id, key, progress } = known.entry;
      const older = this.#known.get(id);
      // Two of one command are there only if the record that replaced the first was damaged and is not.
      if (older) await this.log.commit([{ remove: older.ref }]);
      if (older?.entry.progress.is === 'dead') this.#dead--;
      if (progress.is === 'dead') this.#dead++;
      this.#known.set(id, known);
      this.#keys.add(key);
    }
  }

  #described({ entry, isOurs }: Known): InboxEntry {
    const { id, command, bodyBytes, handler, takenAt, lifeMs, progress } = entry;
    const ageMs = this.#age.ageMs(takenAt);
    return {
      id,
      command,
      bodyBytes,
      handler,
      state: progress.is === 'running' && !isOurs ? 'unknown' : progress.is,
      attempts: progress.attempts,
      failures: failuresOf(progress),
      reason: progress.reason,
      takenAt: takenAt.wallMs,
      ageMs,
      dueInMs: Math.max(0, this.#delayMs(progress) - this.#age.ageMs(entry.at)),
      isExpired: lifeMs !== undefined && ageMs > lifeMs,
    };
  }

  #delayMs({ is, delays }: Progress): number {
    const { firstMs, mostMs } = this.#options.retryDelay;
    if (is === 'dead') return Infinity;
    return is === 'running' || delays === 0 ? 0 : Math.min(mostMs, firstMs * 2 ** Math.min(delays - 1, 30));
  }

  #of(id: number): Known {
    const known = this.#known.get(id);
    if (!known) throw new AgentError('data', `the inbox has no command ${id}`);
    return known;
  }

  #mustRest({ entry: { progress, id }, isOurs }: Known): void {
    if (progress.is === 'running' && isOurs)
      throw new AgentError('try-again', `the command ${id} is running`);
  }

  async #change(
    id: number,
    change: (entry: Entry) => Progress,
    { alongside = [], fresh, essential = true }: ChangeOptions = {},
  ): Promise<void> {
    const known = this.#of(id);
    await this.#alone(known, async () => {
      const body = await this.body(id);
      const entry = { ...known.entry, ...fresh, at: this.#age.stamp(), progress: change(known.entry) };
      const operations = [encode(entry, body), ...alongside, { remove: known.ref }];
      const [ref] = await this.log.commit(operations, { essential });
      if (!ref) throw new AgentError('bug', 'the log did not say what a command is called');
      Object.assign(known, { entry, ref, isOurs: true });
    });
  }

  async #remove(id: number, alongside: readonly Operation[]): Promise<void> {
    const known = this.#of(id);
    await this.#alone(known, async () => {
      await this.log.commit([...alongside, { remove: known.ref }], { essential: true });
    });
    this.#forget(id);
  }

  async #alone(known: Known, work: () => Promise<void>): Promise<void> {
    try {
      await known.serial.run(work);
    } catch (error) {
      // What came of a run could not be recorded: that is as if the process had ended before.
      known.isOurs = false;
      throw error;
    }
  }

  #forget(id: number): void {
    const known = this.#known.get(id);
    if (!known) return;
    if (known.entry.progress.is === 'dead') this.#dead--;
    this.#keys.delete(known.entry.key);
    this.#known.delete(id);
  }

  async #limitDead(): Promise<void> {
    while (this.#dead > this.#options.maximumDead) {
      const oldest = [...this.#known.values()].find(({ entry }) => entry.progress.is === 'dead');
      if (!oldest) return;
      await this.#remove(oldest.entry.id, []);
    }
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }
}

/** With the run that nobody heard the end of. */
function failuresOf({ is, failures }: Progress): number {
  return is === 'running' ? failures + 1 : failures;
}

/** By the hub's two times where it gave both: the clock of a device may be wrong. */
function lifeOf({ expiresAt, enqueuedAt }: KeptCommand, at: Stamp): number | undefined {
  return expiresAt === undefined ? undefined : Math.max(0, expiresAt - (enqueuedAt ?? at.wallMs));
}

function encode(entry: Omit<Entry, 'id'> & { id?: number }, body: Buffer): PutOperation {
  const json = Buffer.from(JSON.stringify(entry));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(json.length);
  return { put: { kind: kinds.inbox, value: [length, json, body] } };
}

function decode({ ref, value }: Item): { entry: Entry; body: Buffer } {
  const end = 4 + value.readUInt32LE(0);
  const stored = JSON.parse(value.toString('utf8', 4, end)) as Omit<Entry, 'id'> & { id?: number };
  // Copied: the bytes around it may be a whole segment's, which a command that runs for hours must not hold.
  return { entry: { ...stored, id: stored.id ?? ref.id }, body: Buffer.from(value.subarray(end)) };
}
