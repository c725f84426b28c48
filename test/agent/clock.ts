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
