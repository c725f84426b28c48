/**
 * Kills monitors that share a checkpoint file, and looks for events that nobody printed:
 *
 *     node --import ./test/typescript.js test/faults/monitors.ts [--kills N] [--seed S]
 *
 * Devices send all the while. Two monitors of one group run; one of them, at random, is killed with SIGKILL after a
 * random while and started anew, N times (default 50). Prints what happened, and exits with 1 when an event was never
 * printed, or was printed again although the checkpoint had it when the process was killed.
 */
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { device, encode, message, openSession, startHub } from '../amqp/hub.js';
import { environmentOf, Folder, ToolProcess } from '../cli/tool.js';
import { devices } from '../service/kit.js';
import type { Emulator } from '../../src/emulator/emulator.js';

export interface MonitorFindings {
  kills: number;
  sent: number;
  printed: number;
  /** Printed again, as they may after a kill. */
  repeated: number;
  /** `partition/sequence number` of events that nobody printed. */
  missing: string[];
  /** Of events that were printed after the checkpoint had them and their owner was dead. */
  needless: string[];
}

export async function killMonitors({
  kills,
  seed,
}: {
  kills: number;
  seed: number;
}): Promise<MonitorFindings> {
  const random = randomFrom(seed);
  await using hub = await startHub({ devices });
  await using folder = await Folder.make();
  const env = await environmentOf(hub, devices[0] ?? device, folder);
  const account = new Account();
  const start = (): Follower => new Follower(env, folder.path, account);

  const enough = new AbortController();
  const sending = sendUntil(hub, enough.signal);
  const running = [start(), start()];
  for (let n = 0; n < kills; n++) {
    await delay(300 + random() * 1_500);
    const victim = Math.floor(random() * running.length);
    await running[victim]?.kill();
    running[victim] = start();
  }
  enough.abort();
  const sent = await sending;
  const deadline = performance.now() + 30_000;
  while (account.printed.size < sent && performance.now() < deadline) await delay(100);
  for (const each of running) await each.stop();

  return {
    kills,
    sent,
    printed: account.lines,
    repeated: account.lines - account.printed.size,
    missing: account.missing(sent),
    needless: account.needless,
  };
}

/** What was printed, and what must not be printed again. */
class Account {
  lines = 0;
  readonly printed = new Set<string>();
  readonly needless: string[] = [];
  /** By partition, the sequence number up to which a dead owner had saved its way. */
  readonly #saved = new Map<string, number>();

  add(line: string): void {
    const { hub } = JSON.parse(line) as { hub: { partition: string; sequenceNumber: number } };
    const name = `${hub.partition}/${String(hub.sequenceNumber)}`;
    this.lines++;
    this.printed.add(name);
    if (hub.sequenceNumber <= (this.#saved.get(hub.partition) ?? -1)) this.needless.push(name);
  }

  /** The owner is dead, and all that it printed is in. */
  died(pid: number, checkpoint: string): void {
    const { monitors, partitions } = JSON.parse(checkpoint) as Table;
    for (const [partition, { owner = '', position }] of Object.entries(partitions)) {
      const isDead = monitors[owner]?.process.split(' ')[2] === String(pid);
      if (isDead && position?.sequenceNumber !== undefined)
        this.#saved.set(partition, position.sequenceNumber);
    }
  }

  /** Gaps in the numbers of the partitions; `sent` is how many there have to be. */
  missing(sent: number): string[] {
    if (this.printed.size === sent) return [];
    const highest = new Map<string, number>();
    for (const name of this.printed) {
      const [partition = '', number = ''] = name.split('/');
      highest.set(partition, Math.max(highest.get(partition) ?? 0, Number(number)));
    }
    const gaps = [...highest].flatMap(([partition, last]) =>
      Array.from({ length: last }, (_, n) => `${partition}/${String(n)}`).filter(
        (name) => !this.printed.has(name),
      ),
    );
    return gaps.length > 0 ? gaps : [`the last ${String(sent - this.printed.size)}`];
  }
}

interface Table {
  monitors: Record<string, { process: string }>;
  partitions: Record<string, { owner?: string; position?: { sequenceNumber?: number } }>;
}

/** A monitor as a process, and what it prints. */
class Follower {
  readonly #process: ToolProcess;
  readonly #folder: string;
  readonly #account: Account;
  #rest = '';

  constructor(env: Record<string, string>, folder: string, account: Account) {
    this.#folder = folder;
    this.#account = account;
    const args = ['monitor', '--checkpoint', 'seen.json', '-o', 'json'];
    this.#process = new ToolProcess('iothub-service', args, { env, cwd: folder });
    this.#process.stdout.on('data', (text: string) => {
      const lines = (this.#rest + text).split('\n');
      this.#rest = lines.pop() ?? '';
      for (const line of lines) account.add(line);
    });
  }

  async kill(): Promise<void> {
    this.#process.kill('SIGKILL');
    await this.#process.ended();
    const checkpoint = await readFile(`${this.#folder}/seen.json`, 'utf8').catch(() => undefined);
    if (checkpoint !== undefined) this.#account.died(this.#process.pid, checkpoint);
  }

  async stop(): Promise<void> {
    this.#process.kill('SIGTERM');
    await this.#process.ended();
  }
}

/** All devices send, a message every few milliseconds. Resolves to how many there were. */
async function sendUntil(hub: Emulator, signal: AbortSignal): Promise<number> {
  const counts = await Promise.all(
    devices.map(async (id) => {
      const connectionString = hub.deviceConnectionString(id);
      const alive = new AbortController().signal;
      await using session = await openSession(hub, { connectionString, links: ['telemetry'], signal: alive });
      let sent = 0;
      for (; !signal.aborted; sent++) {
        await session.telemetry.send(encode(message({ messageId: `${id}/${String(sent)}` })));
        await delay(20);
      }
      return sent;
    }),
  );
  return counts.reduce((a, b) => a + b, 0);
}

/** Mulberry32. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: { kills: { type: 'string', default: '50' }, seed: { type: 'string' } },
  });
  const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
  process.stdout.write(`seed ${String(seed)}\n`);
  const findings = await killMonitors({ kills: Number(values.kills), seed });
  process.stdout.write(`${JSON.stringify(findings, undefined, 2)}\n`);
  process.exitCode = findings.missing.length + findings.needless.length === 0 ? 0 : 1;
}
