import { expect, test, vi } from 'vitest';

import type { AgentState } from '../../src/agent/state.js';
import { statusLine, UnitStatus } from '../../src/daemon/unit-status.js';
import { AgentError } from '../../src/errors.js';
import { fastClock } from '../agent/clock.js';

const now = Date.UTC(2026, 10, 20, 6, 0, 0);
const offline = new AgentError('host-unknown', 'hub.example cannot be found by name (ENOTFOUND)');
const refused = new AgentError('refused', 'the hub refused the credentials');

test.each<[AgentState, string]>([
  [{ state: 'connecting', since: now, attempt: 1 }, 'connecting as dev1; 2 messages kept'],
  [{ state: 'online', since: now }, 'online as dev1 since 2026-11-20T06:00:00.000Z; 2 messages kept'],
  [
    { state: 'waiting', since: now, until: now + 12_000, attempt: 3, error: offline },
    'offline: hub.example cannot be found by name (ENOTFOUND); 2 messages kept; attempt 4 in 12 s',
  ],
  [
    { state: 'waiting', since: now, until: now + 60_000, attempt: 1, error: refused },
    'REFUSED: the hub refused the credentials; 2 messages kept; attempt 2 in 60 s',
  ],
  [{ state: 'draining', since: now }, 'stopping: finishing what was begun; 2 messages kept'],
])('%j reads well', (state, line) => {
  expect(statusLine(state, { device: 'dev1', waiting: 2 }, now)).toBe(line);
});

test('systemd hears the first state at once and then the latest every five seconds, what else changes every minute, stopping at once', async () => {
  const heard: string[][] = [];
  const notifier = {
    watchdogMs: undefined,
    notify: (...assignments: string[]) => (heard.push(assignments), Promise.resolve()),
  };
  vi.useFakeTimers();
  try {
    let monotonic = 0;
    let waiting = 1;
    const clock = { ...fastClock(1), now: () => now, monotonic: () => monotonic };
    using status = new UnitStatus(notifier, clock, () => ({ device: 'dev1', waiting }));
    await status.ready();
    status.moved({ state: 'connecting', since: now, attempt: 1 });
    await vi.advanceTimersByTimeAsync(0);
    status.moved({ state: 'waiting', since: now, until: now, attempt: 1, error: offline });
    status.moved({ state: 'online', since: now });
    monotonic = 4_000;
    await vi.advanceTimersByTimeAsync(4_000);
    expect(heard).toHaveLength(2);
    monotonic = 5_000;
    await vi.advanceTimersByTimeAsync(1_000);
    waiting = 3;
    monotonic = 65_000;
    await vi.advanceTimersByTimeAsync(60_000);
    await vi.advanceTimersByTimeAsync(60_000);
    status.stopping();
    status.moved({ state: 'draining', since: now });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(heard).toEqual([
      ['READY=1', 'STATUS=starting'],
      ['STATUS=connecting as dev1; 1 message kept'],
      ['STATUS=online as dev1 since 2026-11-20T06:00:00.000Z; 1 message kept'],
      ['STATUS=online as dev1 since 2026-11-20T06:00:00.000Z; 3 messages kept'],
      ['STOPPING=1', 'STATUS=stopping: finishing what was begun; 3 messages kept'],
    ]);
  } finally {
    vi.useRealTimers();
  }
});
