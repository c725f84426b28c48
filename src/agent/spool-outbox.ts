import { hubMessage } from '../amqp/errors.js';
import type { Clock } from '../clock.js';
import type { Log } from '../log.js';
import type { SendOutcome } from '../model.js';
import { anyOf } from '../signals.js';
import { Spool, type Batch } from '../store/spool.js';
import type { SpooledMessage } from '../store/spooled-message.js';
import { sharesWith, type Fellows, type Outbox, type OutboxEntry } from './telemetry.js';
import { pauseBounds, verdictOn, type Pause, type Verdict } from './verdict.js';

interface SpoolEntry extends OutboxEntry {
  readonly message: SpooledMessage;
  /** Place in the order of reading. */
  readonly place: number;
  answers: number;
}

/**
 * Whether telemetry flows. After a pause one message goes ahead alone, and the others follow when the hub takes it.
 */
export type Flow =
  | { flow: 'open' }
  | { flow: 'paused'; why: Pause; condition: string; until: number }
  | { flow: 'probing'; why: Pause; condition: string; isOut: boolean };

/** What the hub said of a message in the end: it has it, or will never take it, and then it is a dead letter. */
export type Fate = Extract<SendOutcome, { outcome: 'accepted' | 'rejected' }>;

export interface SpoolOutboxOptions {
  clock: Clock;
  log: Log;
  /** What an empty spool means: more may come (default), or that is all. */
  whenEmpty?: 'wait' | 'end';
  /** Told what each answer of the hub means, and of how many bytes the message was. */
  onVerdict?: (verdict: Verdict, bytes: number) => void;
  /** Default: `Math.random`. For tests. */
  random?: () => number;
}

/** So much is read at once, and again when there are so few left. */
const readAhead = { count: 2_000, bytes: 1024 * 1024 };
const readAgainAt = 1_000;
/**
 * So many removals are worth a write and a sync of their own. Fewer go along with the next message that is stored,
 * and wait so long for it: at a hundred messages a second that halves the work of the disk.
 */
const removedTogether = 64;
const removedWithinMs = 100;
/** Of removals that the disk has not confirmed; with more, nothing is sent. */
const mostUnrecorded = 10_000;
const somethingNew = new Error('there is something new to do');

/**
 * The spool as the pump sees it. Messages leave the spool when the hub has accepted them, become dead letters when
 * it will never take them, and wait when it wants a pause.
 */
export class SpoolOutbox implements Outbox<SpoolEntry> {
  readonly #spool: Spool;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #random: () => number;
  readonly #onVerdict: (verdict: Verdict, bytes: number) => void;
  #cursor = Spool.start;
  #nextPlace = 0;
  /** Read, in the order of reading; those before `#nextReady` were taken. */
  #ready: SpoolEntry[] = [];
  #nextReady = 0;
  /** Whether the last reading was cut off by its limits, so that there is more. */
  #hasMore = false;
  /** A reading that began before it was needed. */
  #reading: Promise<void> | undefined;
  /** Taken, and neither answered nor put back. */
  #out = 0;
  #flow: Flow = { flow: 'open' };
  readonly #pauses: Record<Pause, number> = { trouble: 0, throttled: 0, quota: 0, identity: 0 };
  /** Accepted; their removal is not on its way to the disk yet. */
  #removing: SpooledMessage[] = [];
  #removeTimer: NodeJS.Timeout | undefined;
  /** Removals that are not on disk yet: so many messages at most are sent again after the power was cut. */
  #unrecorded = 0;
  readonly #recording = new Set<Promise<void>>();
  /** Who waits for what becomes of a message, by its id. */
  readonly #watchers = new Map<number, (fate: Fate) => void>();
  /** Aborted, and replaced, when there may be something new for `wait` to do. */
  #news = new AbortController();
  readonly #whenEmpty: 'wait' | 'end';

  constructor(spool: Spool, { clock, log, whenEmpty = 'wait', ...options }: SpoolOutboxOptions) {
    this.#spool = spool;
    this.#clock = clock;
    this.#log = log;
    this.#whenEmpty = whenEmpty;
    this.#random = options.random ?? Math.random;
    this.#onVerdict = options.onVerdict ?? (() => undefined);
    spool.beforeWrite(this.#recordRemovals);
  }

  get flow(): Flow {
    return this.#flow;
  }

  /** Resolves when what the hub has answered so far is recorded, or has failed to be and was logged. */
  async recorded(): Promise<void> {
    this.#recordRemovals();
    while (this.#recording.size > 0) await Promise.all(this.#recording);
  }

  /**
   * What becomes of the message with this id, to be asked in the turn of the event loop in which it was stored.
   * Rejects with the signal's reason when it is aborted first: a message may be dropped for its age, or wait for days.
   */
  async fateOf(id: number, signal: AbortSignal): Promise<Fate> {
    const fate = new Promise<Fate>((resolve) => this.#watchers.set(id, resolve));
    using patience = anyOf(signal);
    try {
      return await Promise.race([fate, rejectionOf(patience)]);
    } finally {
      this.#watchers.delete(id);
    }
  }

  take(fellows?: Fellows): SpoolEntry | undefined {
    const first = this.#ready[this.#nextReady];
    if (first === undefined || !this.#lets(fellows) || !sharesWith(fellows, first)) return undefined;
    this.#nextReady++;
    this.#out++;
    if (this.#readyCount === 0) this.#forgetTaken();
    if (this.#hasMore && this.#readyCount < readAgainAt) this.#readOn();
    return first;
  }

  get #readyCount(): number {
    return this.#ready.length - this.#nextReady;
  }

  #forgetTaken(): void {
    this.#ready.splice(0, this.#nextReady);
    this.#nextReady = 0;
  }

  async wait(signal: AbortSignal): Promise<boolean> {
    while (this.#readyCount === 0 || !this.#letsAny()) {
      const news = this.#news.signal;
      try {
        using until = anyOf(signal, news);
        if (!(await this.#waitForNews(until))) return false;
      } catch (error) {
        if (signal.aborted || !news.aborted) throw error;
      }
    }
    return true;
  }

  settled(entry: SpoolEntry, outcome: SendOutcome): void {
    entry.answers++;
    this.#out--;
    const verdict = verdictOn(outcome, entry.answers);
    this.#onVerdict(verdict, entry.encoded.length);
    switch (verdict.verdict) {
      case 'done':
        this.#open();
        this.#remove(entry.message);
        this.#watchers.get(entry.message.ref.id)?.({ outcome: 'accepted' });
        break;
      case 'refused': {
        this.#open();
        const { condition } = verdict;
        const description = hubMessage(verdict.description);
        this.#log.warn('the hub refuses a message; it is set aside', {
          message: entry.message.messageId,
          condition,
          description,
        });
        this.#record(
          this.#spool.setAside(entry.message, { condition, description }),
          'a refused message could not be set aside yet',
        );
        this.#watchers.get(entry.message.ref.id)?.({ outcome: 'rejected', condition, description });
        break;
      }
      case 'again':
        if (verdict.pause !== undefined) this.#pause(verdict.pause, outcome);
        else if (this.#flow.flow === 'probing') this.#flow = { ...this.#flow, isOut: false };
        this.#return([entry]);
        break;
    }
    if (this.#out === 0) this.#tell();
  }

  putBack(entries: readonly SpoolEntry[]): void {
    this.#out -= entries.length;
    if (this.#flow.flow === 'probing') this.#flow = { ...this.#flow, isOut: false };
    this.#return(entries);
  }

  #return(entries: readonly SpoolEntry[]): void {
    this.#forgetTaken();
    this.#ready = [...entries, ...this.#ready].sort((a, b) => a.place - b.place);
    this.#tell();
  }

  #tell(): void {
    const told = this.#news;
    this.#news = new AbortController();
    told.abort(somethingNew);
  }

  /** Waits for what the flow allows; false when the spool is empty and that is the end. Rejects when `until` aborts. */
  async #waitForNews(until: AbortSignal): Promise<boolean> {
    const flow = this.#flow;
    if (this.#isBehind) {
      this.#recordRemovals();
      return rejectionOf(until);
    }
    if (flow.flow === 'paused') {
      await this.#clock.sleep(Math.max(0, flow.until - this.#clock.monotonic()), until);
      this.#flow = { ...flow, flow: 'probing', isOut: false };
      return true;
    }
    if (flow.flow === 'probing' && flow.isOut) return rejectionOf(until);
    if (this.#reading !== undefined) {
      await this.#reading;
      return true;
    }
    if (this.#whenEmpty === 'wait') {
      this.#keep(await this.#spool.next(this.#cursor, readAhead, until));
      return true;
    }
    const batch = await this.#spool.read(this.#cursor, readAhead);
    this.#keep(batch);
    if (batch.messages.length > 0 || this.#readyCount > 0) return true;
    return this.#out === 0 ? false : rejectionOf(until);
  }

  /** What fails here is met again by who waits for messages. */
  #readOn(): void {
    this.#reading ??= this.#spool
      .read(this.#cursor, readAhead)
      .then((batch) => {
        this.#keep(batch);
      })
      .catch(() => undefined)
      .finally(() => {
        this.#reading = undefined;
      });
  }

  #keep({ messages, cursor }: Batch): void {
    this.#cursor = cursor;
    this.#forgetTaken();
    const bytes = messages.reduce((sum, { ref }) => sum + ref.bytes, 0);
    this.#hasMore = messages.length >= readAhead.count || bytes >= readAhead.bytes;
    for (const message of messages) {
      this.#ready.push({ message, encoded: message.encoded, place: this.#nextPlace++, answers: 0 });
    }
  }

  /** Whether anything may go out now, and marks what goes out as the probe. */
  #lets(fellows: Fellows | undefined): boolean {
    if (!this.#letsAny()) return false;
    if (this.#flow.flow !== 'probing') return true;
    if (fellows !== undefined) return false;
    this.#flow = { ...this.#flow, isOut: true };
    return true;
  }

  /** The disk is: what it has not heard of is sent again after the power was cut, and shall not become more. */
  get #isBehind(): boolean {
    return this.#unrecorded >= mostUnrecorded;
  }

  #letsAny(): boolean {
    if (this.#isBehind) return false;
    return this.#flow.flow === 'open' || (this.#flow.flow === 'probing' && !this.#flow.isOut);
  }

  #open(): void {
    if (this.#flow.flow === 'open') return;
    this.#log.info('telemetry flows again', { after: this.#flow.condition });
    this.#flow = { flow: 'open' };
    this.#tell();
    for (const why of Object.keys(this.#pauses) as Pause[]) this.#pauses[why] = 0;
  }

  #pause(why: Pause, outcome: SendOutcome): void {
    // What was on its way when the pause began is answered alike, and makes it no longer.
    if (this.#flow.flow === 'paused') return;
    const { firstMs, lastMs } = pauseBounds[why];
    const ceilingMs = Math.min(firstMs * 2 ** this.#pauses[why]++, lastMs);
    const ms =
      why === 'trouble'
        ? ceilingMs / 2 + (this.#random() * ceilingMs) / 2
        : ceilingMs * (1 + this.#random() / 4);
    const condition = outcome.outcome === 'rejected' ? (outcome.condition ?? 'rejected') : outcome.outcome;
    this.#flow = { flow: 'paused', why, condition, until: this.#clock.monotonic() + ms };
    this.#log.warn('the hub wants a pause', { why, condition, seconds: Math.round(ms / 100) / 10 });
  }

  #remove(message: SpooledMessage): void {
    this.#unrecorded++;
    const count = this.#removing.push(message);
    // With all others of this turn of the event loop.
    if (count === removedTogether) setImmediate(this.#recordRemovals);
    else if (count === 1) this.#removeTimer = setTimeout(this.#recordRemovals, removedWithinMs);
  }

  readonly #recordRemovals = (): void => {
    clearTimeout(this.#removeTimer);
    if (this.#removing.length === 0) return;
    const accepted = this.#removing;
    this.#removing = [];
    const removed = this.#spool.remove(accepted).finally(() => {
      const wasBehind = this.#isBehind;
      this.#unrecorded -= accepted.length;
      if (wasBehind) this.#tell();
    });
    this.#record(removed, 'accepted messages could not be removed from the spool yet');
  };

  #record(work: Promise<void>, problem: string): void {
    const recording = work
      .catch((error: unknown) => {
        this.#log.error(problem, { error });
      })
      .finally(() => this.#recording.delete(recording));
    this.#recording.add(recording);
  }
}

function rejectionOf(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const onAbort = () => {
      reject(signal.reason as Error);
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
  });
}
