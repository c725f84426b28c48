import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';

import { connectionStringAt, firstLine, type Hub } from './hub.js';

/** What one run of a client measured, by name. */
export type Reading = Record<string, number>;

/** One that is measured; contenders of a figure take turns. */
export type Contender = (bench: Bench) => Promise<Reading>;

export interface Figure {
  about: string;
  contenders: Record<string, Contender>;
  rows: readonly Row[];
  /** Rounds when none are asked for. */
  rounds?: number;
  /** Needs commands from the hub, or its speed. */
  needsSink?: boolean;
}

/** One line of the table. */
export interface Row {
  label: string;
  ours: string;
  /** Absent: a figure for its own sake. */
  theirs?: string;
  /** Of the reading. */
  value: string;
  unit: string;
  /** Of the ratio: where floor < aim, more is better. */
  floor?: number;
  aim?: number;
}

/** Where everything runs that is measured. */
export interface Bench {
  readonly hub: Hub;
  /** The same hub, on TLS 1.2 only: the handshake that most hubs and devices have. */
  readonly hub12: Hub;
  /** Below it everything is thrown away at the end; on the disk in question. */
  readonly folder: string;
  /** What share of its messages a client sends: less on a machine that has no time. */
  readonly scale: number;
  /** Loopback address of a way to a hub that takes this long, there and back. */
  relay(to: Hub, roundTripMs: number): Promise<string>;
}

export type ClientName = 'agent' | 'official';

/** Work for one of the clients; without a connection string, at the hub. */
export interface Work {
  kind: string;
  connectionString?: string;
  count?: number;
  warm?: number;
  [option: string]: unknown;
}

/** Runs a client to its end and returns what it printed. */
export async function runClient(bench: Bench, name: ClientName, work: Work): Promise<Reading> {
  const { hub } = bench;
  const file = join(import.meta.dirname, `../clients/${name}.js`);
  const whole = { connectionString: hub.connectionString, ca: hub.ca, ...work };
  if (whole.kind !== 'fill') Object.assign(whole, scaled(bench, work));
  const flags = name === 'agent' ? ['--use-openssl-ca', '--expose-gc'] : [];
  const foreign = beginForeign();
  const hubBefore = await hub.cpuSeconds();
  const child = spawn(process.execPath, ['--no-deprecation', ...flags, file, JSON.stringify(whole)], {
    env: environment(name === 'official' ? { NODE_EXTRA_CA_CERTS: hub.ca } : {}),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [out, err] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  const [code] = (await once(child, 'close')) as [number | null];
  const line = out.trim().split('\n').at(-1);
  if (code !== 0 || line === undefined || line === '')
    throw new Error(`${name} ${JSON.stringify(work)} ended with ${String(code)}\n${err}`);
  const reading = JSON.parse(line) as Reading;
  const hubAfter = await hub.cpuSeconds();
  if (hubBefore !== undefined && hubAfter !== undefined) reading['hubCpuSeconds'] = hubAfter - hubBefore;
  reading['busyShare'] = foreign();
  return reading;
}

/** How many messages are sent where all of them would be `count`, and `warm` before. */
export function scaled(
  { scale }: Bench,
  { count, warm }: { count?: number; warm?: number },
): { count?: number; warm?: number } {
  if (count === undefined || warm === undefined) return {};
  return { count: Math.round(count * scale), warm: Math.round(warm * scale) };
}

/** No variable of who runs the bench reaches the clients. */
export function environment(more: Record<string, string>): Record<string, string> {
  const { PATH = '', HOME = '' } = process.env;
  return { PATH, HOME, ...more };
}

export function freshFolder(bench: Bench): Promise<string> {
  return mkdtemp(join(bench.folder, 'run-'));
}

export async function startRelay(address: string, to: Hub, roundTripMs: number): Promise<AsyncDisposable> {
  const file = join(import.meta.dirname, 'relay.js');
  const child = spawn(process.execPath, [file, address, to.address, String(roundTripMs / 2)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await firstLine(child);
  return {
    [Symbol.asyncDispose]: async () => {
      child.kill();
      await once(child, 'close');
    },
  };
}

export async function overRelay(bench: Bench, to: Hub, roundTripMs: number): Promise<string> {
  return connectionStringAt(to, await bench.relay(to, roundTripMs));
}

/** How busy the whole machine was meanwhile, 0 to 1: what a reading is worth beside other work. */
function beginForeign(): () => number {
  const before = totals();
  return () => {
    const after = totals();
    return 1 - (after.idle - before.idle) / (after.all - before.all);
  };
}

function totals(): { idle: number; all: number } {
  let [idle, all] = [0, 0];
  for (const { times } of cpus()) {
    idle += times.idle;
    all += times.idle + times.user + times.nice + times.sys + times.irq;
  }
  return { idle, all };
}
