import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once, type EventEmitter } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';

import { makeCertificate } from '../../../src/emulator/certificates.js';
import { startEmulator } from '../../../src/emulator/emulator.js';

/** What the clients connect to. */
export interface Hub extends AsyncDisposable {
  readonly kind: HubKind;
  readonly address: string;
  readonly connectionString: string;
  /** File with the certificate of its authority. */
  readonly ca: string;
  /** CPU that it has used so far; undefined where it cannot be told apart. */
  cpuSeconds(): Promise<number | undefined>;
}

/** `sink`: the C program beside this file. `emulator`: the project's own, which is slower than what it measures. */
export type HubKind = 'sink' | 'emulator';

export interface HubOptions {
  /** Where the sink is, when it could be built. */
  sink: string | undefined;
  folder: string;
  /** Loopback address; the official SDK knows no port but 5671, so that each hub needs one of its own. */
  address: string;
  /** Addresses that the certificate names besides. */
  alsoAt?: readonly string[];
  /** As OpenSSL names them. Default: what both sides like best. */
  tlsProtocols?: string;
}

const deviceId = 'bench';

/** Compiles the sink; undefined when there is no compiler, or no qpid-proton. */
export function buildSink(folder: string): string | undefined {
  const binary = join(folder, 'sink');
  const source = join(import.meta.dirname, 'sink.c');
  const { status } = spawnSync('cc', ['-O2', '-D_GNU_SOURCE', '-o', binary, source, '-lqpid-proton'], {
    stdio: 'ignore',
  });
  return status === 0 ? binary : undefined;
}

export function startHub(options: HubOptions): Promise<Hub> {
  return options.sink === undefined ? emulatorHub(options) : sinkHub(options.sink, options);
}

async function sinkHub(
  sink: string,
  { folder, address, alsoAt = [], tlsProtocols }: HubOptions,
): Promise<Hub> {
  const now = Date.now();
  const authority = await makeCertificate({ commonName: 'bench', usage: 'authority', now });
  const hostNames = [address, ...alsoAt];
  const server = await makeCertificate({
    ...{ commonName: address, hostNames, issuer: authority, usage: 'server', now },
    days: 90,
  });
  const file = (name: string) => join(folder, `${address}-${name}.pem`);
  await writeFile(file('ca'), authority.certificate);
  await writeFile(file('server'), server.certificate);
  await writeFile(file('key'), server.key);
  const args = [address, '5671', file('server'), file('key'), ...(tlsProtocols ? [tlsProtocols] : [])];
  const child = spawn(sink, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  await firstLine(child);
  return {
    kind: 'sink',
    address,
    connectionString: connectionStringFor(address),
    ca: file('ca'),
    cpuSeconds: () => cpuSecondsOf(child.pid ?? 0),
    [Symbol.asyncDispose]: async () => {
      child.kill();
      await once(child, 'close');
    },
  };
}

/** The project's own, in this process: it does everything that a hub does. */
export async function emulatorHub({ folder, address, alsoAt = [] }: HubOptions): Promise<Hub> {
  const emulator = await startEmulator({
    ...{ host: address, hubName: address, hostNames: [address, ...alsoAt], port: 5671, devices: [deviceId] },
    record: { entries: 10, bytes: 1024 },
    retention: { count: 1000, bytes: 2 ** 20, ageMs: 60_000 },
  });
  const ca = join(folder, `${address}-ca.pem`);
  await writeFile(ca, emulator.ca);
  return {
    kind: 'emulator',
    address,
    connectionString: emulator.deviceConnectionString(deviceId),
    ca,
    cpuSeconds: () => Promise.resolve(undefined),
    [Symbol.asyncDispose]: () => emulator[Symbol.asyncDispose](),
  };
}

/** The same hub by another way to it: a relay that delays. */
export function connectionStringAt(hub: Hub, address: string): string {
  return hub.connectionString.replace(`HostName=${hub.address}`, `HostName=${address}`);
}

function connectionStringFor(address: string): string {
  return `HostName=${address};DeviceId=${deviceId};SharedAccessKey=${randomBytes(32).toString('base64')}`;
}

/** Waits until a process says that it is ready, and reads on. */
export async function firstLine(child: EventEmitter & { stdout: Readable }): Promise<string> {
  const lines = createInterface(child.stdout);
  const [line] = (await Promise.race([
    once(lines, 'line'),
    once(child, 'exit').then(() => {
      throw new Error('it ended before it was ready');
    }),
  ])) as [string];
  return line;
}

/** User and system time of a process and all its threads. */
export async function cpuSecondsOf(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const ticksPerSecond = 100;
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}
