import { expect, test } from 'vitest';

import { canCutPower, cutPower } from './powercut.js';

test.skipIf(!canCutPower())('G8: nothing acknowledged is lost when the power is cut', async () => {
  const { broken, promises, unsyncedFound } = await cutPower(4);
  expect(broken).toEqual([]);
  expect(promises).toBeGreaterThan(100);
  // What was not synced is missing: so these were power cuts.
  expect(unsyncedFound).toBe(0);
});
