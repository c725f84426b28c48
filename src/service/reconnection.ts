import { toAgentError } from '../amqp/errors.js';
import { createBackoff } from '../backoff.js';
import type { Clock } from '../clock.js';
import type { Log } from '../log.js';

/** What happens between two connections. */
export class Reconnection {
  readonly #what: string;
  readonly #backoff = createBackoff();
  #wasOnline = false;

  /** `what` is out of reach meanwhile, in the words of the log. */
  constructor(what: string) {
    this.#what = what;
  }

  /** Whether there was a connection that came to something. */
  get wasOnline(): boolean {
    return this.#wasOnline;
  }

  /**
   * Waits before the next connection, after one that ended by `thrown`; `online` says whether it came to something.
   * Rejects with the error when another one would not help, and what never was in reach may not be there at all.
   */
  async pause(
    { thrown, online }: { thrown: unknown; online: boolean },
    { clock, log }: { clock: Clock; log: Log },
    signal: AbortSignal,
  ): Promise<void> {
    signal.throwIfAborted();
    const error = toAgentError(thrown);
    this.#wasOnline ||= online;
    if (!this.#wasOnline || error.retry === 'never' || error.code === 'bug') throw error;
    if (online) this.#backoff.reset();
    const delayMs = this.#backoff.next(online ? 'soon' : error.retry);
    log.warn(`${this.#what} is out of reach, trying again`, { error, delayMs });
    await clock.sleep(delayMs, signal);
  }
}
