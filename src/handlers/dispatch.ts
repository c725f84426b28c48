import { systemClock, type Clock } from '../clock.js';
import type { Log } from '../log.js';
import { hubLimits, type Command } from '../model.js';
import { CommandsInHand } from './commands-in-hand.js';
import type { MethodEvent, TwinEvent } from './contract.js';
import type { CommandDecision } from './delivery.js';
import { EventsInHand, type AnswerOptions } from './events-in-hand.js';
import type { Answer, Handler, Order } from './handler.js';
import { HandlersInForce } from './in-force.js';
import { workInbox, type CommandInbox } from './inbox.js';
import { memoryLedger, type CommandLedger } from './ledger.js';
import { Runner, type HandlerHealth } from './runner.js';
import { Slots } from './slots.js';

/**
 * Gives what the hub sends to handlers: commands (`commands-in-hand.ts`), methods and desired properties
 * (`events-in-hand.ts`), and what waits in the inbox (`inbox.ts`).
 *
 * The caller settles a command as was decided, and grants the hub as much credit as there are free slots. A command
 * holds a slot while it waits or runs, since the hub's lock of 60 s runs while it waits here.
 */

export interface DispatcherOptions {
  /** The first that matches takes an event. */
  handlers: readonly Handler[];
  /** Commands in hand at once. Default 4. */
  concurrency?: number;
  /** What happens one after the other; the rest goes in parallel. Default `handler`. */
  order?: Order;
  /** Outcome of a command that no handler takes. Default `reject`: a released one would circle until it expires. */
  unmatched?: 'reject' | 'release';
  /**
   * How long a released command is kept before the hub is told, which delivers it again at once: the first time, and
   * at most, as it doubles each time. It holds no slot meanwhile. Default 5 s and 50 s.
   */
  releaseDelay?: { firstMs: number; mostMs: number };
  /** How long a handler may take to end when the agent stops. Default 20 s. */
  drainTimeoutMs?: number;
  /** How long the hub keeps a delivered command for us. Default 60 s. */
  lockMs?: number;
  /** Default: one that lasts as long as the process. */
  ledger?: CommandLedger;
  /** For handlers that have one. */
  inbox?: CommandInbox;
  clock?: Clock;
  log: Log;
}

export interface Dispatcher extends AsyncDisposable {
  readonly concurrency: number;
  /** Commands that could be taken now: the credit to grant. 0 once it drains. */
  readonly freeSlots: number;
  /** Calls `listener` when the number of free slots changes, until it is disposed of. */
  onFreeSlots(listener: (free: number) => void): Disposable;
  /**
   * Decides about a command. Never rejects, whatever the command or its handler does. A second delivery of a command
   * that is in hand shares its run and its outcome.
   *
   * `signal` is the delivery's: when its link is gone, the caller is released at once; what has begun goes on, and its
   * outcome answers the redelivery.
   */
  handle(command: Command, options?: { signal?: AbortSignal }): Promise<CommandDecision>;
  /**
   * The same without a promise, for who has very many: calls `onDecided`, which must not throw, once; where nothing
   * has to be waited for, before it returns.
   */
  take(command: Command, onDecided: (decision: CommandDecision) => void, signal?: AbortSignal): void;
  /** To be told when the hub has been told. */
  settled(decision: CommandDecision): void;
  /** Name of the handler that takes an event; undefined when none does. */
  takes(event: MethodEvent | TwinEvent): string | undefined;
  /**
   * Runs the handler of a direct method or a desired property; undefined when there is none. Never rejects. The time
   * of a method counts from here, for its caller waits; what would begin too late does not begin.
   */
  answer(event: MethodEvent | TwinEvent, options?: AnswerOptions): Promise<Answer | undefined>;
  /**
   * Takes other handlers from now on. What waits for its turn keeps it, and is run by the new ones; what runs on the
   * former goes on, and each of those is closed when its last run has ended.
   */
  replaceHandlers(handlers: readonly Handler[]): void;
  /** What is wrong with handlers, if anything. */
  health(): ReadonlyMap<string, HandlerHealth>;
  /**
   * Takes nothing more, tells running handlers to end, kills them when `drainTimeoutMs` is over or `signal` is
   * aborted, and resolves when none runs.
   */
  drain(signal?: AbortSignal): Promise<void>;
}

export type { AnswerOptions, CommandDecision, HandlerHealth };

const defaultReleaseDelay = { firstMs: 5_000, mostMs: 50_000 };

export function createDispatcher(options: DispatcherOptions): Dispatcher {
  const { log, inbox, order = 'handler', clock = systemClock } = options;
  const { concurrency = 4, drainTimeoutMs = 20_000, ledger = memoryLedger() } = options;
  const runner = new Runner(log, clock);
  const slots = new Slots(concurrency);
  const inForce = new HandlersInForce(options.handlers);
  const common = { inForce, runner, concurrency, order, clock, log };
  const commands = new CommandsInHand({
    ...common,
    ledger,
    inbox,
    slots,
    unmatched: options.unmatched ?? 'reject',
    releaseDelay: options.releaseDelay ?? defaultReleaseDelay,
    lockMs: options.lockMs ?? hubLimits.commandLockMs,
  });
  const events = new EventsInHand(common);
  const inboxWork =
    inbox === undefined
      ? Promise.resolve()
      : workInbox({ ...common, inbox }).catch((error: unknown) => {
          log.error('the inbox is not worked on any more', { error });
        });

  async function drain(signal?: AbortSignal): Promise<void> {
    slots.close();
    const ended = (): Promise<unknown> => Promise.all([commands.over(), events.over(), inboxWork]);
    await runner.stop(ended, drainTimeoutMs, signal);
  }

  return {
    concurrency,
    get freeSlots() {
      return slots.free;
    },
    onFreeSlots: (listener) => slots.onChange(listener),
    handle: (command, { signal } = {}) =>
      new Promise((resolve) => {
        commands.take(command, resolve, signal);
      }),
    take: (command, onDecided, signal) => {
      commands.take(command, onDecided, signal);
    },
    settled: (decision) => {
      ledger.settled(decision.key);
    },
    takes: (event) => inForce.find(event)?.name,
    answer: (event, answerOptions) => events.answer(event, answerOptions),
    replaceHandlers(replacements) {
      inForce.replace(replacements);
      runner.forgetAllBut(new Set(replacements.map(({ name }) => name)));
    },
    health: () => runner.health,
    drain,
    async [Symbol.asyncDispose]() {
      await drain();
      await inForce[Symbol.asyncDispose]();
    },
  };
}
