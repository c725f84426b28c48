import { expect, test } from 'vitest';

import type { Clock } from '../../src/clock.js';
import { Faults } from '../../src/emulator/faults.js';
import { makeTrouble } from '../../src/emulator/trouble.js';

test('makes the same trouble for the same seed, and another for another', async () => {
  const [first, again, other] = await Promise.all([7, 7, 8].map((seed) => troubleOf(seed)));
  expect(first).toEqual(again);
  expect(first).not.toEqual(other);
  expect(first!.faults).toHaveLength(20);
});

/** The first twenty faults, with the time between them. */
async function troubleOf(seed: number): Promise<{ faults: object[]; waits: number[] }> {
  const stop = new AbortController();
  const waits: number[] = [];
  const clock: Clock = {
    now: () => 0,
    monotonic: () => 0,
    sleep: (ms, signal) => {
      if (waits.length === 20) stop.abort();
      else waits.push(ms);
      signal?.throwIfAborted();
      return Promise.resolve();
    },
  };
  const faults = new Faults(
    () => 0,
    () => undefined,
  );
  const done = await makeTrouble(faults, { seed, everyMs: 1000, clock, signal: stop.signal });
  return { faults: done, waits };
}
