import type { Log } from '../log.js';
import { toAgentError } from './errors.js';

/**
 * Whether links are attached together with the token instead of after the hub has answered to it, which saves a round
 * trip. The hub may take that for an attach without rights, so this remembers: once it has refused, it is asked in
 * order for as long as this process lives.
 */
export class EarlyAttach {
  readonly #log: Log;
  #isRefused = false;

  constructor(log: Log) {
    this.#log = log;
  }

  get isRefused(): boolean {
    return this.#isRefused;
  }

  /** Whether the hub may have said this because links came early: what it says of a token, it says in any order. */
  isRefusedBy(error: unknown): boolean {
    const { condition } = toAgentError(error);
    if (condition === undefined || condition.startsWith('cbs:')) return false;
    if (!this.#isRefused) {
      this.#log.warn(
        'the hub does not take links before it has answered to the token: in order from now on',
        {
          error,
        },
      );
    }
    this.#isRefused = true;
    return true;
  }
}
