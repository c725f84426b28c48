import type { Log } from '../log.js';
import type { EventKind, HandlerEvent } from './contract.js';
import type { Match } from './route.js';

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
  /** Whether what it answers a command with goes out as telemetry. Methods and twins always get theirs. */
  readonly replies?: boolean | undefined;
  /** What to do about a command that was running when the agent died, so that nobody knows how far it got. */
  readonly afterCrash: 'run' | 'reject';
  /** Answers within `run.timeoutMs` and the time it takes to kill what does not listen. Never rejects. */
  run(event: HandlerEvent, run: Run): Promise<Answer>;
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
  /**
   * Who says so.
   * `handler`: it decided.
   * `fault`: it crashed, hung or has a bug; after three of these the command is rejected.
   * `installation`: it cannot be started at all, which is no fault of the command.
   * `stopping`: the agent stopped it half-way.
   */
  decidedBy: 'handler' | 'fault' | 'installation' | 'stopping';
}

/** How often a command may crash its handler before it is rejected. */
export const faultLimit = 3;
/** For a command: with the kill and the settlement it stays below the lock of 60 s. For a method: as its caller waits. */
export const defaultTimeoutMs = { command: 45_000, method: 30_000, twin: 300_000 } as const;
/** From SIGTERM to SIGKILL. */
export const killGraceMs = 5_000;
/** How much of what a program prints is kept. */
export const keptOutputBytes = 64 * 1024;
