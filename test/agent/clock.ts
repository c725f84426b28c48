import { systemClock, type Clock } from '../../src/clock.js';

/** A clock whose time runs `factor` times as fast as that of the machine. */
export function fastClock(factor: number): Clock {
  const startedAt = Date.now();
  const origin = performance.now();
  const elapsed = (): number => (performance.now() - origin) * factor;
  return {
    now: () => startedAt + elapsed(),
    monotonic: elapsed,
    sleep: (ms, signal) => systemClock.sleep(ms / factor, signal),
  };
}

/** A clock that stands still until it is told that time goes by; its wall time can be set, as NTP does. */
export class SteppedClock implements Clock {
  readonly #startedAt = Date.now();
  readonly #sleepers = new Set<{ until: number; wake: () => void }>();
  #elapsedMs = 0;
  #offsetMs = 0;

  now = (): number => this.#startedAt + this.#elapsedMs + this.#offsetMs;
  monotonic = (): number => this.#elapsedMs;

  sleep = async (ms: number, signal?: AbortSignal): Promise<void> => {
    signal?.throwIfAborted();
    await new Promise<void>((resolve, reject) => {
      const onAbort = () => {
        this.#sleepers.delete(sleeper);
        reject(signal?.reason as Error);
      };
      const wake = () => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      };
      const sleeper = { until: this.#elapsedMs + ms, wake };
      this.#sleepers.add(sleeper);
      signal?.addEventListener('abort', onAbort);
    });
  };

  /** Moves the wall time alone. */
  set(byMs: number): void {
    this.#offsetMs += byMs;
  }

  /** Time goes by; who sleeps is woken in turn, and does what follows before the next is. */
  async pass(ms: number): Promise<void> {
    const end = this.#elapsedMs + ms;
    for (;;) {
      await new Promise(setImmediate);
      const [next] = [...this.#sleepers].sort((a, b) => a.until - b.until);
      if (!next || next.until > end) break;
      this.#sleepers.delete(next);
      this.#elapsedMs = next.until;
      next.wake();
    }
    this.#elapsedMs = end;
  }
}
