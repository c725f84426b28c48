/**
 * Some rows of the fault matrix, and a mixture, with AMQP inside of a WebSocket. All of the others run in this way too:
 *
 *     IOTHUB_FAULTS_TRANSPORT=amqp-ws npx vitest run --config test/vitest.config.ts test/faults/network.test.ts
 *     npm run soak -- --transport amqp-ws
 */
import { expect, test } from 'vitest';

import { openWorld } from './kit.js';
import { describeMix, isGood, mix } from './mixer.js';

const transport = 'amqp-ws';

test.concurrent('N1: resets at any byte lose nothing', async () => {
  await using world = await openWorld({ transport, seed: 1 });
  await world.agent.online();
  for (let n = 0; n < 4; n++) {
    const online = world.agent.times('online');
    world.proxy.resetAfter(Math.floor(world.proxy.random() * 10_000), 'up');
    await world.queue(50, { bytes: 500 });
    world.command();
    await world.agent.online(online + 1);
    await world.recovered();
  }
  await world.settled();
  expect(world.judge().lostLinks).toBeGreaterThanOrEqual(3);
  expect(new Set(world.hub.record.of('connected').map((entry) => entry.transport))).toEqual(
    new Set(['websocket']),
  );
});

test.concurrent('N4: a stall in the middle of a WebSocket message is noticed within 25 s', async () => {
  await using world = await openWorld({ transport });
  await world.agent.online();
  await world.queue(100);
  await world.settled();
  world.proxy.stallAfter(30_000, 'down');
  world.command('x'.repeat(60_000));
  const startedAt = world.clock.monotonic();
  await world.agent.until(({ state }) => state === 'waiting');
  // Half a second of a busy machine is that many of the agent's.
  expect(world.clock.monotonic() - startedAt).toBeLessThanOrEqual(25_000 + 500 * world.factor);
  await world.proxy.heal();
  await world.recovered();
  await world.settled();
  world.judge();
});

test.concurrent(
  'N5: a server that takes the connection and no WebSocket costs the attempt, and no socket',
  async () => {
    await using world = await openWorld({ transport, factor: 100 });
    await world.agent.online();
    await world.proxy.door('mute');
    world.proxy.reset();
    // The first wait is for what the reset has done; on a busy machine there were some before.
    await world.agent.until(({ lastError }) => lastError?.message.includes('did not get us online') === true);
    const waits = world.agent.times('waiting');
    await world.agent.until((agent) => agent.times('waiting') >= waits + 2);
    expect(world.agent.lastError?.message).toMatch(/did not get us online/);
    expect(world.proxy.open).toBeLessThanOrEqual(1);
    await world.proxy.heal();
    await world.recovered();
    expect(world.proxy.open).toBe(1);
  },
);

test.concurrent.each([1, 2])('a mixture of troubles loses nothing: seed %i', async (seed) => {
  const mixed = await mix({ seed, messages: 200, commands: 10, troubles: 3, transport });
  expect(isGood(mixed), describeMix(mixed)).toBe(true);
});
