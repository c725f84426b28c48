import type { Clock } from '../clock.js';
import type { Log } from '../log.js';
import type { Command, CommandOutcome, CommandReply } from '../model.js';
import { anyOf } from '../signals.js';
import type { CommandEvent } from './contract.js';
import type { Answer, Handler, Order } from './handler.js';
import type { HandlersInForce } from './in-force.js';
import { laneOf } from './lane.js';
import { outcomeOf, replyTo } from './outcome.js';
import type { Runner } from './runner.js';
import { Lanes, Limit } from './slots.js';

/**
 * What the inbox remembers of a command that the hub was told is done, until a handler has done it: taken, begun,
 * then put back or finished. Each call resolves when its fact is on disk; what cannot be recorded does not happen.
 */
export interface CommandInbox {
  /** Keeps the command and accepts it in the ledger, in one write. `try-again` when the inbox is full. */
  take(key: string, command: Command, handler: string): Promise<void>;
  /** What is not finished, oldest first. */
  waiting(): Iterable<WaitingCommand>;
  /** A run begins. Resolves to the command with its body; undefined when someone has dropped it. */
  began(id: number): Promise<CommandEvent | undefined>;
  /** It is to be run once more. */
  postponed(id: number, why: Postponement): Promise<void>;
  /** It is done, or, after a reject, given up and kept for people to look at. */
  finished(id: number, outcome: FinalOutcome, reply: CommandReply | undefined): Promise<void>;
  /** Calls `listener` when something came in or is to be tried again at once. */
  onArrival(listener: () => void): Disposable;
}

export interface Postponement {
  /**
   * `attempt`: its handler said "later" or failed, which may happen so often. `installation`: it could not be run,
   * which is no fault of the command. `stopping`: the agent ended; it is run as soon as there is one again.
   */
  by: 'attempt' | 'installation' | 'stopping';
  reason?: string | undefined;
}

export type FinalOutcome = Exclude<CommandOutcome, { outcome: 'release' }>;

export interface WaitingCommand {
  readonly id: number;
  /** All but the body. */
  readonly command: Omit<CommandEvent, 'event' | 'body'>;
  /** That took it. */
  readonly handler: string;
  /** `unknown`: it had begun when the agent ended. */
  readonly state: 'waiting' | 'unknown';
  /** Runs that were begun. */
  readonly attempts: number;
  /** Of which ended in "later" or failed; with the unknown one. */
  readonly failures: number;
  /** Why it is not done yet. */
  readonly reason: string | undefined;
  /** Until it is to be tried again; 0: now. */
  readonly dueInMs: number;
  /** Since it was taken. */
  readonly ageMs: number;
  /** Since it was taken its sender's time for it has run out. */
  readonly isExpired: boolean;
}

export interface InboxWorkerOptions {
  inbox: CommandInbox;
  inForce: HandlersInForce;
  runner: Runner;
  concurrency: number;
  order: Order;
  clock: Clock;
  log: Log;
}

/** When the inbox cannot be read or written; the disk may recover. */
const troubleDelayMs = 10_000;
/** A timer may be late, never early by much; and a clock that is set does not matter for longer than this. */
const longestSleepMs = 60_000;

/** Runs what waits in the inbox until the runner stops, then resolves when nothing runs. */
export async function workInbox(options: InboxWorkerOptions): Promise<void> {
  const { inbox, runner, clock, log } = options;
  const { stopping } = runner;
  let changed = new AbortController();
  const onChange = (): void => {
    changed.abort();
  };
  const worker = new InboxWorker(options, onChange);
  using _subscription = inbox.onArrival(onChange);
  while (!stopping.aborted) {
    changed = new AbortController();
    const sleepMs = Math.min(worker.startDue(), longestSleepMs);
    using until = anyOf(changed.signal, stopping);
    await clock.sleep(sleepMs, until).catch(() => undefined);
  }
  log.debug('the inbox rests');
  await worker.ended();
}

class InboxWorker {
  readonly #options: InboxWorkerOptions;
  readonly #onEnd: () => void;
  readonly #lanes = new Lanes();
  readonly #limit: Limit;
  readonly #inHand = new Map<number, Promise<void>>();

  /** `onEnd` is called when a command is out of hand: it may have been put back. */
  constructor(options: InboxWorkerOptions, onEnd: () => void) {
    this.#options = options;
    this.#onEnd = onEnd;
    this.#limit = new Limit(options.concurrency);
  }

  /** Takes in hand what is due. Returns how long nothing else will be, milliseconds. */
  startDue(): number {
    let nextMs = Infinity;
    for (const waiting of this.#options.inbox.waiting()) {
      if (this.#inHand.has(waiting.id)) continue;
      if (waiting.dueInMs > 0) nextMs = Math.min(nextMs, waiting.dueInMs);
      else this.#takeInHand(waiting);
    }
    return nextMs;
  }

  async ended(): Promise<void> {
    await Promise.all(this.#inHand.values());
  }

  #takeInHand(waiting: WaitingCommand): void {
    const { clock, runner, log } = this.#options;
    const work = this.#handle(waiting)
      .catch(async (error: unknown) => {
        log.error('a command of the inbox could not be worked on', { id: waiting.id, error });
        await clock.sleep(troubleDelayMs, runner.stopping).catch(() => undefined);
      })
      .finally(() => {
        this.#inHand.delete(waiting.id);
        this.#onEnd();
      });
    this.#inHand.set(waiting.id, work);
  }

  async #handle(waiting: WaitingCommand): Promise<void> {
    const { inbox, runner, inForce, log } = this.#options;
    const { command, id } = waiting;
    const expected = this.#handlerOf(waiting);
    const givenUp = reasonToGiveUp(waiting, expected);
    if (givenUp !== undefined) {
      await this.#finish(waiting, { outcome: 'reject', reason: givenUp }, expected, {});
      return;
    }
    if (expected === undefined) {
      const reason = `there is no handler called ${waiting.handler}`;
      log.warn('a command of the inbox waits', { message: command.messageId, id, reason });
      await inbox.postponed(id, { by: 'installation', reason });
      return;
    }
    const lane = this.#laneOf(waiting, expected);
    using _turn = await this.#lanes.enter(lane);
    using _place = await this.#limit.enter();
    if (runner.stopping.aborted) return;
    // Handlers may have been replaced while it waited. Where it has no turn with the new one, it is taken up anew.
    const handler = this.#handlerOf(waiting);
    if (handler === undefined || this.#laneOf(waiting, handler) !== lane) return;
    inForce.runBegins(handler);
    try {
      await this.#run(waiting, handler);
    } finally {
      inForce.runEnds(handler);
    }
  }

  async #run(waiting: WaitingCommand, handler: Handler): Promise<void> {
    const { inbox, runner } = this.#options;
    const event = await inbox.began(waiting.id);
    if (event === undefined) return;
    const answer = await runner.run(handler, event, waiting.attempts + 1, handler.timeoutMs);
    const outcome = outcomeOf(answer, handler);
    if (outcome.outcome !== 'release') await this.#finish(waiting, outcome, handler, answer);
    else await this.#postpone(waiting, handler, answer);
  }

  #handlerOf({ handler }: WaitingCommand): Handler | undefined {
    return this.#options.inForce.all.find(({ on, name }) => on === 'command' && name === handler);
  }

  #laneOf({ command }: WaitingCommand, handler: Handler): string | undefined {
    return laneOf(handler.order ?? this.#options.order, handler, command);
  }

  async #postpone(waiting: WaitingCommand, handler: Handler, answer: Answer): Promise<void> {
    const { decidedBy, reason } = answer;
    const by = decidedBy === 'handler' || decidedBy === 'fault' ? 'attempt' : decidedBy;
    const failures = waiting.failures + 1;
    if (by === 'attempt' && failures >= (handler.inbox?.maximumAttempts ?? Infinity)) {
      const why = `given up after ${failures} attempts: ${reason ?? 'later'}`;
      await this.#finish(waiting, { outcome: 'reject', reason: why }, handler, answer);
    } else {
      await this.#options.inbox.postponed(waiting.id, { by, reason });
    }
  }

  async #finish(
    { id, command, handler: taker }: WaitingCommand,
    outcome: FinalOutcome,
    handler: Handler | undefined,
    answer: Partial<Answer>,
  ): Promise<void> {
    const { log, inbox } = this.#options;
    const facts = { handler: handler?.name ?? taker, message: command.messageId, id };
    const reply = replyTo(outcome, handler ?? { replies: 'always' }, answer, (bytes) => {
      log.error('the reply is too large: it goes out cut', { ...facts, bytes });
    });
    await inbox.finished(id, outcome, reply);
    if (outcome.outcome === 'accept') log.debug('a command of the inbox is done', facts);
    else log.warn('a command of the inbox is given up', { ...facts, reason: outcome.reason });
  }
}

function reasonToGiveUp(waiting: WaitingCommand, handler: Handler | undefined): string | undefined {
  const { state, failures, ageMs, isExpired, reason } = waiting;
  const { maximumAttempts = Infinity, maximumAgeMs = Infinity } = handler?.inbox ?? {};
  const last = reason === undefined ? '' : `: ${reason}`;
  if (state === 'unknown' && handler?.afterCrash === 'reject')
    return 'the agent ended while its handler ran; what it did is unknown';
  if (state === 'unknown' && failures >= maximumAttempts)
    return `given up after ${failures} attempts: the agent ended while its handler ran`;
  if (isExpired) return `its time has run out${last}`;
  if (ageMs > maximumAgeMs) return `it waited too long${last}`;
  return undefined;
}
