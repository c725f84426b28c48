import { setMaxListeners } from 'node:events';

import { systemClock, type Clock } from '../clock.js';
import { AgentError, errorText } from '../errors.js';
import type { Log } from '../log.js';
import { hubLimits, type Command, type CommandOutcome } from '../model.js';
import { anyOf } from '../signals.js';
import { commandKey } from './command-key.js';
import type { CommandEvent, MethodEvent, TwinEvent } from './contract.js';
import { keptOutputBytes, type AllFields, type Answer, type Handler, type Order } from './handler.js';
import { HandlersInForce } from './in-force.js';
import { workInbox, type CommandInbox } from './inbox.js';
import { laneOf } from './lane.js';
import { memoryLedger, type CommandLedger, type UndecidedCommand } from './ledger.js';
import { outcomeAfterCrash, outcomeOf, replyTo } from './outcome.js';
import { Links } from './links.js';
import { Runner, type HandlerHealth } from './runner.js';
import { Lanes, Limit, Slots } from './slots.js';

/**
 * How a command becomes an outcome: known already? → which handler? → its turn → run → recorded → answered. Where the
 * handler has an inbox: → kept → answered, and run from there (`inbox.ts`).
 *
 * The caller settles with what `handle` resolves to, and grants the hub as much credit as there are free slots. A
 * command holds a slot while it waits or runs, since the hub's lock of 60 s runs while it waits here.
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
  /** To be told when the hub has been told. */
  settled(decision: CommandDecision): Promise<void>;
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

export interface AnswerOptions {
  /** Default: that of the handler, which it never exceeds. */
  timeoutMs?: number;
  /** 1, the default, for the first run of this event. */
  attempt?: number;
  /** Aborted when nobody waits for the answer any more: a run that has not begun does not begin. */
  signal?: AbortSignal;
}

export type CommandDecision = CommandOutcome & {
  /** Identifies the command across deliveries. */
  key: string;
  /** Absent when no handler was involved. */
  handler?: string | undefined;
  /** 1 for the first run; 0 when nothing ran. */
  attempt: number;
  /**
   * `record`: the outcome of an earlier delivery. `inbox`: it is kept, to be run later. `none`: nothing ran (no
   * handler, stopping, no place to record it, link gone).
   */
  from: 'handler' | 'record' | 'inbox' | 'none';
  elapsedMs: number;
};

export type { HandlerHealth };

const defaultReleaseDelay = { firstMs: 5_000, mostMs: 50_000 };
/** What is left of the lock for the settlement to reach the hub. */
const lockMarginMs = 5_000;

export function createDispatcher(options: DispatcherOptions): Dispatcher {
  const { log, unmatched = 'reject', order = 'handler', clock = systemClock } = options;
  const { concurrency = 4, drainTimeoutMs = 20_000, lockMs = hubLimits.commandLockMs } = options;
  const { releaseDelay = defaultReleaseDelay, inbox } = options;
  const ledger = options.ledger ?? memoryLedger();
  const runner = new Runner(log, clock);
  const { stopping } = runner;
  const slots = new Slots(concurrency);
  const lanes = new Lanes();
  const commandLimit = new Limit(concurrency);
  const eventLimit = new Limit(concurrency);
  const links = new Links();
  const inHand = new Map<string, InHand>();
  const answering = new Set<Promise<Answer | undefined>>();
  const inForce = new HandlersInForce(options.handlers);
  let withoutKey = 0;
  const inboxWork =
    inbox === undefined
      ? Promise.resolve()
      : workInbox({
          inbox,
          inForce,
          runner,
          concurrency,
          order,
          clock,
          log,
        }).catch((error: unknown) => {
          log.error('the inbox is not worked on any more', { error });
        });

  async function handle(
    command: Command,
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<CommandDecision> {
    const arrivedAt = clock.monotonic();
    const key = keyOf(command);
    const entry = inHand.get(key) ?? takeInHand(key, command);
    entry.waiting++;
    const conclusion = await (signal === undefined
      ? entry.conclusion
      : links.unlessGone(signal, entry.conclusion, linkGone));
    entry.waiting--;
    if (conclusion.holdMs > 0) {
      const lockedMs = arrivedAt + lockMs - lockMarginMs - clock.monotonic();
      await hold(Math.min(conclusion.holdMs, lockedMs), signal);
    }
    return decisionOn(key, conclusion, clock.monotonic() - arrivedAt);
  }

  function keyOf(command: Command): string {
    const key = commandKey(command);
    if (key !== undefined) return key;
    if (withoutKey++ === 0) {
      log.warn(
        'commands without message id and sequence number: a second delivery cannot be told from a second command',
      );
    }
    return `delivery ${withoutKey}`;
  }

  function takeInHand(key: string, command: Command): InHand {
    const entry: InHand = { waiting: 0, conclusion: noConclusion };
    inHand.set(key, entry);
    entry.conclusion = conclude(key, command, entry);
    return entry;
  }

  async function conclude(key: string, command: Command, entry: InHand): Promise<Conclusion> {
    slots.take();
    try {
      const known = await ledger.received(key, command);
      if (known.state !== 'decided') return await decide(key, command, entry, known);
      return { outcome: known.outcome, from: 'record', attempt: 0, holdMs: 0 };
    } catch (error) {
      const { messageId: message } = command;
      log.error('a command could not be handled and goes back to the hub', { error, message });
      return nothingRan({ outcome: 'release', reason: errorText(error) }, releaseDelay.firstMs);
    } finally {
      inHand.delete(key);
      slots.giveBack();
    }
  }

  async function decide(
    key: string,
    command: Command,
    entry: InHand,
    known: UndecidedCommand,
  ): Promise<Conclusion> {
    const event = eventOf(command);
    for (;;) {
      const expected = inForce.find(event);
      if (expected === undefined) {
        log.warn('no handler for a command', { message: command.messageId, outcome: unmatched });
        return nothingRan({ outcome: unmatched, reason: 'no handler' }, releaseDelay.firstMs);
      }
      if (isForInbox(expected, known)) return await takeIn(key, command, expected);
      const lane = laneFor(expected, command);
      // Not `using`: compiled for the oldest Node.js, it would take a kilobyte for each command.
      const turn = await lanes.enter(lane);
      const place = await commandLimit.enter();
      try {
        if (stopping.aborted) return nothingRan({ outcome: 'release', reason: 'the agent is stopping' });
        if (entry.waiting === 0) return linkGone; // it comes again, and takes its turn then
        // Whoever takes it now: handlers may have been replaced while it waited, which costs it no turn in its lane.
        const handler = inForce.find(event);
        if (handler === undefined || isForInbox(handler, known)) continue;
        if (laneFor(handler, command) === lane) return await runCommand(key, event, handler, known);
      } finally {
        place[Symbol.dispose]();
        turn[Symbol.dispose]();
      }
    }
  }

  function laneFor(handler: Handler, command: Command): string | undefined {
    return laneOf(handler.order ?? order, handler, command);
  }

  async function takeIn(key: string, command: Command, { name }: Handler): Promise<Conclusion> {
    try {
      if (inbox === undefined) throw new AgentError('config', 'there is no inbox');
      await inbox.take(key, command, name);
      return { outcome: { outcome: 'accept' }, from: 'inbox', handler: name, attempt: 0, holdMs: 0 };
    } catch (error) {
      const reason = `the inbox cannot take it: ${errorText(error)}`;
      log.warn('a command goes back to the hub', { handler: name, message: command.messageId, reason });
      return nothingRan({ outcome: 'release', reason }, releaseDelay.mostMs);
    }
  }

  async function runCommand(
    key: string,
    event: CommandEvent,
    handler: Handler,
    known: UndecidedCommand,
  ): Promise<Conclusion> {
    const { name } = handler;
    const decided = known.state === 'unknown' ? outcomeAfterCrash(handler, known.faults) : undefined;
    if (decided !== undefined) {
      await finish(key, event, handler, decided, {});
      return { outcome: decided, from: 'handler', handler: name, attempt: known.attempts, holdMs: 0 };
    }
    const attempt = known.attempts + 1;
    const run = inForce.run(handler);
    try {
      await ledger.started(key, { handler: name, attempt });
      const answer = await runner.run(handler, event, attempt, handler.timeoutMs);
      const outcome = outcomeOf(answer, handler, known.faults + (answer.decidedBy === 'fault' ? 1 : 0));
      await finish(key, event, handler, outcome, answer);
      const holdMs = answer.decidedBy === 'stopping' ? 0 : releaseDelayMs(outcome, attempt);
      return { outcome, from: 'handler', handler: name, attempt, holdMs };
    } finally {
      run[Symbol.dispose]();
    }
  }

  function finish(
    key: string,
    { messageId: message }: CommandEvent,
    handler: Handler,
    outcome: CommandOutcome,
    answer: Partial<Answer>,
  ): Promise<unknown> {
    const reply = replyTo(outcome, handler, answer, (bytes) => {
      log.error('the reply is too large: it goes out cut', { handler: handler.name, message, bytes });
    });
    return ledger.finished(key, { outcome, fault: answer.decidedBy === 'fault', reply });
  }

  function releaseDelayMs({ outcome }: CommandOutcome, attempt: number): number {
    const { firstMs, mostMs } = releaseDelay;
    return outcome === 'release' ? Math.min(mostMs, firstMs * 2 ** Math.min(attempt - 1, 20)) : 0;
  }

  async function answer(
    event: MethodEvent | TwinEvent,
    { timeoutMs = Infinity, attempt = 1, signal }: AnswerOptions = {},
  ): Promise<Answer | undefined> {
    const expected = inForce.find(event);
    if (expected === undefined) return undefined;
    const arrivedAt = clock.monotonic();
    const run = (async (): Promise<Answer | undefined> => {
      using _turn = await lanes.enter(`${event.event} ${expected.name}`);
      using _place = await eventLimit.enter();
      if (stopping.aborted) return stoppedAnswer;
      if (signal?.aborted) return nobodyWaits;
      // Not the one that was expected when handlers were replaced while it waited.
      const handler = inForce.find(event);
      if (handler === undefined) return undefined;
      using _run = inForce.run(handler);
      const waitedMs = event.event === 'method' ? Math.floor(clock.monotonic() - arrivedAt) : 0;
      const leftMs = Math.min(timeoutMs, handler.timeoutMs) - waitedMs;
      if (leftMs <= 0) return turnTooLate;
      return wholeAnswer(await runner.run(handler, event, attempt, leftMs));
    })();
    answering.add(run);
    return run.finally(() => answering.delete(run));
  }

  async function hold(ms: number, signal?: AbortSignal): Promise<void> {
    if (ms <= 0) return;
    if (signal !== undefined) setMaxListeners(0, signal); // as many listen as are kept back
    using until = signal === undefined ? anyOf(stopping) : anyOf(stopping, signal);
    await clock.sleep(ms, until).catch(() => undefined); // told to stop: the release goes out now
  }

  async function drain(signal?: AbortSignal): Promise<void> {
    slots.close();
    const ended = (): Promise<unknown> =>
      Promise.allSettled([
        ...Array.from(inHand.values(), ({ conclusion }) => conclusion),
        ...answering,
        inboxWork,
      ]);
    await runner.stop(ended, drainTimeoutMs, signal);
  }

  return {
    concurrency,
    get freeSlots() {
      return slots.free;
    },
    onFreeSlots: (listener) => slots.onChange(listener),
    handle,
    settled: (decision) =>
      ledger.settled(decision.key).catch((error: unknown) => {
        log.warn('the ledger could not note a settlement', { error });
      }),
    takes: (event) => inForce.find(event)?.name,
    answer,
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

/** What is concluded of a command, the same for each of its deliveries. */
interface Conclusion {
  outcome: CommandOutcome;
  from: CommandDecision['from'];
  handler?: string;
  attempt: number;
  /** How long to keep it before telling the hub, if the lock lasts. */
  holdMs: number;
}

/** Without a copy to which fields are added, which takes V8 far longer. */
function decisionOn(
  key: string,
  { outcome, handler, attempt, from }: Conclusion,
  elapsedMs: number,
): CommandDecision {
  return outcome.outcome === 'accept'
    ? { outcome: 'accept', key, handler, attempt, from, elapsedMs }
    : { outcome: outcome.outcome, reason: outcome.reason, key, handler, attempt, from, elapsedMs };
}

function nothingRan(outcome: CommandOutcome, releaseHoldMs = 0): Conclusion {
  return { outcome, from: 'none', attempt: 0, holdMs: outcome.outcome === 'release' ? releaseHoldMs : 0 };
}

const stoppedAnswer: Answer = {
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

/** Nobody waits for it any more, and there is no link on which it could be settled. */
const linkGone = nothingRan({ outcome: 'release', reason: 'the link is gone' });
const noConclusion = Promise.resolve(linkGone);

/** A command and the deliveries of it that wait for its conclusion. */
interface InHand {
  waiting: number;
  conclusion: Promise<Conclusion>;
}

function isForInbox(handler: Handler, known: UndecidedCommand): boolean {
  return handler.inbox !== undefined && known.state === 'open';
}

/** Field by field: a copy that leaves something out takes V8 ten times as long. */
function eventOf(command: Command): CommandEvent {
  const event: AllFields<CommandEvent> = {
    event: 'command',
    deviceId: command.deviceId,
    moduleId: command.moduleId,
    messageId: command.messageId,
    correlationId: command.correlationId,
    userId: command.userId,
    contentType: command.contentType,
    contentEncoding: command.contentEncoding,
    ack: command.ack,
    enqueuedAt: command.enqueuedAt,
    expiresAt: command.expiresAt,
    sequenceNumber: command.sequenceNumber,
    deliveryCount: command.deliveryCount,
    properties: command.properties,
    body: command.body,
  };
  return event;
}

/** What is sent as JSON is no use when its end is missing. */
function wholeAnswer(answer: Answer): Answer {
  if (answer.replyBytes === undefined) return answer;
  const reason = `it printed ${answer.replyBytes} bytes, of which ${keptOutputBytes} are kept`;
  return { ...answer, outcome: 'reject', status: 500, reason, reply: undefined };
}
