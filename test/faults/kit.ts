import { expect } from 'vitest';

import type { Emulator, EmulatorOptions } from '../../src/emulator/emulator.js';
import type { CommandEvent } from '../../src/handlers/contract.js';
import type { Handler } from '../../src/handlers/handler.js';
import type { Clock } from '../../src/clock.js';
import { fastClock } from '../agent/clock.js';
import { device } from '../amqp/hub.js';
import { seeded } from '../store/fake-disk.js';
import { defaultWindow, TestAgent, type AgentSetup } from './agent.js';
import { judgeCommands, judgeTelemetry, type Run } from './oracle.js';
import type { Proxy } from './proxy.js';
import { hubBehindProxy, type Transport } from './transport.js';

export interface WorldOptions extends Partial<AgentSetup> {
  transport?: Transport;
  hub?: EmulatorOptions;
  seed?: number;
  decide?: Decide;
}

/** A hub, a network and an agent, all by one clock; and what was asked of the agent. */
export interface World extends AsyncDisposable {
  hub: Emulator;
  proxy: Proxy;
  agent: TestAgent;
  clock: Clock;
  factor: number;
  runs: Run[];
  /** Queues so many messages more. */
  queue(count: number, options?: { bytes?: number }): Promise<void>;
  /** Sends a command; its message id. */
  command(body?: string): string;
  /** Resolves when the hub has all that was acknowledged and every command is done. */
  settled(timeoutMs?: number): Promise<void>;
  /** Resolves when a new message and a new command are through; how long that took, by the agent's clock. */
  recovered(): Promise<number>;
  /** Nothing lost, nothing repeated that a lost link does not explain, no command done twice. */
  judge(): { duplicates: number; reordered: number; lostLinks: number };
}

export async function openWorld(options: WorldOptions = {}): Promise<World> {
  const { factor = 20, seed = 1, decide = () => 'accept', window = defaultWindow } = options;
  const clock = options.clock ?? fastClock(factor);
  const way = { seed, transport: options.transport };
  const { hub, proxy, webSocket } = await hubBehindProxy({ clock, ...options.hub }, way);
  const runs: Run[] = [];
  const agent = await TestAgent.start({
    connectionString: hub.deviceConnectionString(device),
    port: proxy.port,
    webSocket,
    ca: hub.ca,
    clock,
    handlers: [inProcess(runs, decide)],
    random: seeded(seed),
    ...options,
  });
  const sent: string[] = [];
  let messages = 0;
  const world: World = {
    hub,
    proxy,
    agent,
    clock,
    factor,
    runs,
    async queue(count, { bytes } = {}) {
      const ids = Array.from({ length: count }, () => `m${String(++messages)}`);
      await agent.queue(ids, { bytes });
    },
    command(body = 'go') {
      const messageId = `c${String(sent.length + 1)}`;
      const outcome = hub.sendCommand({ deviceId: device, messageId, body });
      if (outcome.outcome !== 'accepted') throw new Error(`the hub did not take ${messageId}`);
      sent.push(messageId);
      return messageId;
    },
    async settled(timeoutMs = 20_000) {
      await hub.waitFor((record) => missing(record, agent.acknowledged) === 0, { timeoutMs });
      await hub.waitFor(() => hub.queueDepth(device) === 0, { timeoutMs });
    },
    async recovered() {
      const startedAt = clock.monotonic();
      await world.queue(1);
      const command = world.command();
      await hub.waitFor(
        (record) =>
          missing(record, agent.acknowledged.slice(-1)) === 0 &&
          record.of('outcome').some(({ messageId }) => messageId === command),
        { timeoutMs: 20_000 },
      );
      return clock.monotonic() - startedAt;
    },
    judge() {
      const facts = { deviceId: device, acknowledged: agent.acknowledged, window };
      const { duplicates, reordered, lostLinks, ...telemetry } = judgeTelemetry(hub.record, facts);
      expect(telemetry, `seed ${String(seed)}`).toEqual({ lost: [], unexplained: [], farBehind: [] });
      const commands = judgeCommands(hub.record, { sent, runs });
      const nothing = { unfinished: [], rerun: [], unknown: 0, givenUp: 0, misreported: [], neverRan: [] };
      expect(commands, `seed ${String(seed)}`).toEqual(nothing);
      return { duplicates, reordered: reordered.length, lostLinks };
    },
    async [Symbol.asyncDispose]() {
      await agent[Symbol.asyncDispose]();
      await proxy[Symbol.asyncDispose]();
      await hub[Symbol.asyncDispose]();
    },
  };
  return world;
}

export type Decision = 'accept' | 'reject' | 'release';
export type Decide = (command: CommandEvent, attempt: number) => Decision | Promise<Decision>;

/** A handler in this process, that notes its runs. */
export function inProcess(runs: Run[], decide: Decide, name = 'all'): Handler {
  return {
    name,
    on: 'command',
    timeoutMs: 45_000,
    afterCrash: 'run',
    async run(event, { attempt }) {
      if (event.event !== 'command') throw new TypeError('only commands come here');
      const run: Run = { messageId: event.messageId ?? '', startedAt: performance.now() };
      runs.push(run);
      run.decided = await decide(event, attempt);
      run.endedAt = performance.now();
      return { outcome: run.decided, status: 200, decidedBy: 'handler' };
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** How many of these the hub has not accepted. */
export function missing(record: Emulator['record'], ids: readonly string[]): number {
  const accepted = new Set<string | undefined>();
  for (const { messageId, outcome } of record.of('telemetry')) {
    if (outcome.outcome === 'accepted') accepted.add(messageId);
  }
  return ids.filter((id) => !accepted.has(id)).length;
}
