import { expect, test } from 'vitest';

import { renewTokensDuring } from '../../src/agent/tokens.js';
import { runAgent } from '../../src/agent/run.js';
import { clockStep } from '../../src/clock.js';
import { parseDeviceConnectionString } from '../../src/identity/connection-string.js';
import { deviceTokens } from '../../src/identity/token.js';
import { silentLog } from '../../src/log.js';
import { device, never, openSession, reasonOf, startHub } from '../amqp/hub.js';
import { SteppedClock } from './clock.js';

test.each([7_200_000, -3_600_000])(
  'a clock that is set by %i ms is noticed within five seconds',
  async (byMs) => {
    const clock = new SteppedClock();
    let isNoticed = false;
    void clockStep(clock, never).then(() => (isNoticed = true));
    await clock.pass(60_000);
    expect(isNoticed).toBe(false);
    clock.set(byMs);
    await clock.pass(5_000);
    expect(isNoticed).toBe(true);
  },
);

test('an agent that waits because its token was refused tries again as soon as the clock is set', async () => {
  await using hub = await startHub();
  const clock = new SteppedClock();
  const year = 365 * 24 * 3_600_000;
  clock.set(-40 * year);
  const makeToken = deviceTokens(parseDeviceConnectionString(hub.deviceConnectionString(device)))!;
  const stop = new AbortController();
  const waits: number[] = [];
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
      expect(state.error.code).toBe('refused');
      waits.push(state.until - state.since);
    },
  });
  await expect.poll(() => waits.length, { timeout: 10_000 }).toBe(1);
  await clock.pass(10_000);
  clock.set(40 * year);
  await clock.pass(5_000);
  await running;
  // It would have waited for longer.
  expect(Math.min(...waits)).toBeGreaterThanOrEqual(30_000);
  expect(waits).toHaveLength(1);
});

test('tokens are renewed at four fifths of their life, and soon after the clock is set', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub);
  const clock = new SteppedClock();
  const makeToken = deviceTokens(parseDeviceConnectionString(hub.deviceConnectionString(device)), 60_000)!;
  const begunAt: number[] = [];
  let renewed = 0;
  const stop = new AbortController();
  const working = renewTokensDuring(
    {
      over: session.over,
      token: undefined,
      renewToken: async (token, signal) => {
        begunAt.push(clock.monotonic());
        await session.renewToken(token, signal);
        renewed++;
      },
    },
    { makeToken, clock, log: silentLog },
    () => reasonOf(stop.signal),
  );
  const timeout = 10_000;
  // A token expires at a full second, so its life is 60 s or a little more.
  await clock.pass(49_000);
  await expect.poll(() => renewed, { timeout }).toBe(1);
  await clock.pass(49_000);
  await expect.poll(() => renewed, { timeout }).toBe(2);
  clock.set(3_600_000);
  await clock.pass(5_000);
  expect(begunAt).toHaveLength(3);
  expect(begunAt[0]).toBeGreaterThanOrEqual(48_000);
  expect(begunAt[1]).toBeGreaterThanOrEqual(2 * 48_000);
  stop.abort();
  await working;
});
