/** The short form of `npm run soak`. A seed that fails fails again: `npm run soak -- --runs 1 --seed N`. */
import { describe, expect, test } from 'vitest';

import { describeMix, isGood, mix } from './mixer.js';

describe.concurrent('troubles of every kind, one after the other, lose and repeat nothing', () => {
  test.each(Array.from({ length: 15 }, (_, n) => n + 1))('seed %i', async (seed) => {
    const mixed = await mix({ seed, messages: 300, commands: 15 });
    expect(isGood(mixed), describeMix(mixed)).toBe(true);
    expect(mixed.acknowledged).toBeGreaterThan(150);
  });
});

test('without any trouble nothing is repeated, and all is in order', async () => {
  const mixed = await mix({ seed: 1, messages: 3_000, commands: 30, troubles: 1, kinds: [] });
  expect(isGood(mixed), describeMix(mixed)).toBe(true);
  expect(mixed.telemetry).toMatchObject({ duplicates: 0, reordered: [], lostLinks: 0 });
  expect(mixed.acknowledged).toBe(3_000);
});
