import { expect, test } from 'vitest';

import { fuzz } from './fuzz.js';

// Another seed every day, so that the suite sees more over time; a failure says which.
const seed = Math.floor(Date.now() / 86_400_000) * 100_000;

test(
  `N15: damaged frames and messages neither end the process nor stall it (seed ${seed})`,
  { timeout: 120_000 },
  async () => {
    const found = await fuzz({ frames: 2_000, seed, batch: 300, parallel: 1 });
    const { damagedFrames, violations, unreadable, readable, beside, settled, longestStallMs } = found;
    expect(found).toMatchObject({ exits: [], hangs: [], surprises: {} });
    expect(longestStallMs).toBeLessThan(200);
    // What was damaged was found, and what was whole was read.
    expect(damagedFrames).toBeGreaterThan(2_000);
    expect(Math.min(violations, unreadable, readable, beside, settled)).toBeGreaterThan(100);
  },
);

test('whole conversations pass, whatever values their messages hold', { timeout: 120_000 }, async () => {
  const { violations, unreadable, readable, beside, settled, surprises } = await fuzz({
    frames: 0,
    seed,
    batch: 300,
    parallel: 1,
    damage: 'none',
  });
  expect({ violations, unreadable, all: readable + beside, surprises }).toEqual({
    violations: 0,
    unreadable: 0,
    all: 3_000,
    surprises: {},
  });
  // Every second of them receives beside rhea, and sends four; outcomes that come in the same piece as the credit come before that.
  expect(beside).toBeGreaterThan(1_000);
  expect(settled).toBeGreaterThan(150 * 2);
});
