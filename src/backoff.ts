import type { RetryClass } from './errors.js';

/**
 * How long to wait before the next attempt, in milliseconds. Uniform in [c/2, c], so that a thousand agents do not
 * come back together, with c doubling from attempt to attempt:
 * network trouble 1, 2, 4 … 30 s; a hub that said no 1, 2, 4, 5 min.
 */
export interface Backoff {
  next(retry: Exclude<RetryClass, 'never'>): number;
  /** Forget the failures: the hub has proved to be well, by 30 s of health or by accepting a message. */
  reset(): void;
}

const ceilings = {
  soon: { firstMs: 1_000, lastMs: 30_000 },
  late: { firstMs: 60_000, lastMs: 300_000 },
} as const;

export function createBackoff(random: () => number = Math.random): Backoff {
  let failures = { soon: 0, late: 0 };
  return {
    next(retry) {
      const { firstMs, lastMs } = ceilings[retry];
      const ceilingMs = Math.min(firstMs * 2 ** failures[retry]++, lastMs);
      return ceilingMs / 2 + (random() * ceilingMs) / 2;
    },
    reset() {
      failures = { soon: 0, late: 0 };
    },
  };
}
