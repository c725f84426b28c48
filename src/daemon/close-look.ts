import type { Log } from '../log.js';
import type { AgentStatus } from './status.js';

/** How long the log says more. */
const debugMs = 60_000;

export interface CloseLookOptions {
  status: () => Promise<AgentStatus>;
  /** Turns the messages of `debug` on, or the level back to what was configured. */
  setDebug: (isOn: boolean) => void;
  log: Log;
}

/**
 * What SIGUSR2 asks for: the whole status in the log, and `debug` for a minute, or until the signal comes again.
 * For a machine on which nothing but `kill` and the log is at hand.
 */
export class CloseLook implements Disposable {
  readonly #options: CloseLookOptions;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: CloseLookOptions) {
    this.#options = options;
  }

  toggle(): void {
    const { status, log } = this.#options;
    status().then(
      (found) => {
        log.info('status', { ...found });
      },
      (error: unknown) => {
        log.error('the status cannot be told', { error });
      },
    );
    if (this.#timer !== undefined) this.#end();
    else {
      this.#options.setDebug(true);
      log.info('debug messages for a minute; the same signal ends them');
      this.#timer = setTimeout(() => {
        this.#end();
      }, debugMs);
    }
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }

  #end(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#options.setDebug(false);
    this.#options.log.info('no more debug messages');
  }
}
