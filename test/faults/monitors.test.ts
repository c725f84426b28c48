import { expect, test } from 'vitest';

import { killMonitors } from './monitors.js';

test('of two monitors that share a checkpoint one is killed again and again: every event is printed, repeats only since the checkpoint', async () => {
  const findings = await killMonitors({ kills: 4, seed: 7 });
  expect(findings).toMatchObject({ missing: [], needless: [] });
  expect(findings.sent).toBeGreaterThan(20);
}, 60_000);
