/** Rows N1 to N7, N21 to N23 and N25 of the fault matrix: the network between agent and hub. */
import dns from 'node:dns';
import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';

import { describe, expect, onTestFinished, test } from 'vitest';

import { createBackoff } from '../../src/backoff.js';
import { device } from '../amqp/hub.js';
import { seeded } from '../store/fake-disk.js';
import { TestAgent } from './agent.js';
import { openWorld, type World } from './kit.js';

/** Queues messages and sends commands until it is told to end. */
function load(world: World, { bytes = 100 } = {}) {
  const end = new AbortController();
  const loading = (async () => {
    while (!end.signal.aborted) {
      await world.queue(20, { bytes });
      if (world.hub.queueDepth(device) < 20) world.command();
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  })();
  return async () => {
    end.abort();
    await loading;
  };
}

/** How long the agent took to notice, by its clock. */
async function offlineAfter({ agent, clock }: World): Promise<number> {
  const startedAt = clock.monotonic();
  await agent.until(({ state }) => state === 'waiting');
  return clock.monotonic() - startedAt;
}

describe.concurrent('N1: a reset at any byte', () => {
  test.each([1, 2, 3, 4])(
    'loses nothing, and what is back waits two seconds at most: seed %i',
    async (seed) => {
      await using world = await openWorld({ seed });
      await world.agent.online();
      const end = load(world);
      for (let n = 0; n < 4; n++) {
        const online = world.agent.times('online');
        const bytes = Math.floor(world.proxy.random() * 20_000);
        world.proxy.resetAfter(bytes, world.proxy.random() < 0.5 ? 'up' : 'down');
        await world.agent.online(online + 1);
        // Health is an accepted message; until then the next attempt waits longer.
        await world.recovered();
      }
      await end();
      await world.settled();
      const { lostLinks } = world.judge();
      expect(lostLinks).toBeGreaterThanOrEqual(3);
      const waits = world.agent.states.flatMap((each) =>
        each.state === 'waiting' ? [each.until - each.since] : [],
      );
      expect(Math.max(...waits)).toBeLessThanOrEqual(2_000);
    },
  );

  test('with a full window of unanswered messages repeats no more than the window', async () => {
    await using world = await openWorld();
    await world.agent.online();
    const faults = world.hub.faults;
    const silent = faults.add({
      at: 'disposition',
      link: 'telemetry',
      times: 'always',
      do: { act: 'say-nothing' },
    });
    await world.queue(500);
    await world.hub.waitFor((record) => record.of('telemetry').length === 100);
    silent.clear();
    world.proxy.reset();
    await world.settled();
    expect(world.judge()).toEqual({ duplicates: 100, reordered: 0, lostLinks: 1 });
  });
});

test.concurrent('N2: a hub that closes its half is left, and found again', async () => {
  await using world = await openWorld();
  await world.agent.online();
  const end = load(world);
  for (const way of ['down', 'up'] as const) {
    const online = world.agent.times('online');
    world.proxy.halfClose(way);
    await world.agent.online(online + 1);
    await world.recovered();
  }
  await end();
  await world.settled();
  world.judge();
  await world.hub.waitFor(() => world.hub.connections.length === 1);
  expect(world.proxy.open).toBe(1);
});

describe.concurrent('N3: bytes that vanish', () => {
  test.each(['both', 'down', 'up'] as const)('%s: noticed within 25 s, nothing lost', async (ways) => {
    await using world = await openWorld();
    await world.agent.online();
    const end = load(world);
    await world.recovered();
    expect(world.proxy.stall(ways)).toBe(1);
    // Where only our bytes vanish, the answers are missing: the settle timeout of 30 s notices.
    const noticed = await offlineAfterOrRepair(world);
    expect(noticed).toBeLessThanOrEqual((ways === 'up' ? 45_000 : 25_000) + slackMs(world));
    await world.proxy.heal();
    await world.recovered();
    await end();
    await world.settled();
    world.judge();
  });
});

/** As `offlineAfter`; an attempt to attach anew counts too. */
async function offlineAfterOrRepair({ agent, clock }: World): Promise<number> {
  const startedAt = clock.monotonic();
  const before = agent.states.length;
  await agent.until(({ states }) => states.length > before);
  return clock.monotonic() - startedAt;
}

/** What half a second of a busy machine is by the agent's clock. */
function slackMs({ factor }: World): number {
  return 500 * factor;
}

test.concurrent.each([1, 2, 3, 4])(
  'N4: a stall in the middle of a frame is noticed within 25 s: seed %i',
  async (seed) => {
    await using world = await openWorld({ seed });
    await world.agent.online();
    await world.queue(200);
    await world.settled();
    // A command of 60 KB is one frame; it stops after 20 to 50 of them, so that a part of it has been heard.
    world.proxy.stallAfter(20_000 + Math.floor(world.proxy.random() * 30_000), 'down');
    world.command('x'.repeat(60_000));
    expect(await offlineAfter(world)).toBeLessThanOrEqual(25_000 + slackMs(world));
    await world.proxy.heal();
    await world.recovered();
    await world.settled();
    world.judge();
  },
);

test.concurrent(
  'N5: a server that accepts and says nothing costs 20 s an attempt, and no socket',
  async () => {
    await using world = await openWorld({ factor: 200 });
    await world.agent.online();
    await world.proxy.door('mute');
    world.proxy.reset();
    await world.agent.until((agent) => agent.times('waiting') >= 15);
    expect(world.agent.lastError?.message).toBe('the hub did not get us online within 0.1 s');
    expect(world.proxy.open).toBeLessThanOrEqual(1);
    await world.proxy.heal();
    await world.recovered();
    expect(world.proxy.open).toBe(1);
  },
);

test.concurrent(
  'N6: a port where nobody listens is asked in ever longer intervals, and telemetry is kept',
  async () => {
    await using world = await openWorld({ factor: 100 });
    await world.agent.online();
    await world.proxy.door('refuse');
    world.proxy.reset();
    const from = world.clock.monotonic();
    await world.queue(50);
    await world.agent.until((agent) => agent.times('waiting') >= 6);
    expect(world.agent.lastError?.message).toMatch(/refused the connection \(ECONNREFUSED\)/);
    expect(world.clock.monotonic() - from).toBeGreaterThanOrEqual(15_000);
    await world.proxy.heal();
    await world.settled();
    world.judge();
  },
);

test.concurrent(
  'N7: a link of two seconds and sixteen bytes at a time is slow, and never taken for a dead one',
  async () => {
    await using world = await openWorld({ factor: 8 });
    await world.agent.online();
    world.proxy.reset();
    world.proxy.shape({ delayMs: 1_000 / world.factor, sliceBytes: 16 });
    await world.agent.online(2);
    await world.queue(100);
    world.command();
    await world.settled();
    const connected = world.proxy.accepted;
    // As long as it takes to find a dead one.
    await world.clock.sleep(26_000);
    expect(world.proxy.accepted).toBe(connected);
    expect(world.judge().duplicates).toBe(0);
  },
);

describe('N21: names', () => {
  /** Who answers to names until the test is over, and how often it was asked. */
  function resolver(answer: (asked: number) => NodeJS.ErrnoException | string) {
    const real = dns.lookup;
    let asked = 0;
    type Done = (...result: unknown[]) => void;
    const lookup = (name: string, options: { all?: boolean }, done: Done) => {
      if (name !== 'localhost') {
        real(name, options, done);
        return;
      }
      const found = answer(++asked);
      setImmediate(() => {
        if (typeof found !== 'string') done(found);
        else if (options.all) done(null, [{ address: found, family: 4 }]);
        else done(null, found, 4);
      });
    };
    dns.lookup = ((name: string, options: { all?: boolean } | Done, done?: Done) => {
      if (typeof options === 'function') real(name, options);
      else lookup(name, options, done!);
    }) as typeof dns.lookup;
    onTestFinished(() => {
      dns.lookup = real;
    });
    return { asked: () => asked };
  }
  const noAnswer = () => Object.assign(new Error('getaddrinfo EAI_AGAIN'), { code: 'EAI_AGAIN' });

  test('that nobody answers for do not keep telemetry from being taken, and are asked for again', async () => {
    const names = resolver((asked) => (asked <= 8 ? noAnswer() : '127.0.0.1'));
    await using world = await openWorld({ factor: 100 });
    await world.agent.until((agent) => agent.times('waiting') >= 2);
    await world.queue(200);
    expect(world.agent.lastError).toMatchObject({ code: 'host-unknown', retry: 'soon' });
    await world.settled();
    expect(names.asked()).toBe(9);
    world.judge();
  });

  test('are looked up for every attempt: a hub that moved is found', async () => {
    // 127.0.0.2 is this machine too, and nobody listens there.
    const names = resolver((asked) => (asked <= 4 ? '127.0.0.2' : '127.0.0.1'));
    await using world = await openWorld({ factor: 100 });
    await world.agent.online();
    expect(world.agent.times('waiting')).toBe(4);
    expect(names.asked()).toBe(5);
  });
});

test.concurrent(
  'N22: ten minutes without a hub are thirty attempts or so, and it is back within 35 s',
  async () => {
    await using world = await openWorld({ factor: 200 });
    await world.agent.online();
    await world.queue(100);
    await world.settled();
    await world.proxy.door('refuse');
    world.proxy.reset();
    const before = world.agent.times('connecting');
    await world.clock.sleep(300_000);
    await world.queue(300);
    await world.clock.sleep(300_000);
    const attempts = world.agent.times('connecting') - before;
    expect(attempts).toBeGreaterThan(10);
    expect(attempts).toBeLessThanOrEqual(10 + 9 * 4);
    await world.proxy.heal();
    expect(await world.recovered()).toBeLessThanOrEqual(35_000 + slackMs(world));
    await world.settled();
    expect(world.judge().duplicates).toBe(0);
  },
);

test.each([1, 2, 3])(
  'N23: after ten minutes without a hub a thousand agents come back within half a minute, never 7 %% of them in one second: seed %i',
  (seed) => {
    const agents = 1_000;
    const arrivals = Array.from({ length: agents }, (_, n) => {
      const backoff = createBackoff(seeded(seed * agents + n));
      let at = 0;
      while (at < 600_000) at += backoff.next('soon');
      return at - 600_000;
    });
    expect(Math.max(...arrivals)).toBeLessThanOrEqual(30_000);
    const within = (from: number) => arrivals.filter((at) => at >= from && at < from + 1_000).length;
    expect(Math.max(...arrivals.map(within))).toBeLessThan(0.07 * agents);
  },
);

test.concurrent(
  'N25: two agents with one identity push each other out three times a minute at most, and say so',
  async () => {
    await using world = await openWorld({ factor: 100 });
    await using other = await TestAgent.start({
      connectionString: world.hub.deviceConnectionString(device),
      port: world.proxy.port,
      ca: world.hub.ca,
      factor: 100,
      clock: world.clock,
    });
    const minutes = 5;
    await world.queue(100);
    await other.queue(['other-1', 'other-2']);
    await world.clock.sleep(minutes * 60_000);
    for (const agent of [world.agent, other]) {
      expect(agent.times('connecting') / minutes).toBeLessThanOrEqual(3);
      expect(agent.times('waiting')).toBeGreaterThan(0);
      expect(agent.lastError).toMatchObject({
        condition: 'amqp:link:stolen',
        message: expect.stringContaining('this identity is used elsewhere') as string,
      });
    }
    await other.stop();
    await world.settled();
    world.judge();
  },
);

test.concurrent(
  'a peer that is no hub is named, and left within its deadline',
  async ({ onTestFinished }) => {
    const server = createServer((socket) => {
      socket.on('error', () => undefined).end('HTTP/1.1 400 Bad Request\r\n\r\n');
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    onTestFinished(() => void server.close());
    await using world = await openWorld({ factor: 100, port: (server.address() as AddressInfo).port });
    await world.agent.until((agent) => agent.times('waiting') >= 2);
    expect(world.agent.lastError).toMatchObject({ code: 'protocol', retry: 'late' });
    expect(world.agent.lastError?.message).toMatch(/does not speak TLS/);
  },
);
