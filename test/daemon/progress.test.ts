import { expect, test } from 'vitest';

import { Progress } from '../../src/daemon/progress.js';
import { AgentError } from '../../src/errors.js';

const offline = new AgentError('host-unknown', 'hub.example cannot be found by name (ENOTFOUND)');

/** A clock that is set by hand, and what is told of the disk. */
function setUp() {
  const clock = { ms: 0, now: () => clock.ms, monotonic: () => clock.ms };
  const synced: number[] = [];
  const progress = new Progress(clock, { storeStuckAfterMs: 60_000, onSynced: (ms) => synced.push(ms) });
  return { clock, progress, synced };
}

test('an attempt and a wait that last far too long are no progress; being offline or online for long is', () => {
  const { clock, progress } = setUp();
  expect(progress.stuck).toEqual([]);
  clock.ms = 200_000;
  progress.moved({ state: 'connecting', since: 0, attempt: 1 });
  expect(progress.stuck).toEqual(['connection']);
  progress.moved({ state: 'waiting', since: 0, until: 0, attempt: 1, error: offline });
  expect(progress.stuck).toEqual(['connection']);
  progress.moved({ state: 'waiting', since: 0, until: 200_000, attempt: 9, error: offline });
  expect(progress.stuck).toEqual([]);
  progress.moved({ state: 'online', since: 0 });
  clock.ms = 1e10;
  expect(progress.stuck).toEqual([]);
});

test('a write that does not come back is no progress, until it does', () => {
  const { clock, progress, synced } = setUp();
  const written = progress.disk('write');
  clock.ms = 50_000;
  const first = progress.disk('sync');
  clock.ms = 60_001;
  expect(progress.stuck).toEqual(['store']);
  written();
  expect(progress.stuck).toEqual([]);
  clock.ms = 120_000;
  expect(progress.stuck).toEqual(['store']);
  first();
  expect([progress.stuck, synced]).toEqual([[], [70_000]]);
});
