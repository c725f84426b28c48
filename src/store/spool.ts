import { systemClock, type Clock } from '../clock.js';
import { AgentError } from '../errors.js';
import { AgeClock, type Machine } from './age.js';
import { decodeDeadLetter, putDeadLetter, type DeadLetter, type Refusal } from './dead-letter.js';
import { DropAccount, type Drops } from './drop-account.js';
import { kinds, priorities, type Priority } from './kinds.js';
import { FreshReader } from './fresh-reader.js';
import type { DurableLog } from './log/durable-log.js';
import { recordBytes, type PutOperation, type Ref, type RemoveOperation } from './log/record.js';
import { Serial } from './log/serial.js';
import { OwedCommits } from './owed-commits.js';
import {
  decodeMessage,
  kindOf,
  putMessage,
  type NewMessage,
  type SpooledMessage,
} from './spooled-message.js';

export interface SpoolOptions {
  /** What waiting messages may take on disk, bytes. Default 256 MiB. */
  maximumBytes?: number | undefined;
  /** How many may wait. Default: as many as fit. */
  maximumCount?: number | undefined;
  /** Older messages are dropped. Default 7 days. */
  maximumAgeMs?: number | undefined;
  /**
   * What happens to messages for which there is no room. `reject` (default): they are refused with `try-again`;
   * `drop_oldest`: they push out the oldest of the last priority; `drop_newest`: they are dropped.
   */
  whenFull?: 'reject' | 'drop_oldest' | 'drop_newest' | undefined;
  /** What dead letters may take on disk, bytes; the oldest go first. Default 16 MiB. */
  maximumDeadLetterBytes?: number | undefined;
  clock?: Clock | undefined;
  /** Default: this one. For tests. */
  machine?: Machine | undefined;
}

export type SpoolLimits = Omit<SpoolOptions, 'clock' | 'machine'>;

interface Limits {
  readonly maximumBytes: number;
  readonly maximumCount: number;
  readonly maximumAgeMs: number;
  readonly whenFull: 'reject' | 'drop_oldest' | 'drop_newest';
  readonly maximumDeadLetterBytes: number;
}

export const spoolDefaults: Limits = {
  maximumBytes: 256 * 1024 * 1024,
  maximumCount: Infinity,
  maximumAgeMs: 7 * 24 * 3600 * 1000,
  whenFull: 'reject',
  maximumDeadLetterBytes: 16 * 1024 * 1024,
};

function limitsOf(limits: SpoolLimits): Limits {
  return {
    maximumBytes: limits.maximumBytes ?? spoolDefaults.maximumBytes,
    maximumCount: limits.maximumCount ?? spoolDefaults.maximumCount,
    maximumAgeMs: limits.maximumAgeMs ?? spoolDefaults.maximumAgeMs,
    whenFull: limits.whenFull ?? spoolDefaults.whenFull,
    maximumDeadLetterBytes: limits.maximumDeadLetterBytes ?? spoolDefaults.maximumDeadLetterBytes,
  };
}

/** How far a reader has come, in each priority. Plain data; only good for the spool that gave it. */
export type Cursor = readonly number[];

export interface Batch {
  readonly messages: readonly SpooledMessage[];
  /** For the next batch: what comes after these. */
  readonly cursor: Cursor;
}

export interface BatchLimit {
  readonly count: number;
  /** Of what the messages take on disk; the first is given whatever its size. Default 1 MiB. */
  readonly bytes?: number;
}

/** What became of the messages that were appended. */
export interface Appended {
  readonly stored: number;
  /** Only with `drop_newest`. */
  readonly dropped: number;
  /** What the log calls those that were stored, in their order. */
  readonly ids: readonly number[];
}

export interface SpoolStats {
  readonly waiting: Amount;
  readonly byPriority: Readonly<Record<Priority, Amount>>;
  readonly deadLetters: Amount;
  /** Since the store was made. */
  readonly dropped: Drops;
}

export interface Amount {
  readonly count: number;
  /** On disk. */
  readonly bytes: number;
}

/** Messages on their way into the log. */
interface Arriving {
  readonly puts: PutOperation[];
  /** Of each, on disk. */
  readonly sizes: number[];
  /** Of all. */
  bytes: number;
}

/** Dropping makes room for a little more than is asked for, so that it is not done for each message. */
const roomFactor = 1 / 64;
/** How often messages are looked at for their age while nobody reads them. */
const expiryIntervalMs = 10_000;
const defaultBatchBytes = 1024 * 1024;
const removalsPerRecord = 1000;

/**
 * Telemetry that waits for the hub: appended once it is on disk, handed out in order and removed when the hub has it.
 * What is handed out stays until it is removed or set aside; a reader that starts over, with `start` as its cursor,
 * gets it again.
 */
export class Spool {
  /** The cursor of who has read nothing yet. */
  static readonly start: Cursor = priorities.map(() => 0);

  #limits: Limits;
  readonly #clock: Clock;
  readonly #age: AgeClock;
  readonly #owed: OwedCommits;
  readonly #admitting = new Serial();
  readonly #reader: FreshReader;
  /** Being written. */
  #promised = { count: 0, bytes: 0 };
  #expiredAtMs: number;
  #arrivals = 0;
  #onArrival = new Set<() => void>();

  private constructor(
    private readonly log: DurableLog,
    private readonly account: DropAccount,
    { clock = systemClock, machine, ...limits }: SpoolOptions,
  ) {
    this.#clock = clock;
    this.#age = new AgeClock(clock, machine);
    this.#owed = new OwedCommits(log);
    this.#expiredAtMs = -Infinity;
    this.#limits = limitsOf(limits);
    this.#reader = new FreshReader(log);
  }

  /** Other limits from now on. What is there already is not dropped before something new comes. */
  limit(limits: SpoolLimits): void {
    this.#limits = limitsOf(limits);
  }

  /** Calls the listener when something is about to be written: what it asks for shares the write, and its sync. */
  beforeWrite(listener: () => void): void {
    this.log.beforeWrite(listener);
  }

  /** What waiting messages may take on disk. */
  get maximumBytes(): number {
    return this.#limits.maximumBytes;
  }

  static async open(log: DurableLog, options: SpoolOptions = {}): Promise<Spool> {
    return new Spool(log, await DropAccount.open(log), options);
  }

  /**
   * Resolves when the messages are on disk, in this order, and behind those of earlier calls.
   * Errors: `try-again` when the spool or the disk is full, with none of them stored, or only the first ones if the
   * disk became full meanwhile; `data` when one is too large; `io`.
   */
  append(messages: readonly NewMessage[]): Promise<Appended> {
    let arriving: Arriving;
    try {
      arriving = this.#arriving(messages);
    } catch (error) {
      if (!(error instanceof AgentError)) throw error;
      return Promise.reject(error);
    }
    return this.#admitsAtOnce(arriving) ? this.#store(arriving) : this.#storeInTurn(arriving);
  }

  #arriving(messages: readonly NewMessage[]): Arriving {
    const stamp = this.#age.stamp();
    const arriving: Arriving = { puts: [], sizes: [], bytes: 0 };
    for (const message of messages) {
      checkIds(message);
      const put = putMessage(message, stamp);
      const size = recordBytes([put]);
      if (size > this.log.longestValue) throw tooLarge(size, this.log.longestValue);
      arriving.puts.push(put);
      arriving.sizes.push(size);
      arriving.bytes += size;
    }
    const { maximumBytes, maximumCount } = this.#limits;
    if (arriving.bytes > maximumBytes) throw tooLarge(arriving.bytes, maximumBytes);
    if (messages.length > maximumCount) {
      throw new AgentError('data', `${messages.length} messages at once; the spool is for ${maximumCount}`);
    }
    return arriving;
  }

  /** There is room, nobody waits for any, and nothing else is to be done first: so it is nearly always. */
  #admitsAtOnce({ puts, bytes }: Arriving): boolean {
    return this.#admitting.isIdle && !this.#isExpiryDue() && this.#fits(bytes, puts.length);
  }

  async #storeInTurn({ puts, sizes }: Arriving): Promise<Appended> {
    const { stored } = await this.#admitting.run(async () => {
      if (this.#isExpiryDue()) await this.#dropExpired();
      const count = await this.#makeRoom(sizes);
      const fitting = sizes.slice(0, count);
      // Begun here, so that calls keep their order, and awaited outside, so that they share a write.
      return { stored: this.#store({ puts: puts.slice(0, count), sizes: fitting, bytes: sumOf(fitting) }) };
    });
    const { ids } = await stored;
    return { stored: ids.length, dropped: puts.length - ids.length, ids };
  }

  /**
   * A message as an operation for somebody else's commit, who then calls `arrived`. It may exceed the limits: what
   * must be stored together with it matters more.
   */
  operation(message: NewMessage): PutOperation {
    checkIds(message);
    return putMessage(message, this.#age.stamp());
  }

  /** Something was stored: whoever waits for it is told. */
  arrived(): void {
    this.#arrivals++;
    for (const wake of this.#onArrival) wake();
    this.#onArrival.clear();
  }

  /** What comes after the cursor: priorities in their order, oldest first. Empty when there is nothing. Errors: `io`. */
  async read(after: Cursor, { count, bytes = defaultBatchBytes }: BatchLimit): Promise<Batch> {
    await this.#owed.settle();
    const messages: SpooledMessage[] = [];
    const expired: Ref[] = [];
    const cursor = [...after];
    const ageMs = this.#age.ages();
    let bytesLeft = bytes;
    for (const priority of priorities) {
      while (messages.length < count && (messages.length === 0 || bytesLeft > 0)) {
        const limit = { count: count - messages.length, bytes: bytesLeft };
        const after = cursor[priority] ?? 0;
        const found = await this.#reader.read(priority, after, limit);
        if (found.length === 0) break;
        for (const message of found) {
          const { ref } = message;
          cursor[priority] = ref.id;
          if (this.#owed.has(ref) || !this.log.isAlive(ref)) continue;
          if (ageMs(message.storedAt) > this.#limits.maximumAgeMs) expired.push(ref);
          else messages.push(message);
          bytesLeft -= ref.bytes;
        }
      }
    }
    // What cannot be dropped now is found expired again at the next look.
    if (expired.length > 0) await this.account.remove('expired', expired).catch(() => undefined);
    return { messages, cursor };
  }

  /** As `read`, but waits until there is something. Rejects with the signal's reason when it is aborted first. */
  async next(after: Cursor, limit: BatchLimit, signal: AbortSignal): Promise<Batch> {
    for (;;) {
      signal.throwIfAborted();
      const arrivals = this.#arrivals;
      const batch = await this.read(after, limit);
      if (batch.messages.length > 0) return batch;
      if (arrivals === this.#arrivals) await this.#arrival(signal);
    }
  }

  /**
   * The hub has them. Resolves when that is on disk. When it cannot be recorded (`io`, `try-again`) they are not
   * handed out again all the same, and it is tried again later.
   */
  async remove(messages: readonly Pick<SpooledMessage, 'ref'>[]): Promise<void> {
    const records: RemoveOperation[][] = [];
    for (let i = 0; i < messages.length; i += removalsPerRecord) {
      records.push(messages.slice(i, i + removalsPerRecord).map(({ ref }) => ({ remove: ref })));
    }
    await this.#owed.commit(records);
  }

  /** The hub refused it for good: it becomes a dead letter. Resolves and rejects as `remove` does. */
  async setAside(message: SpooledMessage, refusal: Refusal): Promise<void> {
    const letter = putDeadLetter(message, refusal, this.#age.stamp());
    await this.#owed.commit([[letter, { remove: message.ref }]]);
    await this.#limitDeadLetters();
  }

  /** All that waits, in the order in which it would be handed out. */
  async *waiting(): AsyncGenerator<SpooledMessage> {
    for (const priority of priorities) {
      for await (const { ref, value } of this.log.items(kindOf(priority))) {
        if (!this.#owed.has(ref)) yield decodeMessage(ref, value);
      }
    }
  }

  /** Oldest first. */
  async *deadLetters(): AsyncGenerator<DeadLetter> {
    for await (const { ref, value } of this.log.items(kinds.deadLetter)) yield decodeDeadLetter(ref, value);
  }

  /** The message or the dead letter that the log calls `id`. Errors: `io`. */
  async find(id: number): Promise<SpooledMessage | DeadLetter | undefined> {
    for (const kind of [kinds.deadLetter, ...priorities.map(kindOf)]) {
      const [item] = await this.log.read(kind, id - 1, { count: 1, bytes: 1 });
      if (item?.ref.id !== id || this.#owed.has(item.ref)) continue;
      return kind === kinds.deadLetter
        ? decodeDeadLetter(item.ref, item.value)
        : decodeMessage(item.ref, item.value);
    }
    return undefined;
  }

  /** Sends a dead letter once more, as if it were new. */
  async requeue({ ref, message }: DeadLetter): Promise<void> {
    await this.log.commit([putMessage(message, this.#age.stamp()), { remove: ref }]);
    this.arrived();
  }

  async discard({ ref }: DeadLetter): Promise<void> {
    await this.log.commit([{ remove: ref }]);
  }

  stats(): SpoolStats {
    const amountOf = (kind: number): Amount => ({ count: this.log.count(kind), bytes: this.log.bytes(kind) });
    const amounts = priorities.map((priority) => [priority, amountOf(kindOf(priority))] as const);
    return {
      waiting: this.#waitingAmount(),
      byPriority: Object.fromEntries(amounts) as Record<Priority, Amount>,
      deadLetters: amountOf(kinds.deadLetter),
      dropped: this.account.drops,
    };
  }

  /** How long the oldest message has waited, milliseconds; undefined when none waits. Errors: `io`. */
  async oldestAgeMs(): Promise<number | undefined> {
    const ages: number[] = [];
    for (const priority of priorities) {
      for (const { ref, value } of await this.log.read(kindOf(priority), 0, { count: 1, bytes: 1 })) {
        ages.push(this.#age.ageMs(decodeMessage(ref, value).storedAt));
      }
    }
    return ages.length === 0 ? undefined : Math.max(...ages);
  }

  #waitingAmount(): Amount {
    let count = 0;
    let bytes = 0;
    for (const priority of priorities) {
      count += this.log.count(kindOf(priority));
      bytes += this.log.bytes(kindOf(priority));
    }
    return { count, bytes };
  }

  #fits(bytes: number, count: number): boolean {
    const waiting = this.#waitingAmount();
    return (
      waiting.bytes + this.#promised.bytes + bytes <= this.#limits.maximumBytes &&
      waiting.count + this.#promised.count + count <= this.#limits.maximumCount
    );
  }

  /** How many of the messages may be stored, after making room as the policy says. Throws `try-again`. */
  async #makeRoom(sizes: readonly number[]): Promise<number> {
    const bytes = sumOf(sizes);
    if (this.#fits(bytes, sizes.length)) return sizes.length;
    await this.#dropExpired();
    if (this.#fits(bytes, sizes.length)) return sizes.length;
    switch (this.#limits.whenFull) {
      case 'reject':
        throw this.#full();
      case 'drop_oldest':
        while (!this.#fits(bytes, sizes.length)) await this.#dropOldest(bytes, sizes.length);
        return sizes.length;
      case 'drop_newest': {
        let fitting = 0;
        let taken = 0;
        for (const size of sizes) {
          if (!this.#fits(taken + size, fitting + 1)) break;
          taken += size;
          fitting++;
        }
        await this.account.count('newest', sizes.length - fitting, bytes - taken);
        return fitting;
      }
    }
  }

  /** Drops some of the oldest of the last priority that has any. */
  async #dropOldest(bytes: number, count: number): Promise<void> {
    const { maximumBytes, maximumCount } = this.#limits;
    const extraCount = maximumCount === Infinity ? 100 : Math.floor(maximumCount * roomFactor);
    const limit = {
      count: count + extraCount,
      bytes: Math.min(bytes + maximumBytes * roomFactor, 4 * defaultBatchBytes),
    };
    for (const priority of priorities.toReversed()) {
      const items = await this.log.read(kindOf(priority), 0, limit);
      if (items.length === 0) continue;
      await this.account.remove(
        'oldest',
        items.map(({ ref }) => ref),
      );
      return;
    }
    // All there is are messages that are being written right now.
    throw this.#full();
  }

  #full(): AgentError {
    const { count, bytes } = this.#waitingAmount();
    return new AgentError('try-again', `the spool is full: ${count} messages, ${bytes} bytes`, {
      hint: 'it empties as soon as the hub takes messages; its limits are max_size and when_full under [spool]',
    });
  }

  async #store({ puts, bytes }: Arriving): Promise<Appended> {
    if (puts.length === 0) return { stored: 0, dropped: 0, ids: [] };
    this.#promised.count += puts.length;
    this.#promised.bytes += bytes;
    try {
      const refs = await this.log.commitEach(puts);
      this.arrived();
      return { stored: refs.length, dropped: 0, ids: refs.map(({ id }) => id) };
    } finally {
      this.#promised.count -= puts.length;
      this.#promised.bytes -= bytes;
    }
  }

  #isExpiryDue(): boolean {
    return this.#clock.monotonic() - this.#expiredAtMs >= expiryIntervalMs;
  }

  /** As far as the disk lets it: what cannot be read or dropped now is found expired again at the next look. */
  async #dropExpired(): Promise<void> {
    this.#expiredAtMs = this.#clock.monotonic();
    for (const priority of priorities) await this.#dropExpiredOf(priority).catch(() => undefined);
  }

  async #dropExpiredOf(priority: Priority): Promise<void> {
    for (;;) {
      const items = await this.log.read(kindOf(priority), 0, { count: 100, bytes: defaultBatchBytes });
      const ageMs = this.#age.ages();
      const expired = items
        .map(({ ref, value }) => decodeMessage(ref, value))
        .filter(({ storedAt }) => ageMs(storedAt) > this.#limits.maximumAgeMs);
      if (expired.length > 0) {
        await this.account.remove(
          'expired',
          expired.map(({ ref }) => ref),
        );
      }
      if (expired.length < items.length || items.length === 0) return;
    }
  }

  async #limitDeadLetters(): Promise<void> {
    while (this.log.bytes(kinds.deadLetter) > this.#limits.maximumDeadLetterBytes) {
      const oldest = await this.log.read(kinds.deadLetter, 0, { count: 1, bytes: 1 });
      if (oldest.length === 0) return;
      await this.account.remove(
        'deadLetters',
        oldest.map(({ ref }) => ref),
      );
    }
  }

  #arrival(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const onAbort = (): void => {
        this.#onArrival.delete(wake);
        reject(signal.reason as Error);
      };
      const wake = (): void => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#onArrival.add(wake);
    });
  }
}

/** The header of a stored message counts their bytes in 16 bits; the hub takes 128. */
function checkIds({ messageId, deviceId, moduleId = '' }: NewMessage): void {
  for (const id of [messageId, deviceId, moduleId]) {
    // At most three bytes for each of its units.
    if (id.length > 1024 / 3 && Buffer.byteLength(id) > 1024) {
      throw new AgentError(
        'data',
        `an id of ${Buffer.byteLength(id)} bytes is too long: "${id.slice(0, 40)}…"`,
      );
    }
  }
}

function tooLarge(bytes: number, limit: number): AgentError {
  return new AgentError(
    'data',
    `${bytes} bytes of messages are more than the spool can take; ${limit} are the limit`,
  );
}

function sumOf(sizes: readonly number[]): number {
  return sizes.reduce((sum, size) => sum + size, 0);
}
