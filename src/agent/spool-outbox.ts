import { hubMessage } from '../amqp/errors.js';
import type { Clock } from '../clock.js';
import type { Log } from '../log.js';
import type { SendOutcome } from '../model.js';
import { Spool } from '../store/spool.js';
import type { SpooledMessage } from '../store/spooled-message.js';
import { sharesWith, type Fellows, type Outbox, type OutboxEntry } from './telemetry.js';
import { pauseBounds, verdictOn, type Pause } from './verdict.js';

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

/** So much is read ahead of what is sent. */
const readAhead = { count: 1_000, bytes: 1024 * 1024 };

/**
 * The spool as the pump sees it. Messages leave the spool when the hub has accepted them, become dead letters when
 * it will never take them, and wait when it wants a pause.
 */
export class SpoolOutbox implements Outbox<SpoolEntry> {
  readonly #spool: Spool;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #random: () => number;
  #cursor = Spool.start;
  #nextPlace = 0;
  /** Read and not on their way, in the order of reading. */
  #ready: SpoolEntry[] = [];
  #flow: Flow = { flow: 'open' };
  readonly #pauses: Record<Pause, number> = { trouble: 0, throttled: 0, quota: 0, identity: 0 };
  #removing: SpooledMessage[] = [];

  constructor(
    spool: Spool,
    { clock, log, random = Math.random }: { clock: Clock; log: Log; random?: () => number },
  ) {
    this.#spool = spool;
    this.#clock = clock;
    this.#log = log;
    this.#random = random;
  }

  get flow(): Flow {
    return this.#flow;
  }

  take(fellows?: Fellows): SpoolEntry | undefined {
    const [first] = this.#ready;
    if (first === undefined || !this.#lets(fellows) || !sharesWith(fellows, first)) return undefined;
    this.#ready.shift();
    return first;
  }

  async wait(signal: AbortSignal): Promise<boolean> {
    while (this.#ready.length === 0 || !this.#letsAny()) {
      if (this.#flow.flow === 'paused') {
        await this.#clock.sleep(Math.max(0, this.#flow.until - this.#clock.monotonic()), signal);
        this.#flow = { ...this.#flow, flow: 'probing', isOut: false };
      } else if (this.#flow.flow === 'probing' && this.#flow.isOut) {
        await this.#answer(signal);
      } else {
        await this.#read(signal);
      }
    }
    return true;
  }

  settled(entry: SpoolEntry, outcome: SendOutcome): void {
    entry.answers++;
    const verdict = verdictOn(outcome, entry.answers);
    switch (verdict.verdict) {
      case 'done':
        this.#open();
        this.#remove(entry.message);
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
        this.#spool.setAside(entry.message, { condition, description }).catch((error: unknown) => {
          this.#log.error('a refused message could not be set aside yet', { error });
        });
        break;
      }
      case 'again':
        if (verdict.pause !== undefined) this.#pause(verdict.pause, outcome);
        else if (this.#flow.flow === 'probing') this.#flow = { ...this.#flow, isOut: false };
        this.putBack([entry]);
        break;
    }
    this.#wake();
  }

  putBack(entries: readonly SpoolEntry[]): void {
    if (this.#flow.flow === 'probing') this.#flow = { ...this.#flow, isOut: false };
    this.#ready = [...entries, ...this.#ready].sort((a, b) => a.place - b.place);
  }

  /** Whether anything may go out now, and marks what goes out as the probe. */
  #lets(fellows: Fellows | undefined): boolean {
    if (!this.#letsAny()) return false;
    if (this.#flow.flow !== 'probing') return true;
    if (fellows !== undefined) return false;
    this.#flow = { ...this.#flow, isOut: true };
    return true;
  }

  #letsAny(): boolean {
    return this.#flow.flow === 'open' || (this.#flow.flow === 'probing' && !this.#flow.isOut);
  }

  #open(): void {
    if (this.#flow.flow === 'open') return;
    this.#log.info('telemetry flows again', { after: this.#flow.condition });
    this.#flow = { flow: 'open' };
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

  /** Removals of one turn of the event loop go to the spool together. */
  #remove(message: SpooledMessage): void {
    this.#removing.push(message);
    if (this.#removing.length > 1) return;
    setImmediate(() => {
      const accepted = this.#removing;
      this.#removing = [];
      this.#spool.remove(accepted).catch((error: unknown) => {
        this.#log.error('accepted messages could not be removed from the spool yet', { error });
      });
    });
  }

  async #read(signal: AbortSignal): Promise<void> {
    const { messages, cursor } = await this.#spool.next(this.#cursor, readAhead, signal);
    this.#cursor = cursor;
    for (const message of messages) {
      this.#ready.push({ message, encoded: message.encoded, place: this.#nextPlace++, answers: 0 });
    }
  }

  #wake: () => void = () => undefined;

  #answer(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        reject(signal.reason as Error);
      };
      this.#wake = () => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      };
      if (signal.aborted) onAbort();
      else signal.addEventListener('abort', onAbort, { once: true });
    });
  }
}
