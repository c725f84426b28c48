import { AgentError } from '../../errors.js';
import { anyOf } from '../../signals.js';
import { formatDuration } from '../../units.js';
import { Alarm } from '../alarm.js';
import type { EndingFlags } from '../ending-options.js';
import type { TimeoutFlags } from '../identity-options.js';
import type { Io } from '../io.js';

/** When a command ends that would go on for ever: by a signal, by its flags, or because it never got anywhere. */
export class Ending implements Disposable {
  /** Aborted at the end. */
  readonly until: AbortSignal & Disposable;
  readonly #flags: EndingFlags & TimeoutFlags;
  readonly #enough = new AbortController();
  readonly #tooLate = new AbortController();
  readonly #patience: Alarm;
  readonly #idle: Alarm;
  readonly #whole: Alarm;
  #left: number;

  constructor(io: Io, flags: EndingFlags & TimeoutFlags) {
    this.#flags = flags;
    this.#left = flags.count ?? Infinity;
    this.until = anyOf(io.stop, io.stdout.readerGone, this.#enough.signal, this.#tooLate.signal);
    this.#patience = new Alarm(Number.isFinite(flags.timeout) ? flags.timeout : undefined, this.#tooLate);
    this.#idle = new Alarm(flags.idle, this.#enough);
    this.#whole = new Alarm(flags.for, this.#enough);
    this.#patience.restart();
  }

  /** It has begun: from now on time counts. */
  readonly online = (): void => {
    this.#patience.stop();
    this.#idle.restart();
    this.#whole.restart();
  };

  /** Something came. */
  arrived(): void {
    this.#idle.restart();
  }

  /** One more is done. Returns whether that is enough. */
  counted(): boolean {
    return --this.#left <= 0;
  }

  /** Takes what the work threw: throws it on, unless that is how the work ends. */
  settle(thrown: unknown): void {
    const { timeout } = this.#flags;
    if (this.#tooLate.signal.aborted) {
      throw new AgentError('unavailable', `it was not reached within ${formatDuration(timeout)}`, {
        cause: thrown,
      });
    }
    if (!this.until.aborted) throw thrown;
  }

  [Symbol.dispose](): void {
    for (const alarm of [this.#patience, this.#idle, this.#whole]) alarm.stop();
    this.until[Symbol.dispose]();
  }
}
