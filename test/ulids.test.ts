import { expect, test } from 'vitest';

import { ulids } from '../src/ulids.js';

test('ids are ULIDs, sorted as they were made, and another maker makes others', () => {
  const [next, other] = [ulids(), ulids()];
  const ids = Array.from({ length: 5_000 }, next);
  expect(ids.every((id) => /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/.test(id))).toBe(true);
  expect(ids.toSorted()).toEqual(ids);
  expect(new Set([...ids, ...Array.from({ length: 5_000 }, other)]).size).toBe(10_000);
});
