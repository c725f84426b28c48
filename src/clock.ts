import { setTimeout as delay } from 'node:timers/promises';

/**
 * Time as a parameter. `now` is the wall clock that tokens and messages carry; `monotonic` is what schedules are
 * kept by, because the wall clock of a device jumps (no battery, late NTP).
 */
export interface Clock {
  /** Milliseconds since the epoch, UTC. */
  now(): number;
  /** Milliseconds that only go forward. */
  monotonic(): number;
  /** Resolves after `ms`; rejects with the signal's reason when it is aborted first. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** Longest delay that Node's timers take; a longer one fires after a millisecond. */
const longestTimerMs = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  async sleep(ms, signal) {
    for (let left = ms; left > 0; left -= longestTimerMs) {
      await delay(Math.min(left, longestTimerMs), undefined, signal ? { signal } : {});
    }
    signal?.throwIfAborted();
  },
};
