import type { Clock } from '../clock.js';
import type { MethodEvent, TwinEvent } from './contract.js';
import { keptOutputBytes, type Answer } from './handler.js';
import type { HandlersInForce } from './in-force.js';
import type { Runner } from './runner.js';
import { Lanes, Limit } from './slots.js';

export interface AnswerOptions {
  /** Default: that of the handler, which it never exceeds. */
  timeoutMs?: number;
  /** 1, the default, for the first run of this event. */
  attempt?: number;
  /** Aborted when nobody waits for the answer any more: a run that has not begun does not begin. */
  signal?: AbortSignal;
}

/** How a direct method or a desired property gets its answer: which handler? → its turn → run, in the time left. */
export class EventsInHand {
  readonly #lanes = new Lanes();
  readonly #places: Limit;
  readonly #inHand = new Set<Promise<Answer | undefined>>();

  constructor(
    private readonly options: { inForce: HandlersInForce; runner: Runner; concurrency: number; clock: Clock },
  ) {
    this.#places = new Limit(options.concurrency);
  }

  /** See `Dispatcher.answer`. */
  answer(event: MethodEvent | TwinEvent, options: AnswerOptions = {}): Promise<Answer | undefined> {
    const answer = this.#answer(event, options);
    this.#inHand.add(answer);
    return answer.finally(() => this.#inHand.delete(answer));
  }

  /** Resolves when those that are in hand now are not any more. */
  async over(): Promise<void> {
    await Promise.allSettled(this.#inHand);
  }

  async #answer(
    event: MethodEvent | TwinEvent,
    { timeoutMs = Infinity, attempt = 1, signal }: AnswerOptions,
  ): Promise<Answer | undefined> {
    const { inForce, runner, clock } = this.options;
    const expected = inForce.find(event);
    if (expected === undefined) return undefined;
    const arrivedAt = clock.monotonic();
    using _turn = await this.#lanes.enter(`${event.event} ${expected.name}`);
    using _place = await this.#places.enter();
    if (runner.stopping.aborted) return stopped;
    if (signal?.aborted) return nobodyWaits;
    // Not the one that was expected when handlers were replaced while it waited.
    const handler = inForce.find(event);
    if (handler === undefined) return undefined;
    const waitedMs = event.event === 'method' ? Math.floor(clock.monotonic() - arrivedAt) : 0;
    const leftMs = Math.min(timeoutMs, handler.timeoutMs) - waitedMs;
    if (leftMs <= 0) return turnTooLate;
    inForce.runBegins(handler);
    try {
      return wholeAnswer(await runner.run(handler, event, attempt, leftMs));
    } finally {
      inForce.runEnds(handler);
    }
  }
}

const stopped: Answer = {
  outcome: 'release',
  status: 503,
  reason: 'the agent is stopping',
  decidedBy: 'stopping',
};
const nobodyWaits: Answer = {
  outcome: 'release',
  status: 503,
  reason: 'nobody waits for the answer any more',
  decidedBy: 'stopping',
};
const turnTooLate: Answer = {
  outcome: 'release',
  status: 504,
  reason: 'those before it took too long',
  decidedBy: 'handler',
};

/** What is sent as JSON is no use when its end is missing. */
function wholeAnswer(answer: Answer): Answer {
  if (answer.replyBytes === undefined) return answer;
  const reason = `it printed ${answer.replyBytes} bytes, of which ${keptOutputBytes} are kept`;
  return { ...answer, outcome: 'reject', status: 500, reason, reply: undefined };
}
