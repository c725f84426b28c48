/**
 * Reading what has piled up in an event hub: our monitor, as a library and as a command that prints, beside
 * `@azure/event-hubs` on the same events. Each reader is a process of its own; so is the hub.
 *
 *     npm run build && node --import ./test/typescript.js test/bench/monitor.ts [EVENTS] [ROUNDS]
 *
 * Prints medians: events per second from the start of reading to the last one, CPU time per event, and the most memory
 * that was resident. Fails when an event is missing.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { startEmulator } from '../../src/emulator/emulator.js';
import { encode, message, openSession } from '../amqp/hub.js';

const [first = '200000', second = '3'] = process.argv.slice(2);
if (first === 'hub') await hub(Number(second));
else await compare(Number(first), Number(second));

interface Reading {
  perSecond: number;
  cpuUs: number;
  residentMiB: number;
}

async function compare(events: number, rounds: number): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'iothub-bench-'));
  const hubProcess = start(
    ['--import', './test/typescript.js', import.meta.filename, 'hub', String(events)],
    {},
  );
  const [facts] = (await once(createInterface(hubProcess.stdout), 'line')) as [string];
  const { connectionString, ca } = JSON.parse(facts) as { connectionString: string; ca: string };
  const caFile = join(folder, 'ca.pem');
  await writeFile(caFile, ca);
  const env = {
    IOTHUB_EVENTHUB_CONNECTION_STRING: connectionString,
    IOTHUB_SERVICE_CA: caFile,
    NODE_EXTRA_CA_CERTS: caFile,
  };
  const reader = join(import.meta.dirname, 'monitor-reader.js');
  const readers: [name: string, args: string[]][] = [
    ['library', [reader, 'library', String(events)]],
    [
      'iothub-service monitor -o json',
      ['bin/iothub-service.js', 'monitor', '--from', 'start', '-n', String(events), '-o', 'json'],
    ],
    ['@azure/event-hubs', [reader, 'sdk', String(events)]],
  ];
  // The hub encodes an event for its first reader and keeps that for the others.
  await read(readers[0]?.[1] ?? [], env, events);
  const results = new Map<string, Reading[]>();
  for (let round = 0; round < rounds; round++) {
    for (const [name, args] of readers) {
      results.set(name, [...(results.get(name) ?? []), await read(args, env, events)]);
    }
  }
  print('| | events/s | CPU µs/event | resident MiB |\n|---|---|---|---|');
  for (const [name, readings] of results) {
    const cells = [
      median(readings.map(({ perSecond }) => perSecond)),
      median(readings.map(({ cpuUs }) => cpuUs)),
      median(readings.map(({ residentMiB }) => residentMiB)),
    ];
    print(`| ${name} | ${cells.map((cell) => String(Math.round(cell))).join(' | ')} |`);
  }
  hubProcess.kill();
  await rm(folder, { recursive: true });
}

/** Runs a reader to its end. Time counts from its first line: the start of a process is not what is asked here. */
async function read(args: string[], env: Record<string, string>, events: number): Promise<Reading> {
  const child = start(args, env);
  let seen = 0;
  let startedAt = 0;
  child.stdout.on('data', (chunk: Buffer) => {
    if (startedAt === 0) startedAt = performance.now();
    for (const byte of chunk) if (byte === 0x0a) seen++;
  });
  let status = { residentMiB: 0, cpuMs: 0 };
  const watch = setInterval(() => {
    void statusOf(child.pid ?? 0).then((now) => {
      if (now !== undefined && now.residentMiB > 0) status = now;
    });
  }, 20);
  const [code] = (await once(child, 'close')) as [number];
  clearInterval(watch);
  const seconds = (performance.now() - startedAt) / 1000;
  // A reader that prints no events prints when it begins and when it ends.
  if (code !== 0 || (seen !== events && seen !== 2))
    throw new Error(`it ended with ${String(code)} after ${String(seen)}`);
  return {
    perSecond: events / seconds,
    cpuUs: (status.cpuMs * 1000) / events,
    residentMiB: status.residentMiB,
  };
}

async function statusOf(pid: number): Promise<{ residentMiB: number; cpuMs: number } | undefined> {
  try {
    const status = await readFile(`/proc/${String(pid)}/status`, 'utf8');
    const stat = await readFile(`/proc/${String(pid)}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const ticks = Number(fields[11]) + Number(fields[12]);
    return { residentMiB: Number(/VmHWM:\s+(\d+)/.exec(status)?.[1]) / 1024, cpuMs: ticks * 10 };
  } catch {
    return undefined;
  }
}

/** Holds the events, and says where. */
async function hub(events: number): Promise<void> {
  const address = '127.23.42.1';
  const devices = Array.from({ length: 20 }, (_, n) => `d${String(n)}`);
  await using emulator = await startEmulator({
    ...{ host: address, hubName: address, hostNames: [address], port: 5671, devices },
    retention: { count: events, bytes: 2 ** 30, ageMs: 86_400_000 },
    record: { entries: 10, bytes: 1024 },
  });
  await Promise.all(
    devices.map(async (id) => {
      const connectionString = emulator.deviceConnectionString(id);
      await using session = await openSession(emulator, { connectionString, links: ['telemetry'] });
      const encoded = encode(message({ properties: { level: 'high' }, contentType: 'application/json' }));
      const until = new AbortController().signal;
      let flight: Promise<unknown>[] = [];
      for (let n = 0; n < events / devices.length; n++) {
        if (session.telemetry.credit <= 0) {
          await Promise.all(flight);
          flight = [];
          await session.telemetry.moreCredit(until);
        }
        flight.push(session.telemetry.send(encoded));
      }
      await Promise.all(flight);
    }),
  );
  print(JSON.stringify({ connectionString: emulator.eventHubConnectionString, ca: emulator.ca }));
  await once(process, 'SIGTERM');
}

function start(args: string[], env: Record<string, string>) {
  const { PATH = '', HOME = '' } = process.env;
  return spawn(process.execPath, args, { env: { PATH, HOME, ...env }, stdio: ['ignore', 'pipe', 'inherit'] });
}

function median(values: number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
