import { setMaxListeners } from 'node:events';

import type { Clock } from '../clock.js';
import { errorText } from '../errors.js';
import type { Log, LogFields } from '../log.js';
import type { HandlerEvent } from './contract.js';
import type { Answer, Handler, Run } from './handler.js';

export type HandlerHealth = { state: 'ok' } | { state: 'degraded'; reason: string; since: number };

/** Runs handlers, remembers which of them fail, and brings all runs to an end when the agent stops. */
export class Runner {
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #health = new Map<string, HandlerHealth>();
  readonly #stop = new AbortController();
  readonly #kill = new AbortController();
  /** Aborted when the agent stops. */
  readonly stopping: AbortSignal = this.#stop.signal;
  readonly #killing = this.#kill.signal;

  constructor(log: Log, clock: Clock) {
    this.#log = log;
    this.#clock = clock;
    // Every run and every command that is kept back listens to these; Node takes more than ten for a leak.
    setMaxListeners(0, this.stopping, this.#killing);
  }

  get health(): ReadonlyMap<string, HandlerHealth> {
    return this.#health;
  }

  /** Never rejects. At once where the handler answers at once. */
  run(handler: Handler, event: HandlerEvent, attempt: number, timeoutMs: number): Answer | Promise<Answer> {
    const run = new LoggedRun(handler, event, attempt, timeoutMs, this.stopping, this.#killing, this.#log);
    try {
      const answer = handler.run(event, run);
      if (!(answer instanceof Promise)) return this.#answered(run, answer);
      return answer.then(
        (later) => this.#answered(run, later),
        (error: unknown) => this.#answered(run, failedAnswer(run, error)),
      );
    } catch (error) {
      return this.#answered(run, failedAnswer(run, error));
    }
  }

  /** Tells what runs to end, and kills it when `graceMs` are over or `signal` is aborted; `ended` says that all has. */
  async stop(ended: () => Promise<unknown>, graceMs: number, signal?: AbortSignal): Promise<void> {
    this.#stop.abort();
    const over = new AbortController();
    const patience = signal === undefined ? over.signal : AbortSignal.any([over.signal, signal]);
    void this.#clock
      .sleep(graceMs, patience)
      .catch(() => undefined)
      .then(() => {
        this.#kill.abort();
      });
    await ended();
    over.abort();
  }

  forgetAllBut(names: ReadonlySet<string>): void {
    for (const name of this.#health.keys()) if (!names.has(name)) this.#health.delete(name);
  }

  #answered({ handler, event, attempt }: LoggedRun, answer: Answer): Answer {
    this.#note(handler.name, answer);
    const { outcome, reason } = answer;
    const { name } = handler;
    // Without a copy, for a command: this is a line that is hardly ever read.
    const facts =
      event.event === 'command'
        ? { handler: name, message: event.messageId, outcome, reason, attempt }
        : { ...identification(handler, event), outcome, reason, attempt };
    this.#log.debug('the handler answered', facts);
    return answer;
  }

  #note(name: string, { decidedBy, reason = 'unknown' }: Answer): void {
    const before = this.#health.get(name);
    if (decidedBy === 'stopping' || (decidedBy === 'handler' && before === working)) return;
    if (decidedBy === 'handler') {
      if (before !== undefined) this.#log.info('a handler works again', { handler: name });
      this.#health.set(name, working);
    } else if (before?.state !== 'degraded' || before.reason !== reason) {
      const facts = { handler: name, reason };
      if (decidedBy === 'installation') this.#log.error('a handler cannot be started', facts);
      else this.#log.warn('a handler failed', facts);
      const since = before?.state === 'degraded' ? before.since : this.#clock.now();
      this.#health.set(name, { state: 'degraded', reason, since });
    }
  }
}

const working: HandlerHealth = { state: 'ok' };

/** Its log is only made for those who write to it: that costs more than all the rest. */
class LoggedRun implements Run {
  #log: Log | undefined;

  constructor(
    readonly handler: Handler,
    readonly event: HandlerEvent,
    readonly attempt: number,
    readonly timeoutMs: number,
    readonly stopping: AbortSignal,
    readonly killing: AbortSignal,
    private readonly parentLog: Log,
  ) {}

  get log(): Log {
    this.#log ??= this.parentLog.child(identification(this.handler, this.event));
    return this.#log;
  }
}

function failedAnswer({ log }: LoggedRun, error: unknown): Answer {
  log.error('the handler failed in a way that it never should', { error });
  return { outcome: 'release', status: 500, reason: errorText(error), decidedBy: 'fault' };
}

function identification({ name: handler }: Handler, event: HandlerEvent): LogFields {
  switch (event.event) {
    case 'command':
      return { handler, message: event.messageId };
    case 'method':
      return { handler, method: event.method };
    case 'twin':
      return { handler, path: event.path, version: event.version };
  }
}
