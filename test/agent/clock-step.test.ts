import { expect, test } from 'vitest';

import { renewTokensDuring } from '../../src/agent/tokens.js';
import { runAgent } from '../../src/agent/run.js';
import { clockStep, type Clock } from '../../src/clock.js';
import { parseDeviceConnectionString } from '../../src/identity/connection-string.js';
import { deviceTokens } from '../../src/identity/token.js';
import { silentLog } from '../../src/log.js';
import { device, never, openSession, reasonOf, startHub } from '../amqp/hub.js';
import { fastClock } from './clock.js';

/** A clock whose wall time can be set, as NTP or an administrator does. */
function settableClock(factor: number): Clock & { set(byMs: number): void } {
  const clock = fastClock(factor);
  let offset = 0;
  return {
    ...clock,
    now: () => clock.now() + offset,
    set: (byMs) => {
      offset += byMs;
    },
  };
}

test.each([7_200_000, -3_600_000])(
  'a clock that is set by %i ms is noticed within ten seconds',
  async (byMs) => {
    const clock = settableClock(100);
    const noticed = clockStep(clock, never);
    const before = clock.monotonic();
    clock.set(byMs);
    await noticed;
    expect(clock.monotonic() - before).toBeLessThan(10_000 + 100 * 50);
  },
);

test('a clock that only runs is no step', async () => {
  const clock = settableClock(100);
  const stop = new AbortController();
  const step = clockStep(clock, stop.signal).then(
    () => 'step',
    () => 'none',
  );
  await clock.sleep(30_000);
  stop.abort();
  expect(await step).toBe('none');
});

test('an agent that waits because its token was refused tries again at once when the clock is set', async () => {
  await using hub = await startHub();
  const clock = settableClock(100);
  const year = 365 * 24 * 3_600_000;
  clock.set(-40 * year);
  const makeToken = deviceTokens(parseDeviceConnectionString(hub.deviceConnectionString(device)))!;
  const stop = new AbortController();
  let waits = 0;
  const running = runAgent({
    open: (signal) => openSession(hub, { signal, token: () => makeToken(clock.now()) }),
    work: async ({ over }, { stopping }) => {
      stop.abort();
      await reasonOf(AbortSignal.any([over, stopping]));
    },
    stopping: stop.signal,
    abandon: never,
    clock,
    log: silentLog,
    onState: (state) => {
      if (state.state !== 'waiting') return;
      waits++;
      expect(state.error.code).toBe('refused');
      clock.set(40 * year);
    },
  });
  await running;
  expect(waits).toBe(1);
});

test('tokens are renewed at four fifths of their life, and at once when the clock is set', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub);
  const clock = settableClock(200);
  const makeToken = deviceTokens(parseDeviceConnectionString(hub.deviceConnectionString(device)), 60_000)!;
  const renewals: number[] = [];
  const stop = new AbortController();
  const working = renewTokensDuring(
    {
      over: session.over,
      token: session.token,
      renewToken: (token, signal) => (renewals.push(clock.monotonic()), session.renewToken(token, signal)),
    },
    { makeToken, clock, log: silentLog },
    () => reasonOf(stop.signal),
  );
  const started = clock.monotonic();
  await clock.sleep(110_000);
  expect(renewals.length).toBe(2);
  expect(renewals[0]! - started).toBeGreaterThanOrEqual(48_000);
  clock.set(3_600_000);
  await clock.sleep(20_000);
  expect(renewals.length).toBeGreaterThanOrEqual(3);
  stop.abort();
  await working;
});
