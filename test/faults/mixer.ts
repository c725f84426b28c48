import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { Clock } from '../../src/clock.js';
import type { Emulator, Fault, FaultAction } from '../../src/emulator/emulator.js';
import type { Log } from '../../src/log.js';
import { systemClock } from '../../src/clock.js';
import { fastClock } from '../agent/clock.js';
import { device } from '../amqp/hub.js';
import { FakeDisk, seeded } from '../store/fake-disk.js';
import { defaultWindow, TestAgent } from './agent.js';
import { inProcess, missing, type Decision } from './kit.js';
import {
  judgeCommands,
  judgeTelemetry,
  type CommandVerdict,
  type Run,
  type TelemetryVerdict,
} from './oracle.js';
import type { Proxy } from './proxy.js';
import { hubBehindProxy, type Transport } from './transport.js';

export interface MixOptions {
  seed: number;
  messages: number;
  commands: number;
  /** How many troubles, one after the other. Default 3 to 6, as the seed decides. */
  troubles?: number;
  /** Which kinds there may be. Default: all. */
  kinds?: readonly string[];
  /** All times are divided by this. Default 20. */
  factor?: number;
  transport?: Transport;
  log?: Log;
}

export interface Mixed {
  seed: number;
  /** What happened, in order. */
  troubles: { kind: string; details: string }[];
  telemetry: TelemetryVerdict;
  commands: CommandVerdict;
  acknowledged: number;
  connections: number;
  /** From the end of the last trouble until the hub had everything, by the agent's clock. */
  drainedMs: number;
  /** Why it ended before everything was there, if it did. */
  stuck: string | undefined;
}

/**
 * One run: an agent that is given messages and commands while troubles that a seed chooses come over the network,
 * the hub and the agent itself, power cuts among them; and in the end the judgement of the oracle.
 */
export async function mix(options: MixOptions): Promise<Mixed> {
  const { factor = 20 } = options;
  const clock = factor === 1 ? systemClock : fastClock(factor);
  const directory = await mkdtemp(join(tmpdir(), 'iothub-mix-'));
  const { hub, proxy, webSocket } = await hubBehindProxy({ clock }, options);
  await using run = new MixedRun({ hub, proxy, webSocket, clock, directory, factor, ...options });
  return await run.toEnd();
}

/** A run is good when nothing is lost, repeated beyond what lost links explain, done twice or left. */
export function isGood({ telemetry, commands, stuck }: Mixed): boolean {
  const bad = [telemetry.lost, telemetry.unexplained, ...Object.values(commands)].filter(Array.isArray);
  return stuck === undefined && bad.every((list) => list.length === 0);
}

/** One line for people. */
export function describeMix(mixed: Mixed): string {
  const { telemetry, commands, stuck, troubles } = mixed;
  const counts = Object.entries({ ...telemetry, ...commands }).map(
    ([name, value]) => `${name} ${String(Array.isArray(value) ? value.length : value)}`,
  );
  const happened = troubles.map(({ kind, details }) => `${kind} ${details}`.trimEnd());
  const stuckAt = stuck === undefined ? '' : `; stuck: ${stuck}`;
  return `seed ${mixed.seed}: ${counts.join(', ')}${stuckAt}; troubles: ${happened.join(' | ')}`;
}

interface Parts extends MixOptions {
  hub: Emulator;
  proxy: Proxy;
  webSocket: boolean;
  clock: Clock;
  directory: string;
  factor: number;
}

class MixedRun implements AsyncDisposable {
  readonly #parts: Parts;
  /** Of the troubles alone: what else is random must not move them, or a seed would not bring them back. */
  readonly #random: () => number;
  readonly #agentRandom: () => number;
  readonly #runs: Run[] = [];
  readonly #sent: string[] = [];
  readonly #crashes: number[] = [];
  readonly #troubles: Mixed['troubles'] = [];
  /** Of all lives of the agent. */
  readonly #acknowledged: string[] = [];
  #messages = 0;
  #disk: FakeDisk;
  #agent: TestAgent | undefined;
  /** The agent is between two lives. */
  #starting: Promise<void> | undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#random = seeded(parts.seed);
    this.#agentRandom = seeded(parts.seed + 0x10000000);
    this.#disk = new FakeDisk(seeded(parts.seed + 0x20000000));
  }

  async toEnd(): Promise<Mixed> {
    const { hub, proxy, clock, messages, commands, troubles = this.#between(3, 6) } = this.#parts;
    await this.#begin();
    for (let n = 1; n <= troubles; n++) {
      const feeding = this.#feed(
        Math.floor((messages * n) / troubles),
        Math.floor((commands * n) / troubles),
      );
      await this.#pause(2_000);
      await this.#trouble();
      await this.#pause(this.#random() < 0.3 ? 40_000 : 8_000);
      hub.faults.clear();
      await proxy.heal();
      await feeding;
    }
    const healedAt = clock.monotonic();
    const stuck = await this.#arrived().then(
      () => undefined,
      (error: unknown) => `${String(error).slice(0, 300)}; agent: ${this.#agent!.history}`,
    );
    const drainedMs = clock.monotonic() - healedAt;
    await this.#agent!.stop();
    const facts = { deviceId: device, acknowledged: this.#acknowledged, window: defaultWindow };
    return {
      seed: this.#parts.seed,
      troubles: this.#troubles,
      telemetry: judgeTelemetry(hub.record, facts),
      commands: judgeCommands(hub.record, { sent: this.#sent, runs: this.#runs, crashes: this.#crashes }),
      acknowledged: this.#acknowledged.length,
      connections: hub.record.of('connected').length,
      drainedMs,
      stuck,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent?.[Symbol.asyncDispose]();
    await this.#parts.proxy[Symbol.asyncDispose]();
    await this.#parts.hub[Symbol.asyncDispose]();
    await rm(this.#parts.directory, { recursive: true, force: true });
  }

  async #arrived(): Promise<void> {
    const timeoutMs = this.#parts.factor === 1 ? 600_000 : 90_000;
    const { hub } = this.#parts;
    await hub.waitFor((record) => missing(record, this.#acknowledged) === 0, { timeoutMs });
    await hub.waitFor(() => hub.queueDepth(device) === 0, { timeoutMs });
  }

  async #begin(): Promise<void> {
    const { hub, proxy, webSocket, clock, directory, factor, log } = this.#parts;
    this.#agent = await TestAgent.start({
      connectionString: hub.deviceConnectionString(device),
      port: proxy.port,
      webSocket,
      ca: hub.ca,
      clock,
      factor,
      directory,
      disk: this.#disk,
      handlers: [inProcess(this.#runs, (command, attempt) => this.#decide(command.messageId ?? '', attempt))],
      random: this.#agentRandom,
      ...(log && { log }),
    });
  }

  /** What happens to a command is a matter of its number: 7 in 10 accepted, 1.5 rejected, 1.5 asked for again. */
  async #decide(messageId: string, attempt: number): Promise<Decision> {
    const random = seeded(this.#parts.seed * 1_000 + Number(messageId.slice(1)));
    const kind = random();
    await this.#parts.clock.sleep(random() * 3_000);
    if (kind < 0.7) return 'accept';
    if (kind < 0.85) return 'reject';
    return attempt === 1 ? 'release' : 'accept';
  }

  /** Gives the agent messages, and sends it commands, until there have been so many. */
  async #feed(messages: number, commands: number): Promise<void> {
    const { hub, clock } = this.#parts;
    const random = seeded(this.#parts.seed + messages);
    while (this.#messages < messages || this.#sent.length < commands) {
      const count = Math.min(messages - this.#messages, 1 + Math.floor(random() * 60));
      if (count > 0) await this.#queue(count, random() < 0.1 ? 20_000 : 100);
      if (this.#sent.length < commands && hub.queueDepth(device) < 50) {
        const messageId = `c${this.#sent.length + 1}`;
        const body = 'x'.repeat(random() < 0.2 ? 50_000 : 50);
        if (hub.sendCommand({ deviceId: device, messageId, body }).outcome === 'accepted') {
          this.#sent.push(messageId);
        }
      }
      await clock.sleep(random() * 500);
    }
  }

  /** What is not acknowledged, because the agent dies meanwhile, the caller does not count on. */
  async #queue(count: number, bytes: number): Promise<void> {
    const ids = Array.from({ length: count }, () => `m${++this.#messages}`);
    await this.#starting;
    const acknowledged = await this.#agent!.queue(ids, { bytes }).then(
      () => true,
      () => false,
    );
    if (acknowledged) this.#acknowledged.push(...ids);
  }

  async #trouble(): Promise<void> {
    const { kinds = kindsOfTrouble } = this.#parts;
    const kind = kinds[Math.floor(this.#random() * kinds.length)];
    if (kind === undefined) return;
    const details = await troubles[kind]!({
      ...this.#parts,
      random: this.#random,
      pick: (list) => list[Math.floor(this.#random() * list.length)]!,
      between: (least, most) => this.#between(least, most),
      scaled: (ms) => ms / this.#parts.factor,
      restart: (how) => this.#restart(how),
    });
    this.#troubles.push({ kind, details: details ?? '' });
  }

  async #restart(how: 'stop' | 'abandon' | 'kill' | 'power cut'): Promise<void> {
    const agent = this.#agent!;
    this.#starting = (async () => {
      if (how === 'stop') await agent.stop();
      else if (how === 'abandon') await agent.abandon();
      else {
        await this.#cutPower();
        this.#crashes.push(performance.now());
        this.#disk = how === 'kill' ? this.#disk.afterKill() : this.#disk.afterPowerCut();
        this.#parts.proxy.reset();
        await agent.abandon().catch(() => undefined);
      }
      await this.#begin();
    })();
    await this.#starting;
  }

  /** From the next change on nothing reaches the disk; so that it is now, there is one. */
  async #cutPower(): Promise<void> {
    this.#disk.fault = () => 'power cut';
    await this.#disk.change({ call: 'truncate', path: '' }, () => undefined).catch(() => undefined);
  }

  async #pause(mostMs: number): Promise<void> {
    await this.#parts.clock.sleep(this.#random() * mostMs);
  }

  #between(least: number, most: number): number {
    return least + Math.floor(this.#random() * (most - least + 1));
  }
}

/** What a trouble has to work with. It says what exactly it did. */
interface Scene extends Parts {
  random: () => number;
  pick: <T>(list: readonly T[]) => T;
  between: (least: number, most: number) => number;
  /** Real milliseconds of so many of the agent's. */
  scaled: (ms: number) => number;
  restart: (how: 'stop' | 'abandon' | 'kill' | 'power cut') => Promise<void>;
}

type Trouble = (scene: Scene) => string | undefined | Promise<string | undefined>;

const ways = ['up', 'down'] as const;
const links = ['telemetry', 'commands'] as const;
/** What the hub says when it ends something: reasons to come back soon, and some to come back late. */
const reasons = [
  undefined,
  'amqp:connection:forced',
  'amqp:link:detach-forced',
  'amqp:internal-error',
  'com.microsoft:timeout',
  'amqp:unauthorized-access',
  'com.microsoft:iot-hub-not-found-error',
];

function ending(act: 'close' | 'end' | 'detach', condition: string | undefined): FaultAction {
  return condition === undefined ? { act } : { act, condition };
}

/** A fault that waits for a moment of a connection's life, and a connection that has such a moment. */
function onNextConnection({ hub, proxy }: Scene, fault: Fault): void {
  hub.faults.add(fault);
  proxy.reset();
}

const troubles: Record<string, Trouble> = {
  reset: ({ proxy }) => void proxy.reset(),
  'reset after bytes': ({ proxy, pick, between }) => {
    const [way, bytes] = [pick(ways), between(0, 60_000)];
    proxy.resetAfter(bytes, way);
    return `${way} ${bytes}`;
  },
  'half close': ({ proxy, pick }) => {
    const way = pick(ways);
    proxy.halfClose(way);
    return way;
  },
  stall: ({ proxy, pick }) => {
    const way = pick(['up', 'down', 'both'] as const);
    proxy.stall(way);
    return way;
  },
  'stall after bytes': ({ proxy, pick, between }) => {
    const [way, bytes] = [pick(ways), between(0, 60_000)];
    proxy.stallAfter(bytes, way);
    return `${way} ${bytes}`;
  },
  'slow network': ({ proxy, pick, scaled }) => {
    const shape = pick([
      { delayMs: scaled(500) },
      { sliceBytes: 64 },
      { bytesPerSecond: 2_000_000 },
      { delayMs: scaled(1_000), sliceBytes: 512 },
    ]);
    proxy.shape(shape);
    return JSON.stringify(shape);
  },
  'port closed': async ({ proxy }) => {
    await proxy.door('refuse');
    proxy.reset();
    return undefined;
  },
  'silent port': async ({ proxy }) => {
    await proxy.door('mute');
    proxy.reset();
    return undefined;
  },
  'many resets': async ({ proxy, clock, random, between }) => {
    const times = between(2, 6);
    for (let n = 0; n < times; n++) {
      proxy.reset();
      await clock.sleep(random() * 2_000);
    }
    return `${times} times`;
  },
  'hub drops': ({ hub }) => void hub.faults.now({ act: 'drop' }),
  'hub freezes': ({ hub }) => void hub.faults.now({ act: 'freeze' }),
  'hub closes': ({ hub, pick }) => {
    const condition = pick(reasons);
    hub.faults.now(ending('close', condition) as never);
    return condition;
  },
  'hub ends the session': ({ hub, pick }) => {
    const condition = pick(reasons);
    hub.faults.now(ending('end', condition) as never, { link: 'telemetry' });
    return condition;
  },
  'hub detaches': ({ hub, pick }) => {
    const [link, condition] = [pick([...links, 'cbs'] as const), pick(reasons)];
    hub.faults.now(ending('detach', condition) as never, { link });
    return `${link} ${condition ?? ''}`;
  },
  'hub ends something at a transfer': ({ hub, pick, between }) => {
    const [act, after] = [pick(['detach', 'end', 'close', 'drop'] as const), between(0, 30)];
    hub.faults.add({ at: 'transfer', link: 'telemetry', after, do: { act } });
    return `${act} after ${after}`;
  },
  'hub ends something at a disposition': ({ hub, pick, between }) => {
    const [act, after] = [pick(['detach', 'end', 'close', 'drop'] as const), between(0, 10)];
    hub.faults.add({ at: 'disposition', link: 'telemetry', after, do: { act } });
    return `${act} after ${after}`;
  },
  'hub ends something at a delivery': ({ hub, pick, between }) => {
    const [act, after] = [pick(['detach', 'end', 'close', 'drop'] as const), between(0, 5)];
    hub.faults.add({ at: 'delivery', link: 'commands', after, do: { act } });
    return `${act} after ${after}`;
  },
  'token refused': (scene) => {
    const status = scene.pick([401, 404, 429, 500]);
    onNextConnection(scene, { at: 'put-token', do: { act: 'refuse', status } });
    return String(status);
  },
  'token not answered': (scene) => {
    onNextConnection(scene, { at: 'put-token', do: { act: 'say-nothing' } });
    return undefined;
  },
  'attach refused': (scene) => {
    const [link, condition] = [
      scene.pick(links),
      scene.pick(['amqp:internal-error', 'amqp:not-found', 'com.microsoft:device-container-throttled']),
    ];
    onNextConnection(scene, { at: 'attach', link, do: { act: 'refuse', condition } });
    return `${link} ${condition}`;
  },
  'attach not answered': (scene) => {
    const link = scene.pick(links);
    onNextConnection(scene, { at: 'attach', link, do: { act: 'say-nothing' } });
    return link;
  },
  'no credit': (scene) => {
    const fault = { at: 'credit', link: 'telemetry', times: 'always' } as const;
    onNextConnection(scene, { ...fault, do: { act: 'withhold' } });
    return undefined;
  },
  'credit one by one': (scene) => {
    const fault = { at: 'credit', link: 'telemetry', times: 'always' } as const;
    onNextConnection(scene, { ...fault, do: { act: 'trickle' } });
    return undefined;
  },
  'not taken': ({ hub, pick, between }) => {
    const answer = pick([
      { outcome: 'released' },
      { outcome: 'rejected', condition: 'amqp:internal-error' },
      { outcome: 'rejected', condition: 'com.microsoft:device-container-throttled' },
      { outcome: 'rejected', condition: 'amqp:resource-limit-exceeded' },
    ] as const);
    const times = between(1, 3);
    hub.faults.add({ at: 'transfer', link: 'telemetry', times, do: { act: 'answer', ...answer } });
    return `${JSON.stringify(answer)} ${times} times`;
  },
  'transfer lost': ({ hub, between }) => {
    const after = between(0, 5);
    hub.faults.add({ at: 'transfer', link: 'telemetry', after, do: { act: 'say-nothing' } });
    return `after ${after}`;
  },
  'answer lost': ({ hub, between }) => {
    const after = between(0, 5);
    hub.faults.add({ at: 'disposition', link: 'telemetry', after, do: { act: 'say-nothing' } });
    return `after ${after}`;
  },
  'delivery lost': ({ hub, between }) => {
    const after = between(0, 3);
    hub.faults.add({ at: 'delivery', link: 'commands', after, do: { act: 'say-nothing' } });
    return `after ${after}`;
  },
  'tokens expire': ({ hub }) => void hub.expireTokens(),
  stopped: ({ restart }) => restart('stop').then(() => undefined),
  abandoned: ({ restart }) => restart('abandon').then(() => undefined),
  killed: ({ restart }) => restart('kill').then(() => undefined),
  'power cut': ({ restart }) => restart('power cut').then(() => undefined),
};

export const kindsOfTrouble: readonly string[] = Object.keys(troubles);
