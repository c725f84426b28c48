import type { Log } from '../log.js';
import type { EventKind, HandlerEvent } from './contract.js';
import type { Match } from './route.js';

/** What is told about a handler from outside, whatever its form. */
export interface HandlerRules {
  /** As the configuration names it; unique. */
  name: string;
  match?: Match | undefined;
  /** Default: the dispatcher's. */
  order?: Order | undefined;
  /** Default 45 s for a command, 30 s for a method, 5 min for a twin. */
  timeoutMs?: number | undefined;
  /** Default `run`. */
  afterCrash?: 'run' | 'reject' | undefined;
  /**
   * Whether what came of a command goes out as telemetry: `true`, always, if only the outcome; `false`, never.
   * Default: what a module or a stream answers with, nothing of a program; and always with an inbox.
   */
  reply?: boolean | undefined;
  /** Default: none, the hub is told after the run. */
  inbox?: InboxRules | undefined;
}

/** What the dispatcher knows of a handler, whatever its form: program, module or stream. */
export interface Handler extends AsyncDisposable {
  /** As the configuration names it; unique, and the lane of `order = "handler"`. */
  readonly name: string;
  readonly on: EventKind;
  /** Which events of its kind it takes; absent: all. */
  readonly match?: Match | undefined;
  /** What of this handler's events happens one after the other, where that differs from the dispatcher's order. */
  readonly order?: Order | undefined;
  /** How long one run may take. For commands this and what follows it must fit the hub's lock of 60 s. */
  readonly timeoutMs: number;
  /**
   * Whether telemetry tells what came of a command: `never`, as it has something to reply (`given`), or `always`.
   * Methods and twins always get their answer. Default `never`.
   */
  readonly replies?: 'never' | 'given' | 'always' | undefined;
  /** What to do about a command that was running when the agent ended, so that nobody knows how far it got. */
  readonly afterCrash: 'run' | 'reject';
  /** Accept a command once it is on disk and run it from there; absent: the hub is told after the run. */
  readonly inbox?: InboxRules | undefined;
  /** Answers within `run.timeoutMs` and the time it takes to kill what does not listen, or at once. Never rejects. */
  run(event: HandlerEvent, run: Run): Answer | Promise<Answer>;
}

/** When a command of the inbox is given up. */
export interface InboxRules {
  /** Runs that ended in "later" or failed. */
  maximumAttempts: number;
  maximumAgeMs: number;
}

/** The part of a handler that its rules decide. */
export function ruledHandler(
  { name, match, order, timeoutMs, afterCrash = 'run', reply, inbox }: HandlerRules,
  on: EventKind,
  unlessSaid: 'never' | 'given',
): Omit<Handler, 'run' | typeof Symbol.asyncDispose> {
  const usual = inbox === undefined ? unlessSaid : 'always';
  const replies = reply === undefined ? usual : reply ? 'always' : 'never';
  return {
    name,
    on,
    match,
    order,
    timeoutMs: timeoutMs ?? defaultTimeoutMs[on],
    replies,
    afterCrash,
    inbox,
  };
}

/** One at a time for each: handler, device, value of an application property (`key`); or all at once. */
export type Order = 'handler' | 'device' | 'none' | { key: string };

/** One run of a handler. */
export interface Run {
  /** 1 for the first run of this event. */
  attempt: number;
  timeoutMs: number;
  /** Carries the handler's name and the message id. */
  log: Log;
  /** Aborted when the agent stops: come to an end. */
  stopping: AbortSignal;
  /** Aborted when that took too long: end now. Never before `stopping`. */
  killing: AbortSignal;
}

/** What one run came to. For a command the outcome counts; for a method and a twin the status does. */
export interface Answer {
  outcome: 'accept' | 'reject' | 'release';
  /** In the manner of HTTP: the status of a method, `ac` of a twin. */
  status: number;
  reason?: string | undefined;
  /** What goes back: telemetry for a command, the payload of a method, the reported patch of a twin. */
  reply?: Buffer | undefined;
  /** The reply is not all of it: it had so many bytes. */
  replyBytes?: number | undefined;
  /**
   * Who says so.
   * `handler`: it decided.
   * `fault`: it crashed, hung or has a bug; after three of these the command is rejected.
   * `installation`: it cannot be started at all, which is no fault of the command.
   * `stopping`: the agent stopped it half-way.
   */
  decidedBy: 'handler' | 'fault' | 'installation' | 'stopping';
}

/** For a copy made field by field: none may be forgotten, not even one that need not be there. */
export type AllFields<T> = { [Name in keyof Required<T>]: T[Name] };

/** How often a command may crash its handler before it is rejected. */
export const faultLimit = 3;
/** For a command: with the kill and the settlement it stays below the lock of 60 s. For a method: as its caller waits. */
export const defaultTimeoutMs = { command: 45_000, method: 30_000, twin: 300_000 } as const;
/** From SIGTERM to SIGKILL. */
export const killGraceMs = 5_000;
/** How much of what a program prints is kept. */
export const keptOutputBytes = 64 * 1024;
