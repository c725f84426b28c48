/** Rows T1 to T4 and N12 of the fault matrix: tokens that expire, clocks that are wrong, keys that are. */
import { setTimeout as delay } from 'node:timers/promises';

import { describe, expect, test } from 'vitest';

import { renewTokensDuring } from '../../src/agent/tokens.js';
import { systemClock, type Clock } from '../../src/clock.js';
import { parseDeviceConnectionString } from '../../src/identity/connection-string.js';
import { deviceTokens } from '../../src/identity/token.js';
import { silentLog } from '../../src/log.js';
import { fastClock } from '../agent/clock.js';
import { device } from '../amqp/hub.js';
import { openWorld, type WorldOptions } from './kit.js';

const hour = 3_600_000;
const year = 365 * 24 * hour;

/** The hub's clock and that of the agent, which runs as fast and can be set. */
function clocks(factor: number): { hub: Clock; agent: Clock; set: (byMs: number) => void } {
  const hub = fastClock(factor);
  let offset = 0;
  return {
    hub,
    agent: { ...hub, now: () => hub.now() + offset },
    set: (byMs) => {
      offset += byMs;
    },
  };
}

async function openWorldWith({ hub, agent }: ReturnType<typeof clocks>, options: WorldOptions = {}) {
  return openWorld({ ...options, clock: agent, hub: { clock: hub } });
}

/**
 * For tests of the order of things, not of their speed: a busy machine that is late by a second or two loses neither
 * the connection nor the token. The real hub, too, lets a token work for some minutes longer.
 */
function patient(factor: number, tokenTtlMs: number): WorldOptions {
  return { factor, tokenTtlMs, sessionFactor: 2, hub: { tokenGraceMs: 3_000 * factor } };
}

describe.concurrent('T1: a token of 20 s', () => {
  test('is renewed again and again, with a command between, on one connection', async () => {
    await using world = await openWorld(patient(20, 20_000));
    await world.agent.online();
    for (let n = 1; n <= 5; n++) {
      await world.hub.waitFor((record) => record.of('token').length > n);
      await world.queue(10);
      world.command();
    }
    await world.settled();
    expect(world.judge().duplicates).toBe(0);
    expect(world.hub.record.of('connected')).toHaveLength(1);
    expect(world.hub.record.of('detached')).toEqual([]);
    expect(new Set(world.hub.record.of('token').map(({ status }) => status))).toEqual(new Set([200]));
  });

  test('is renewed in time although its links were attached anew meanwhile', async () => {
    await using world = await openWorld(patient(20, 80_000));
    await world.agent.online();
    await world.clock.sleep(40_000);
    world.hub.faults.now({ act: 'detach' }, { link: 'telemetry' });
    await world.agent.online(2);
    await world.clock.sleep(60_000);
    expect(world.hub.record.of('connected')).toHaveLength(1);
    expect(world.agent.times('online')).toBe(2);
    expect(world.hub.record.of('token')).toHaveLength(2);
  });

  test('that expired while there was no network is not used again', async () => {
    await using world = await openWorld(patient(20, 20_000));
    await world.agent.online();
    await world.proxy.door('refuse');
    world.proxy.reset();
    await world.clock.sleep(30_000);
    await world.proxy.heal();
    await world.recovered();
    expect(world.hub.record.of('token').every(({ status }) => status === 200)).toBe(true);
  });

  test('is replaced although the hub answers with 500 twice', async () => {
    await using world = await openWorld(patient(200, 600_000));
    await world.agent.online();
    world.hub.faults.add({ at: 'put-token', times: 2, do: { act: 'refuse', status: 500 } });
    const answers = await world.hub.waitFor((record) => {
      const tokens = record.of('token').map(({ status }) => status);
      return tokens.length >= 4 && tokens;
    });
    expect(answers).toEqual([200, 500, 500, 200]);
    expect(world.hub.record.of('connected')).toHaveLength(1);
    expect(world.hub.record.of('detached')).toEqual([]);
  });

  test('N12: is replaced although $cbs was taken down just before', async () => {
    await using world = await openWorld(patient(200, 600_000));
    await world.agent.online();
    for (const direction of ['out', 'in'] as const) {
      const tokens = world.hub.record.of('token').length;
      world.hub.faults.now({ act: 'detach' }, { link: 'cbs', direction });
      await world.hub.waitFor((record) => record.of('token').length > tokens);
    }
    await world.recovered();
    expect(world.hub.record.of('connected')).toHaveLength(1);
    expect(world.hub.record.of('detached').filter(({ link }) => link !== 'cbs')).toEqual([]);
  });

  test('N12: is replaced although $cbs is taken down while it is put', async () => {
    await using world = await openWorld(patient(200, 600_000));
    await world.agent.online();
    const fault = world.hub.faults.add({ at: 'put-token', times: 2, do: { act: 'detach' } });
    const tokens = world.hub.record.of('token').length;
    await world.hub.waitFor((record) => fault.hits === 2 && record.of('token').length > tokens);
    await world.recovered();
    expect(world.hub.record.of('token').at(-1)?.status).toBe(200);
    expect(world.hub.record.of('connected')).toHaveLength(1);
    expect(world.hub.record.of('detached').filter(({ link }) => link !== 'cbs')).toEqual([]);
  });
});

describe.concurrent('T2: a clock that is set in the middle', () => {
  test.each([
    ['two hours forward', 2 * hour],
    ['ten years forward', 10 * year],
    ['half an hour back', -hour / 2],
  ])('%s costs a new token and no message', async (_title, byMs) => {
    const time = clocks(100);
    await using world = await openWorldWith(time, { factor: 100, sessionFactor: 20 });
    await world.agent.online();
    await world.queue(100);
    const tokens = world.hub.record.of('token').length;
    time.set(byMs);
    await world.queue(100);
    world.command();
    await world.hub.waitFor((record) => record.of('token').length > tokens);
    await world.recovered();
    await world.settled();
    world.judge();
    expect(world.hub.record.of('connected')).toHaveLength(1);
  });

  test('ten years back makes tokens that the hub refuses, and the old one holds the connection', async () => {
    const time = clocks(100);
    await using world = await openWorldWith(time, { factor: 100, sessionFactor: 20 });
    await world.agent.online();
    time.set(-10 * year);
    await world.hub.waitFor((record) => record.of('token').some(({ status }) => status === 401));
    await world.recovered();
    time.set(10 * year);
    await world.hub.waitFor((record) => record.of('token').at(-1)?.status === 200);
    await world.recovered();
    world.judge();
    expect(world.hub.record.of('connected')).toHaveLength(1);
  });
});

test.concurrent(
  'T3: a device that starts in 1970 asks seldom, and is online soon after its clock is set',
  async () => {
    const time = clocks(100);
    time.set(-56 * year);
    await using world = await openWorldWith(time, { factor: 100, sessionFactor: 20 });
    await world.queue(100);
    await world.clock.sleep(120_000);
    expect(world.agent.lastError).toMatchObject({
      code: 'refused',
      hint: expect.stringContaining('clock') as string,
    });
    expect(world.agent.times('connecting')).toBeLessThanOrEqual(4);
    const setAt = world.clock.monotonic();
    time.set(56 * year);
    await world.agent.online();
    expect(world.clock.monotonic() - setAt).toBeLessThanOrEqual(35_000);
    await world.settled();
    world.judge();
  },
);

test.concurrent(
  'T4: a key that was rotated is said to be refused, asked with seldom, and taken when it is back',
  async () => {
    await using world = await openWorld({ factor: 200, sessionFactor: 20 });
    await world.agent.online();
    const { authentication } = world.hub.device(device);
    world.hub.removeDevice(device);
    world.hub.addDevice(device, {
      type: 'sas',
      primaryKey: Buffer.from('another').toString('base64'),
      secondaryKey: Buffer.from('other').toString('base64'),
    });
    await world.queue(100);
    const from = world.agent.times('connecting');
    await world.clock.sleep(600_000);
    expect(world.agent.lastError).toMatchObject({ code: 'refused', retry: 'late' });
    expect(world.agent.times('connecting') - from).toBeLessThanOrEqual(10);
    world.hub.removeDevice(device);
    world.hub.addDevice(device, authentication);
    await world.settled();
    expect(world.judge().duplicates).toBe(0);
  },
);

test.concurrent(
  'A12: a machine that slept for longer than its token lives is back, with nothing lost',
  async () => {
    const time = clocks(50);
    await using world = await openWorldWith(time, { factor: 50, sessionFactor: 20, tokenTtlMs: 60_000 });
    await world.agent.online();
    await world.queue(100);
    // The wall clock went on, monotonic time did not; the hub has let the token expire and hung up.
    world.proxy.stall();
    world.hub.jumpClock(2 * hour);
    time.set(2 * hour);
    await world.queue(100);
    await world.proxy.heal();
    await world.recovered();
    await world.settled();
    world.judge();
  },
);

test.concurrent('A16: a token of forty days is put once', async () => {
  const connection = 'HostName=h.example;DeviceId=d;SharedAccessKey=a2V5';
  const makeToken = deviceTokens(parseDeviceConnectionString(connection), 40 * 24 * hour)!;
  let renewals = 0;
  const over = new AbortController().signal;
  const session = {
    over,
    token: undefined,
    renewToken: () => {
      renewals++;
      return Promise.resolve();
    },
  };
  const facts = { makeToken, clock: systemClock, log: silentLog };
  // A timer of more than 24.8 days would fire after a millisecond.
  await renewTokensDuring(session, facts, () => delay(300));
  expect(renewals).toBe(0);
});
