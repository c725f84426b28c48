import { AgentError } from '../errors.js';
import type { SendOutcome } from '../model.js';
import { sharesWith, type Fellows, type Outbox, type OutboxEntry } from './telemetry.js';

/** The hub's answer and how long it took; undefined for an item that there was nothing to send of. */
export type StreamAnswer = { outcome: SendOutcome; ms: number } | undefined;

export interface StreamOutboxOptions<Item> {
  /** Items read but not answered at once; no more are read while so many are. */
  capacity: number;
  /** The bytes of the item's message; undefined when there is nothing to send. */
  encode: (item: Item) => Buffer | undefined;
  /** Is told of each item once, in the order of the source, and of those together that were answered together. */
  onResults: (results: readonly StreamResult<Item>[]) => void;
}

export interface StreamResult<Item> {
  readonly item: Item;
  readonly answer: StreamAnswer;
}

interface StreamEntry<Item> extends OutboxEntry {
  readonly item: Item;
  answered: boolean;
  answer: StreamAnswer;
}

/**
 * Telemetry that is read from a stream and forgotten as the hub answers for it. The source gives together what it has
 * at once, and of that items are taken as there is room, with no promise for each.
 */
export class StreamOutbox<Item> implements Outbox<StreamEntry<Item>> {
  readonly #options: StreamOutboxOptions<Item>;
  /** Read and not reported, in the order of the source. */
  readonly #unreported: StreamEntry<Item>[] = [];
  /** Not on their way. */
  #waiting: StreamEntry<Item>[] = [];
  /** What the source has given and is not read. */
  #given: Iterator<Item> | undefined;
  #unanswered = 0;
  #ended = false;
  #willReport = false;
  #failure: Error | undefined;
  #wake: () => void = () => undefined;
  #giveMore: () => void = () => undefined;

  constructor(source: AsyncIterable<Iterable<Item>>, options: StreamOutboxOptions<Item>) {
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
    this.#giveMore();
    this.#wake();
  }

  take(fellows?: Fellows): StreamEntry<Item> | undefined {
    this.#readOne();
    const [first] = this.#waiting;
    if (first === undefined || !sharesWith(fellows, first)) return undefined;
    this.#waiting.shift();
    return first;
  }

  async wait(signal: AbortSignal): Promise<boolean> {
    const onAbort = () => {
      this.#wake();
    };
    signal.addEventListener('abort', onAbort);
    try {
      // What is on its way may come back, out of a batch that was refused.
      for (;;) {
        this.#readOne();
        if (this.#waiting.length > 0 || (this.#ended && this.#unanswered === 0)) break;
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

  settled(entry: StreamEntry<Item>, outcome: SendOutcome, ms: number): void {
    this.#finish(entry, { outcome, ms });
    // There is always one that waits for an answer while there are any: who has patience begins with the first.
    if (this.#unanswered === 0) this.#readOne();
    this.#wake();
  }

  putBack(entries: readonly StreamEntry<Item>[]): void {
    this.#waiting = [...entries, ...this.#waiting];
    this.#wake();
  }

  async #read(source: AsyncIterable<Iterable<Item>>): Promise<void> {
    try {
      for await (const items of source) {
        this.#given = items[Symbol.iterator]();
        this.#readOne();
        this.#wake();
        while (this.#isReading) {
          await new Promise<void>((resolve) => {
            this.#giveMore = resolve;
          });
        }
        if (this.#ended) break;
      }
    } catch (error) {
      this.#fail(error);
    }
    this.#ended = true;
    this.#wake();
  }

  /** Reported when the rest has been sent: what was read before the failure is good. */
  #fail(error: unknown): void {
    this.#failure = error instanceof Error ? error : new AgentError('bug', String(error));
    this.stop();
  }

  /** Sees to it that one waits, if the source has given one and there is room. */
  #readOne(): void {
    try {
      while (this.#waiting.length === 0 && this.#given !== undefined && this.#hasRoom) {
        const next = this.#given.next();
        if (next.done !== true) this.#add(next.value);
        else {
          this.#given = undefined;
          this.#giveMore();
        }
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  get #isReading(): boolean {
    return this.#given !== undefined && !this.#ended;
  }

  get #hasRoom(): boolean {
    return !this.#ended && this.#unreported.length < this.#options.capacity;
  }

  #add(item: Item): void {
    const encoded = this.#options.encode(item);
    const entry: StreamEntry<Item> = {
      item,
      encoded: encoded ?? nothing,
      answered: false,
      answer: undefined,
    };
    this.#unreported.push(entry);
    this.#unanswered++;
    if (encoded === undefined) this.#finish(entry, undefined);
    else this.#waiting.push(entry);
  }

  #finish(entry: StreamEntry<Item>, answer: StreamAnswer): void {
    entry.answered = true;
    entry.answer = answer;
    this.#unanswered--;
    if (this.#willReport || this.#unreported[0]?.answered !== true) return;
    this.#willReport = true;
    // With all that is answered in what the socket has just given, and before more is taken.
    void Promise.resolve().then(this.#report);
  }

  readonly #report = (): void => {
    this.#willReport = false;
    const open = this.#unreported.findIndex(({ answered }) => !answered);
    this.#options.onResults(this.#unreported.splice(0, open === -1 ? this.#unreported.length : open));
  };
}

const nothing = Buffer.alloc(0);
