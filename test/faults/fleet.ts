import { setTimeout as delay } from 'node:timers/promises';

import { startEmulator, type Emulator } from '../../src/emulator/emulator.js';
import { systemClock } from '../../src/clock.js';
import { FakeDisk, seeded } from '../store/fake-disk.js';
import { TestAgent } from './agent.js';
import { judgeTelemetry } from './oracle.js';
import { Proxy } from './proxy.js';

interface Fleet extends AsyncDisposable {
  hub: Emulator;
  proxy: Proxy;
  agents: TestAgent[];
}

/**
 * Many agents of one hub, in this process, each with a store in memory. By their own times: a hundred handshakes do not
 * fit into a twentieth of a deadline.
 */
async function openFleet(count: number, tokenTtlMs?: number): Promise<Fleet> {
  const devices = Array.from({ length: count }, (_, n) => `dev-${n + 1}`);
  const hub = await startEmulator({ devices });
  const proxy = await Proxy.start(hub.port);
  const agents: TestAgent[] = [];
  for (const [n, id] of devices.entries()) {
    agents.push(
      await TestAgent.start({
        connectionString: hub.deviceConnectionString(id),
        port: proxy.port,
        ca: hub.ca,
        clock: systemClock,
        factor: 1,
        disk: new FakeDisk(seeded(n)),
        random: seeded(n + 1),
        ...(tokenTtlMs !== undefined && { tokenTtlMs }),
      }),
    );
  }
  return {
    hub,
    proxy,
    agents,
    async [Symbol.asyncDispose]() {
      for (const agent of agents) await agent[Symbol.asyncDispose]();
      await proxy[Symbol.asyncDispose]();
      await hub[Symbol.asyncDispose]();
    },
  };
}

export interface Outage {
  lost: number;
  duplicates: number;
  /** Attempts of one agent during the outage. */
  attempts: { least: number; most: number };
  /** From the end of the outage until the hub had a message of the agent, each agent's. */
  recoveredMs: number[];
  /** Most connections that came within one second after the end, as a share of all. */
  peak: number;
}

/** Nobody listens for a while, and each agent has a message to send when somebody does again. */
export async function outage({ agents: count = 100, minutes = 10 } = {}): Promise<Outage> {
  await using fleet = await openFleet(count);
  const { hub, proxy, agents } = fleet;
  for (const agent of agents) await agent.online();
  for (const agent of agents) await agent.queue(['before']);
  const accepted = (messageId: string) =>
    hub.record.of('telemetry').filter((each) => each.messageId === messageId);
  await hub.waitFor(() => accepted('before').length === count);
  // Until they have heard so: what is under way when the hub goes would be sent again.
  for (const { store } of agents) while (store.spool.stats().waiting.count > 0) await delay(10);

  await proxy.door('refuse');
  proxy.reset();
  const attemptsBefore = agents.map((agent) => agent.times('connecting'));
  for (const agent of agents) await agent.queue(['during']);
  await delay(minutes * 60_000);
  const attempts = agents.map((agent, n) => agent.times('connecting') - attemptsBefore[n]!);

  await proxy.heal();
  const healedAt = hub.now();
  await hub.waitFor(() => accepted('during').length >= count, { timeoutMs: 120_000 });
  const came = hub.record.of('connected').flatMap(({ at }) => (at >= healedAt ? [at - healedAt] : []));
  const judged = agents.map(({ acknowledged }, n) =>
    judgeTelemetry(hub.record, { deviceId: `dev-${n + 1}`, acknowledged, window: 100 }),
  );
  return {
    lost: judged.reduce((sum, { lost }) => sum + lost.length, 0),
    duplicates: judged.reduce((sum, { duplicates }) => sum + duplicates, 0),
    attempts: { least: Math.min(...attempts), most: Math.max(...attempts) },
    recoveredMs: accepted('during')
      .map(({ at }) => at - healedAt)
      .sort((a, b) => a - b),
    peak:
      Math.max(...came.map((at) => came.filter((other) => other >= at && other < at + 1_000).length)) / count,
  };
}

export interface Renewals {
  /** Tokens that the hub took beyond the first of each device. */
  renewed: number;
  /** Tokens that it refused, links and connections that were lost. */
  drops: number;
  connections: number;
}

/** Short-lived tokens on connections whose telemetry link has no credit. */
export async function renewals({ devices = 50, each = 10, tokenTtlMs = 20_000 } = {}): Promise<Renewals> {
  await using fleet = await openFleet(devices, tokenTtlMs);
  const { hub, agents, proxy } = fleet;
  for (const agent of agents) await agent.online();
  // From now on there is no credit, for connections that are new.
  hub.faults.add({ at: 'credit', link: 'telemetry', times: 'always', do: { act: 'withhold' } });
  proxy.reset();
  for (const agent of agents) await agent.online(2);
  for (const agent of agents) await agent.queue(['m1', 'm2', 'm3']);
  const from = hub.record.entries.length;
  const since = <Entry extends { event: string }>(entries: readonly Entry[]): Entry[] => entries.slice(from);
  const tokens = () => since(hub.record.entries).flatMap((entry) => (entry.event === 'token' ? [entry] : []));
  await hub.waitFor(() => tokens().length >= devices * each, { timeoutMs: (each + 2) * tokenTtlMs });
  const events = since(hub.record.entries);
  return {
    renewed: tokens().filter(({ status }) => status === 200).length,
    drops:
      events.filter(({ event }) => ['detached', 'disconnected', 'refused', 'connected'].includes(event))
        .length + tokens().filter(({ status }) => status !== 200).length,
    connections: hub.connections.length,
  };
}
