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
      await delay(Math.min(left, longestTimerMs), undefined, signal ? { signal } : {}).catch(
        (error: unknown) => {
          // Its own AbortError says less.
          signal?.throwIfAborted();
          throw error;
        },
      );
    }
    signal?.throwIfAborted();
  },
};

/** How far the two clocks may drift apart, by slewing or by a slow machine, before it counts as a step. */
const stepMs = 30_000;
const lookEveryMs = 5_000;

/**
 * Resolves when somebody has set the wall clock, or the machine has slept: when the wall clock moved against the
 * monotonic one. Rejects with the signal's reason when it is aborted first.
 */
export async function clockStep(clock: Clock, signal: AbortSignal): Promise<void> {
  const offset = clock.now() - clock.monotonic();
  do {
    await clock.sleep(lookEveryMs, signal);
  } while (Math.abs(clock.now() - clock.monotonic() - offset) < stepMs);
}
