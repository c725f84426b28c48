import { describe, expect, test } from 'vitest';

import { runAgent, type AgentOptions } from '../../src/agent/run.js';
import type { AgentState } from '../../src/agent/state.js';
import type { HubSession } from '../../src/amqp/session.js';
import { AgentError } from '../../src/errors.js';
import type { Emulator } from '../../src/emulator/emulator.js';
import { silentLog } from '../../src/log.js';
import { encode, message, never, openSession, reasonOf, startHub } from '../amqp/hub.js';
import { fastClock } from './clock.js';

/** An agent whose work is to be online, with every state it was in. */
function startAgent(hub: Emulator, options: Partial<AgentOptions> = {}) {
  const stop = new AbortController();
  const abandon = new AbortController();
  const states: AgentState[] = [];
  const watchers = new Set<() => void>();
  const clock = fastClock(50);
  const running = runAgent({
    open: (signal) => openSession(hub, { signal, deadlineMs: 2_000 }),
    work: async ({ over }, { stopping }) => {
      await reasonOf(AbortSignal.any([over, stopping]));
      over.throwIfAborted();
    },
    stopping: stop.signal,
    abandon: abandon.signal,
    clock,
    log: silentLog,
    onState: (state) => {
      states.push(state);
      for (const look of [...watchers]) look();
    },
    ...options,
  });
  running.catch(() => undefined);
  const until = (condition: (states: readonly AgentState[]) => boolean): Promise<void> =>
    new Promise((resolve) => {
      const look = () => {
        if (!condition(states)) return;
        watchers.delete(look);
        resolve();
      };
      watchers.add(look);
      look();
    });
  return {
    states,
    names: () => states.map(({ state }) => state),
    running,
    clock,
    abandon: () => {
      abandon.abort(new Error('now'));
    },
    stop: async () => {
      stop.abort(new Error('stop'));
      await running;
    },
    online: (times = 1) => until((all) => all.filter(({ state }) => state === 'online').length >= times),
    waiting: (times = 1) => until((all) => all.filter(({ state }) => state === 'waiting').length >= times),
  };
}

const lastError = (states: readonly AgentState[]): AgentError =>
  states.filter((state) => state.state === 'waiting').at(-1)!.error;

describe('comes back, and says why it was away, when the hub', () => {
  type Now = Parameters<Emulator['faults']['now']>;
  const losses: [string, Now[0], NonNullable<Now[1]>, RegExp][] = [
    ['drops the socket', { act: 'drop' }, {}, /dropped the connection/],
    ['closes', { act: 'close' }, {}, /closed the connection/],
    [
      'closes with an error',
      { act: 'close', condition: 'amqp:connection:forced' },
      {},
      /amqp:connection:forced/,
    ],
  ];

  test.each(losses)('%s', async (_title, act, filter, why) => {
    await using hub = await startHub();
    const agent = startAgent(hub);
    await agent.online();
    hub.faults.now(act, filter);
    await agent.online(2);
    expect(lastError(agent.states).message).toMatch(why);
    await agent.stop();
    expect(agent.names()).toEqual([
      'connecting',
      'online',
      'waiting',
      'connecting',
      'online',
      'draining',
      'stopped',
    ]);
  });

  test.each([
    ['ends the session', { act: 'end' }, 'telemetry'],
    ['detaches the telemetry link', { act: 'detach', condition: 'amqp:internal-error' }, 'telemetry'],
    ['detaches the command link', { act: 'detach', condition: 'amqp:link:detach-forced' }, 'commands'],
  ] as const)('%s, without another connection', async (_title, act, link) => {
    await using hub = await startHub();
    const agent = startAgent(hub);
    await agent.online();
    hub.faults.now(act, { link });
    await agent.online(2);
    await agent.stop();
    expect(agent.names()).toEqual(['connecting', 'online', 'connecting', 'online', 'draining', 'stopped']);
    expect(hub.record.of('connected')).toHaveLength(1);
  });

  test('detaches the links again and again: the third time in a row it is a new connection', async () => {
    await using hub = await startHub();
    const agent = startAgent(hub, {
      work: async ({ over }) => {
        hub.faults.now({ act: 'detach' }, { link: 'telemetry' });
        await reasonOf(over);
        over.throwIfAborted();
      },
    });
    await agent.waiting();
    expect(agent.names().filter((state) => state === 'online')).toHaveLength(4);
    expect(hub.record.of('connected')).toHaveLength(1);
    await agent.online(5);
    expect(hub.record.of('connected')).toHaveLength(2);
    await agent.stop();
  });

  test('withdraws what it had granted: it is asked again soon, with a new token', async () => {
    await using hub = await startHub();
    const agent = startAgent(hub);
    await agent.online();
    hub.faults.now({ act: 'detach', condition: 'amqp:unauthorized-access' }, { link: 'telemetry' });
    await agent.online(2);
    const waits = agent.states
      .filter((state) => state.state === 'waiting')
      .map(({ since, until }) => until - since);
    expect(Math.max(...waits)).toBeLessThanOrEqual(1_000);
    expect(hub.record.of('token')).toHaveLength(2);
    await agent.stop();
  });

  test('accepts TCP and says nothing', async () => {
    await using hub = await startHub();
    hub.faults.add({ at: 'connect', do: { act: 'freeze' }, times: 2 });
    const agent = startAgent(hub, { open: (signal) => openSession(hub, { signal, deadlineMs: 200 }) });
    await agent.online();
    expect(lastError(agent.states).message).toMatch(/did not get us online within/);
    expect(agent.names().slice(0, 5)).toEqual([
      'connecting',
      'waiting',
      'connecting',
      'waiting',
      'connecting',
    ]);
    await agent.stop();
  });

  test('refuses the token, however long', async () => {
    await using hub = await startHub();
    hub.faults.add({ at: 'put-token', do: { act: 'refuse', status: 401 }, times: 3 });
    const agent = startAgent(hub, { clock: fastClock(1000) });
    await agent.online();
    expect(lastError(agent.states)).toMatchObject({ code: 'refused', retry: 'late' });
    const waits = agent.states
      .filter((state) => state.state === 'waiting')
      .map(({ since, until }) => until - since);
    expect(waits).toHaveLength(3);
    for (const wait of waits) expect(wait).toBeGreaterThanOrEqual(30_000);
    await agent.stop();
  });
});

test('a hub that hangs up on everyone is asked at most ten times in the first minute', async () => {
  await using hub = await startHub();
  hub.faults.add({ at: 'open', do: { act: 'drop' }, times: 'always' });
  const clock = fastClock(100);
  const agent = startAgent(hub, { clock });
  await clock.sleep(60_000);
  const attempts = agent.names().filter((state) => state === 'connecting').length;
  expect(attempts).toBeGreaterThanOrEqual(3);
  expect(attempts).toBeLessThanOrEqual(10);
  await agent.stop();
});

test('a connection that comes up and is lost at once does not start the backoff over', async () => {
  await using hub = await startHub();
  const agent = startAgent(hub, {
    work: () => Promise.reject(new AgentError('unavailable', 'lost at once')),
  });
  await agent.waiting(4);
  const waits = agent.states
    .filter((state) => state.state === 'waiting')
    .map(({ since, until }) => until - since);
  expect(waits[3]).toBeGreaterThanOrEqual(4_000);
  await agent.stop();
});

test('one message that the hub accepted starts the backoff over', async () => {
  await using hub = await startHub();
  const agent = startAgent(hub, {
    work: async ({ telemetry }: HubSession, { healthy }) => {
      await telemetry.moreCredit(never);
      await telemetry.send(encode(message()));
      healthy();
      throw new AgentError('unavailable', 'lost again');
    },
  });
  await agent.waiting(4);
  const waits = agent.states
    .filter((state) => state.state === 'waiting')
    .map(({ since, until }) => until - since);
  expect(Math.max(...waits)).toBeLessThanOrEqual(1_000);
  await agent.stop();
});

describe('stopping', () => {
  test('while it waits for the next attempt is at once', async () => {
    await using hub = await startHub();
    hub.faults.add({ at: 'put-token', do: { act: 'refuse', status: 401 }, times: 'always' });
    const agent = startAgent(hub, { clock: fastClock(1) });
    await agent.waiting();
    await agent.stop();
    expect(agent.names()).toEqual(['connecting', 'waiting', 'stopped']);
  });

  test('while it connects is at once', async () => {
    await using hub = await startHub();
    hub.faults.add({ at: 'connect', do: { act: 'freeze' } });
    const agent = startAgent(hub, { open: (signal) => openSession(hub, { signal, deadlineMs: 60_000 }) });
    await hub.waitFor((record) => record.of('fault').length === 1);
    await agent.stop();
    expect(agent.names()).toEqual(['connecting', 'stopped']);
  });

  test('lets the work finish what it began, unless it is abandoned', async () => {
    await using hub = await startHub();
    const agent = startAgent(hub, { work: () => new Promise(() => undefined) });
    await agent.online();
    const stopped = agent.stop();
    expect(agent.names().at(-1)).toBe('draining');
    agent.abandon();
    await stopped;
    expect(agent.names().at(-1)).toBe('stopped');
  });
});

test('work that has no more to do ends the agent', async () => {
  await using hub = await startHub();
  const agent = startAgent(hub, { work: () => Promise.resolve() });
  await agent.running;
  expect(agent.names()).toEqual(['connecting', 'online', 'stopped']);
});

test('a mistake of ours in the configuration is not tried again', async () => {
  await using hub = await startHub();
  const agent = startAgent(hub, { open: () => Promise.reject(new AgentError('config', 'no')) });
  await expect(agent.running).rejects.toMatchObject({ code: 'config' });
});

test('P4: the third bug within ten minutes ends the process, so that its supervisor starts it clean', async () => {
  await using hub = await startHub();
  let bugs = 0;
  const agent = startAgent(hub, {
    work: () => Promise.reject(new TypeError(`bug ${String(++bugs)}`)),
  });
  await expect(agent.running).rejects.toMatchObject({ code: 'bug' });
  expect(bugs).toBe(3);
});
