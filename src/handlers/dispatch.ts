import { once, setMaxListeners } from 'node:events';

import { systemClock, type Clock } from '../clock.js';
import { errorText } from '../errors.js';
import type { Log } from '../log.js';
import { hubLimits, type Command, type CommandOutcome } from '../model.js';
import { commandKey } from './command-key.js';
import type { CommandEvent, MethodEvent, TwinEvent } from './contract.js';
import { faultLimit, type Answer, type Handler, type Order } from './handler.js';
import { memoryLedger, type CommandLedger, type KnownCommand } from './ledger.js';
import { plainText } from './output.js';
import { findRoute } from './route.js';
import { Lanes, Limit, Slots } from './slots.js';

/**
 * How a command becomes an outcome: known already? → which handler? → its turn → run → recorded → answered.
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
  /** How long a handler may take to end when the agent stops. Default 20 s. */
  drainTimeoutMs?: number;
  /** How long the hub keeps a delivered command for us. Default 60 s. */
  lockMs?: number;
  /** Default: one that lasts as long as the process. */
  ledger?: CommandLedger;
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
  /** Runs the handler of a direct method or a desired property; undefined when there is none. Never rejects. */
  answer(event: MethodEvent | TwinEvent, options?: { timeoutMs?: number }): Promise<Answer | undefined>;
  /** Takes other handlers from now on. What runs on the former goes on; closing them is the caller's. */
  replaceHandlers(handlers: readonly Handler[]): void;
  /** What is wrong with handlers, if anything. */
  health(): ReadonlyMap<string, HandlerHealth>;
  /**
   * Takes nothing more, tells running handlers to end, kills them when `drainTimeoutMs` is over or `signal` is
   * aborted, and resolves when none runs.
   */
  drain(signal?: AbortSignal): Promise<void>;
}

export type CommandDecision = CommandOutcome & {
  /** Identifies the command across deliveries. */
  key: string;
  /** Absent when no handler was involved. */
  handler?: string | undefined;
  /** 1 for the first run; 0 when nothing ran. */
  attempt: number;
  /** `record`: the outcome of an earlier delivery. `none`: nothing ran (no handler, stopping, ledger trouble, link gone). */
  from: 'handler' | 'record' | 'none';
  elapsedMs: number;
};

export type HandlerHealth = { state: 'ok' } | { state: 'degraded'; reason: string; since: number };

/** A released command comes back at once, so it is kept a little, longer each time. */
const firstReleaseDelayMs = 5_000;
/** What is left of the lock for the settlement to reach the hub. */
const lockMarginMs = 5_000;

export function createDispatcher(options: DispatcherOptions): Dispatcher {
  const { log, unmatched = 'reject', order = 'handler', clock = systemClock } = options;
  const { concurrency = 4, drainTimeoutMs = 20_000, lockMs = hubLimits.commandLockMs } = options;
  const ledger = options.ledger ?? memoryLedger();
  const slots = new Slots(concurrency);
  const lanes = new Lanes();
  const commandLimit = new Limit(concurrency);
  const eventLimit = new Limit(concurrency);
  const inHand = new Map<string, InHand>();
  const answering = new Set<Promise<Answer>>();
  const health = new Map<string, HandlerHealth>();
  const stopping = new AbortController();
  const killing = new AbortController();
  // Every run and every command that is kept back listens to these; Node takes more than ten for a leak.
  setMaxListeners(0, stopping.signal, killing.signal);
  let { handlers } = options;
  let withoutKey = 0;

  async function handle(
    command: Command,
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<CommandDecision> {
    const arrivedAt = clock.monotonic();
    if (signal !== undefined) setMaxListeners(0, signal); // as many listen as there are commands in hand
    const key = keyOf(command);
    const conclusion = await shared(inHand.get(key) ?? takeInHand(key, command), signal);
    const holdMs = Math.min(conclusion.holdMs, arrivedAt + lockMs - lockMarginMs - clock.monotonic());
    if (holdMs > 0) await hold(holdMs, signal);
    const { outcome, handler, attempt, from } = conclusion;
    return { ...outcome, key, handler, attempt, from, elapsedMs: clock.monotonic() - arrivedAt };
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
    entry.conclusion = conclude(key, command, entry)
      .catch((error: unknown) => {
        log.error('a command could not be handled and goes back to the hub', {
          error,
          message: command.messageId,
        });
        return nothingRan({ outcome: 'release', reason: errorText(error) }, firstReleaseDelayMs);
      })
      .finally(() => inHand.delete(key));
    inHand.set(key, entry);
    return entry;
  }

  async function conclude(key: string, command: Command, entry: InHand): Promise<Conclusion> {
    using _slot = slots.take();
    const known = await ledger.received(key, command);
    if (known.state === 'decided') return { outcome: known.outcome, from: 'record', attempt: 0, holdMs: 0 };
    const event = eventOf(command);
    const handler = findRoute(handlers, event);
    if (handler === undefined) {
      log.warn('no handler for a command', { message: command.messageId, outcome: unmatched });
      return nothingRan({ outcome: unmatched, reason: 'no handler' }, firstReleaseDelayMs);
    }
    using _turn = await lanes.enter(laneOf(handler.order ?? order, handler, command, key));
    using _place = await commandLimit.enter();
    if (stopping.signal.aborted) return nothingRan({ outcome: 'release', reason: 'the agent is stopping' });
    if (entry.waiting === 0) return linkGone; // it comes again, and takes its turn then
    return await runCommand(key, event, handler, known);
  }

  async function runCommand(
    key: string,
    event: CommandEvent,
    handler: Handler,
    known: KnownCommand & { attempts: number; faults: number },
  ): Promise<Conclusion> {
    if (known.state === 'unknown' && handler.afterCrash === 'reject') {
      const reason = 'the agent ended while its handler ran; what it did is unknown';
      const outcome: CommandOutcome = { outcome: 'reject', reason };
      await ledger.finished(key, { outcome, fault: false });
      return { outcome, from: 'handler', handler: handler.name, attempt: known.attempts, holdMs: 0 };
    }
    const attempt = known.attempts + 1;
    await ledger.started(key, { handler: handler.name, attempt });
    const answer = await runHandler(handler, event, attempt, handler.timeoutMs);
    const fault = answer.decidedBy === 'fault';
    const outcome = outcomeOf(answer, known.faults + (fault ? 1 : 0));
    const reply = handler.replies === true ? answer.reply : undefined;
    await ledger.finished(key, { outcome, fault, reply });
    const holdMs = answer.decidedBy === 'stopping' ? 0 : releaseDelayMs(outcome, attempt);
    return { outcome, from: 'handler', handler: handler.name, attempt, holdMs };
  }

  async function answer(
    event: MethodEvent | TwinEvent,
    { timeoutMs }: { timeoutMs?: number } = {},
  ): Promise<Answer | undefined> {
    const handler = findRoute(handlers, event);
    if (handler === undefined) return undefined;
    const run = (async (): Promise<Answer> => {
      using _turn = await lanes.enter(`${event.event} ${handler.name}`);
      using _place = await eventLimit.enter();
      if (stopping.signal.aborted) return stoppedAnswer;
      return await runHandler(handler, event, 1, Math.min(timeoutMs ?? Infinity, handler.timeoutMs));
    })();
    answering.add(run);
    return run.finally(() => answering.delete(run));
  }

  async function runHandler(
    handler: Handler,
    event: CommandEvent | MethodEvent | TwinEvent,
    attempt: number,
    timeoutMs: number,
  ): Promise<Answer> {
    const runLog = log.child({ handler: handler.name, ...identification(event) });
    const run = { attempt, timeoutMs, log: runLog, stopping: stopping.signal, killing: killing.signal };
    const answer = await handler.run(event, run).catch((error: unknown): Answer => {
      runLog.error('the handler failed in a way that it never should', { error });
      return { outcome: 'release', status: 500, reason: errorText(error), decidedBy: 'fault' };
    });
    noteHealth(handler.name, answer);
    runLog.debug('the handler answered', { outcome: answer.outcome, reason: answer.reason, attempt });
    return answer;
  }

  function noteHealth(name: string, { decidedBy, reason = 'unknown' }: Answer): void {
    if (decidedBy === 'stopping') return;
    const before = health.get(name) ?? { state: 'ok' };
    if (decidedBy === 'handler') {
      if (before.state === 'degraded') log.info('a handler works again', { handler: name });
      health.set(name, { state: 'ok' });
    } else if (before.state === 'ok' || before.reason !== reason) {
      const cannotStart = decidedBy === 'installation';
      log[cannotStart ? 'error' : 'warn'](cannotStart ? 'a handler cannot be started' : 'a handler failed', {
        handler: name,
        reason,
      });
      const since = before.state === 'ok' ? clock.now() : before.since;
      health.set(name, { state: 'degraded', reason, since });
    }
  }

  async function hold(ms: number, signal?: AbortSignal): Promise<void> {
    const ends = signal === undefined ? stopping.signal : AbortSignal.any([stopping.signal, signal]);
    await clock.sleep(ms, ends).catch(() => undefined); // told to stop: the release goes out now
  }

  async function drain(signal?: AbortSignal): Promise<void> {
    slots.close();
    stopping.abort();
    const over = new AbortController();
    const patience = signal === undefined ? over.signal : AbortSignal.any([over.signal, signal]);
    void clock
      .sleep(drainTimeoutMs, patience)
      .catch(() => undefined)
      .then(() => {
        killing.abort();
      });
    await Promise.allSettled([...Array.from(inHand.values(), ({ conclusion }) => conclusion), ...answering]);
    over.abort();
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
    answer,
    replaceHandlers(replacements) {
      handlers = replacements;
      for (const name of health.keys()) {
        if (!handlers.some((handler) => handler.name === name)) health.delete(name);
      }
    },
    health: () => health,
    drain,
    async [Symbol.asyncDispose]() {
      await drain();
      for (const handler of handlers) await handler[Symbol.asyncDispose]();
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

function nothingRan(outcome: CommandOutcome, releaseHoldMs = 0): Conclusion {
  return { outcome, from: 'none', attempt: 0, holdMs: outcome.outcome === 'release' ? releaseHoldMs : 0 };
}

const stoppedAnswer: Answer = {
  outcome: 'release',
  status: 503,
  reason: 'the agent is stopping',
  decidedBy: 'stopping',
};

/** Nobody waits for it any more, and there is no link on which it could be settled. */
const linkGone = nothingRan({ outcome: 'release', reason: 'the link is gone' });
const noConclusion = Promise.resolve(linkGone);

/** A command and the deliveries of it that wait for its conclusion. */
interface InHand {
  waiting: number;
  conclusion: Promise<Conclusion>;
}

async function shared(entry: InHand, signal: AbortSignal | undefined): Promise<Conclusion> {
  if (signal?.aborted) return linkGone;
  entry.waiting++;
  const over = new AbortController();
  try {
    if (signal === undefined) return await entry.conclusion;
    const gone = once(signal, 'abort', { signal: over.signal }).then(
      () => linkGone,
      () => linkGone,
    );
    return await Promise.race([entry.conclusion, gone]);
  } finally {
    entry.waiting--;
    over.abort();
  }
}

function laneOf(order: Order, handler: Handler, command: Command, key: string): string {
  if (order === 'handler') return `command ${handler.name}`;
  if (order === 'device') return `device ${command.deviceId}/${command.moduleId ?? ''}`;
  if (order === 'none') return `alone ${key}`;
  const value = Object.hasOwn(command.properties, order.key) ? command.properties[order.key] : undefined;
  return value === undefined ? `alone ${key}` : `key ${value}`;
}

function eventOf(command: Command): CommandEvent {
  const { lockToken: _, ...fields } = command;
  return { event: 'command', ...fields };
}

function outcomeOf(answer: Answer, faults: number): CommandOutcome {
  const reason = answer.reason === undefined ? undefined : plainText(answer.reason, longestReason);
  switch (answer.outcome) {
    case 'accept':
      return { outcome: 'accept' };
    case 'reject':
      return { outcome: 'reject', reason };
    case 'release':
      return faults >= faultLimit
        ? { outcome: 'reject', reason: plainText(`failed ${faults} times: ${reason ?? ''}`, longestReason) }
        : { outcome: 'release', reason };
  }
}

/** It becomes the description of the rejection. */
const longestReason = 256;

function releaseDelayMs(outcome: CommandOutcome, attempt: number): number {
  return outcome.outcome === 'release' ? firstReleaseDelayMs * 2 ** Math.min(attempt - 1, 10) : 0;
}

function identification(event: CommandEvent | MethodEvent | TwinEvent): Record<string, unknown> {
  switch (event.event) {
    case 'command':
      return { message: event.messageId };
    case 'method':
      return { method: event.method };
    case 'twin':
      return { path: event.path, version: event.version };
  }
}
