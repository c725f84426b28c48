import { AgentError } from '../errors.js';
import type { SendOutcome } from '../model.js';
import { sharesWith, type Fellows, type Outbox, type OutboxEntry } from './telemetry.js';

/** The hub's answer and how long it took; undefined for an item that there was nothing to send of. */
export type StreamAnswer = { outcome: SendOutcome; ms: number } | undefined;

export interface StreamOutboxOptions<Item> {
  /** Items read but not answered at once; the source is not read while so many are. */
  capacity: number;
  /** The bytes of the item's message; undefined when there is nothing to send. */
  encode: (item: Item) => Buffer | undefined;
  /** Called once for each item, in the order of the source. */
  onResult: (item: Item, answer: StreamAnswer) => void;
}

interface StreamEntry<Item> extends OutboxEntry {
  readonly item: Item;
  takenAt: number;
  answered: boolean;
  answer: StreamAnswer;
}

/** Telemetry that is read from a stream and forgotten as the hub answers for it. */
export class StreamOutbox<Item> implements Outbox<StreamEntry<Item>> {
  readonly #options: StreamOutboxOptions<Item>;
  /** Read and not reported, in the order of the source. */
  readonly #unreported: StreamEntry<Item>[] = [];
  /** Not on their way. */
  #waiting: StreamEntry<Item>[] = [];
  #unanswered = 0;
  #ended = false;
  #willTell = false;
  #failure: Error | undefined;
  #wake: () => void = () => undefined;
  #room: () => void = () => undefined;

  constructor(source: AsyncIterable<Item>, options: StreamOutboxOptions<Item>) {
    this.#options = options;
    void this.#read(source);
  }

  /** How many items were read and have no answer yet. */
  get unanswered(): number {
    return this.#unanswered;
  }

  /** Reads no more; what was read is still sent. */
  stop(): void {
    this.#ended = true;
    this.#room();
    this.#wake();
  }

  take(fellows?: Fellows): StreamEntry<Item> | undefined {
    const [first] = this.#waiting;
    if (first === undefined || !sharesWith(fellows, first)) return undefined;
    this.#waiting.shift();
    first.takenAt = performance.now();
    return first;
  }

  async wait(signal: AbortSignal): Promise<boolean> {
    const onAbort = () => {
      this.#wake();
    };
    signal.addEventListener('abort', onAbort);
    try {
      // What is on its way may come back, out of a batch that was refused.
      while (this.#waiting.length === 0 && !(this.#ended && this.#unanswered === 0)) {
        signal.throwIfAborted();
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
      if (this.#waiting.length > 0) return true;
      if (this.#failure !== undefined) throw this.#failure;
      return false;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  settled(entry: StreamEntry<Item>, outcome: SendOutcome): void {
    this.#finish(entry, { outcome, ms: performance.now() - entry.takenAt });
  }

  putBack(entries: readonly StreamEntry<Item>[]): void {
    this.#waiting = [...entries, ...this.#waiting];
    this.#wake();
  }

  async #read(source: AsyncIterable<Item>): Promise<void> {
    try {
      for await (const item of source) {
        this.#add(item);
        while (this.#unreported.length >= this.#options.capacity && !this.#ended) {
          await new Promise<void>((resolve) => {
            this.#room = resolve;
          });
        }
        if (this.#ended) break;
      }
    } catch (error) {
      // Reported when the rest has been sent: what was read before the failure is good.
      this.#failure = error instanceof Error ? error : new AgentError('bug', String(error));
    }
    this.#ended = true;
    this.#wake();
  }

  #add(item: Item): void {
    const encoded = this.#options.encode(item);
    const entry: StreamEntry<Item> = {
      item,
      encoded: encoded ?? Buffer.alloc(0),
      takenAt: 0,
      answered: false,
      answer: undefined,
    };
    this.#unreported.push(entry);
    this.#unanswered++;
    if (encoded === undefined) {
      this.#finish(entry, undefined);
      return;
    }
    this.#waiting.push(entry);
    this.#tellLater();
  }

  /** When the source has given what it had: who takes one at a time would wait once for each. */
  #tellLater(): void {
    if (this.#willTell) return;
    this.#willTell = true;
    setImmediate(() => {
      this.#willTell = false;
      this.#wake();
    });
  }

  #finish(entry: StreamEntry<Item>, answer: StreamAnswer): void {
    entry.answered = true;
    entry.answer = answer;
    this.#unanswered--;
    for (let first = this.#unreported[0]; first?.answered === true; first = this.#unreported[0]) {
      this.#unreported.shift();
      this.#options.onResult(first.item, first.answer);
    }
    if (this.#unreported.length < this.#options.capacity) this.#room();
    if (this.#unanswered === 0) this.#wake();
  }
}
