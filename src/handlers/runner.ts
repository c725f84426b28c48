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
  readonly #stopping = new AbortController();
  readonly #killing = new AbortController();

  constructor(log: Log, clock: Clock) {
    this.#log = log;
    this.#clock = clock;
    // Every run and every command that is kept back listens to these; Node takes more than ten for a leak.
    setMaxListeners(0, this.#stopping.signal, this.#killing.signal);
  }

  /** Aborted when the agent stops. */
  get stopping(): AbortSignal {
    return this.#stopping.signal;
  }

  get health(): ReadonlyMap<string, HandlerHealth> {
    return this.#health;
  }

  /** Never rejects. */
  async run(handler: Handler, event: HandlerEvent, attempt: number, timeoutMs: number): Promise<Answer> {
    const [stopping, killing] = [this.#stopping.signal, this.#killing.signal];
    const run = new LoggedRun(attempt, timeoutMs, stopping, killing, () =>
      this.#log.child(identification(handler, event)),
    );
    let answer: Answer;
    try {
      answer = await handler.run(event, run);
    } catch (error) {
      run.log.error('the handler failed in a way that it never should', { error });
      answer = { outcome: 'release', status: 500, reason: errorText(error), decidedBy: 'fault' };
    }
    this.#note(handler.name, answer);
    const { outcome, reason } = answer;
    const whole = Object.assign(identification(handler, event), { outcome, reason, attempt });
    this.#log.debug('the handler answered', whole);
    return answer;
  }

  /** Tells what runs to end, and kills it when `graceMs` are over or `signal` is aborted; `ended` says that all has. */
  async stop(ended: () => Promise<unknown>, graceMs: number, signal?: AbortSignal): Promise<void> {
    this.#stopping.abort();
    const over = new AbortController();
    const patience = signal === undefined ? over.signal : AbortSignal.any([over.signal, signal]);
    void this.#clock
      .sleep(graceMs, patience)
      .catch(() => undefined)
      .then(() => {
        this.#killing.abort();
      });
    await ended();
    over.abort();
  }

  forgetAllBut(names: ReadonlySet<string>): void {
    for (const name of this.#health.keys()) if (!names.has(name)) this.#health.delete(name);
  }

  #note(name: string, { decidedBy, reason = 'unknown' }: Answer): void {
    if (decidedBy === 'stopping') return;
    const before = this.#health.get(name) ?? working;
    if (decidedBy === 'handler') {
      if (before.state === 'degraded') this.#log.info('a handler works again', { handler: name });
      this.#health.set(name, working);
    } else if (before.state === 'ok' || before.reason !== reason) {
      const facts = { handler: name, reason };
      if (decidedBy === 'installation') this.#log.error('a handler cannot be started', facts);
      else this.#log.warn('a handler failed', facts);
      const since = before.state === 'ok' ? this.#clock.now() : before.since;
      this.#health.set(name, { state: 'degraded', reason, since });
    }
  }
}

const working: HandlerHealth = { state: 'ok' };

/** Its log is only made for those who write to it: that costs more than all the rest. */
class LoggedRun implements Run {
  #log: Log | undefined;

  constructor(
    readonly attempt: number,
    readonly timeoutMs: number,
    readonly stopping: AbortSignal,
    readonly killing: AbortSignal,
    private readonly makeLog: () => Log,
  ) {}

  get log(): Log {
    this.#log ??= this.makeLog();
    return this.#log;
  }
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
