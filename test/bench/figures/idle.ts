import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';

import { environment, freshFolder, type Bench, type Figure, type Reading } from '../kit/bench.js';
import { cpuSecondsOf, emulatorHub, firstLine, type Hub } from '../kit/hub.js';

/**
 * A daemon that stays online with everything switched on: telemetry, commands, methods, the twin; the agent has its
 * spool and its control socket besides. Beside the emulator, which answers for all of that.
 */
export const idle: Figure = {
  about: 'memory and CPU of a daemon, idle and at 100 messages a second',
  rounds: 3,
  contenders: {
    agent: (bench) => atRest(bench, agent, 0),
    official: (bench) => atRest(bench, official, 0),
    'agent at 100/s': (bench) => atRest(bench, agent, 100),
    'agent at 100/s, one stream': (bench) => atRest(bench, agentBy(oneStream), 100),
    'agent at 100/s, a request each': (bench) => atRest(bench, agentBy(aRequestEach), 100),
    'official at 100/s': (bench) => atRest(bench, official, 100),
  },
  rows: [
    row('idle: resident memory', '', 'residentMiB', 'MiB', { floor: 1.1, aim: 0.95 }),
    row('idle: private memory', '', 'privateMiB', 'MiB', { floor: 0.9, aim: 0.7 }),
    row('idle: CPU for a minute', '', 'cpuMsPerMinute', 'ms'),
    row('at 100/s: resident memory', ' at 100/s', 'residentMiB', 'MiB'),
    row('at 100/s: private memory', ' at 100/s', 'privateMiB', 'MiB'),
    row('at 100/s, through the disk: CPU for a minute', ' at 100/s', 'cpuMsPerMinute', 'ms'),
    ...[', one stream', ', a request each'].map((way) => ({
      ...row(`…${way}: CPU for a minute`, ' at 100/s', 'cpuMsPerMinute', 'ms'),
      ours: `agent at 100/s${way}`,
    })),
  ],
};

function row(label: string, which: string, value: string, unit: string, bounds = {}) {
  return { label, ours: `agent${which}`, theirs: `official${which}`, value, unit, ...bounds };
}

type Daemon = ChildProcessByStdio<null, Readable, null>;
interface Started {
  daemon: Daemon;
  /** Sends so many messages; absent where the daemon does it. */
  send?: (count: number) => void;
}

const settleMs = 5_000;
const watchMs = 15_000;
const ticksPerSecond = 20;

async function atRest(
  bench: Bench,
  start: (bench: Bench, hub: Hub, perSecond: number) => Promise<Started>,
  perSecond: number,
): Promise<Reading> {
  const [a, b, c] = bench.hub.address.split('.');
  await using hub = await emulatorHub({
    ...{ sink: undefined, folder: bench.folder, address: `${a}.${b}.${c}.200` },
  });
  const { daemon, send } = await start(bench, hub, perSecond);
  const pid = daemon.pid ?? 0;
  const work =
    perSecond > 0 && send !== undefined
      ? setInterval(send, 1000 / ticksPerSecond, perSecond / ticksPerSecond)
      : undefined;
  try {
    await delay(settleMs);
    const before = await cpuSecondsOf(pid);
    await delay(watchMs);
    const cpuMsPerMinute = ((await cpuSecondsOf(pid)) - before) * 1000 * (60_000 / watchMs);
    return { ...(await memoryOf(pid)), cpuMsPerMinute };
  } finally {
    clearInterval(work);
    daemon.kill('SIGKILL');
    await once(daemon, 'close');
  }
}

/** Twenty requests a second with five lines each: as many bursts as the SDK is given. */
const agent = agentBy((socket) => (count) => {
  post(socket, ndjson).end(lines(count));
});

/** What a program does that measures and sends: one request that stays open, a line for each message. */
function oneStream(socket: string): (count: number) => void {
  const open = post(socket, ndjson);
  return (count) => {
    open.write(lines(count));
  };
}

/** What `curl` in a loop does, but for the connections, which are kept. */
function aRequestEach(socket: string): (count: number) => void {
  return (count) => {
    for (let i = 0; i < count; i++) post(socket, 'application/json').end(JSON.stringify(measurement()));
  };
}

const ndjson = 'application/x-ndjson';

function post(socket: string, contentType: string) {
  const headers = { 'content-type': contentType };
  const open = request({ socketPath: socket, path: '/v1/telemetry', method: 'POST', headers });
  // The agent is killed in the middle of it.
  return open.on('error', () => undefined).on('response', (response) => response.resume());
}

let measured = 0;
const measurement = () => ({ n: measured++, value: 'x'.repeat(80) });

function lines(count: number): string {
  return Array.from({ length: count }, () => `${JSON.stringify({ body: measurement() })}\n`).join('');
}

/** `iothub-device run --config`. What it sends comes over its control socket, in one way or another. */
function agentBy(way: (socket: string) => (count: number) => void) {
  return async (bench: Bench, hub: Hub, perSecond: number): Promise<Started> => {
    const { daemon, socket } = await startAgent(bench, hub);
    return perSecond > 0 ? { daemon, send: way(socket) } : { daemon };
  };
}

async function startAgent(bench: Bench, hub: Hub): Promise<{ daemon: Daemon; socket: string }> {
  const folder = await freshFolder(bench);
  await mkdir(join(folder, 'run'), { mode: 0o700 });
  const socket = join(folder, 'run/control.sock');
  const modules = ['command', 'method', 'twin'];
  for (const on of modules) {
    const file = join(folder, `${on}.mjs`);
    await writeFile(file, `export default { on: '${on}', handle() {} };\n`);
    await chmod(file, 0o644);
  }
  const config = join(folder, 'config.toml');
  await writeFile(
    config,
    [
      ...['[hub]', `ca = "${hub.ca}"`, '[spool]', `directory = "${join(folder, 'spool')}"`],
      ...['[control]', `socket = "${socket}"`, '[log]', 'level = "info"', 'format = "json"'],
      ...modules.flatMap((on) => ['[[handlers]]', `module = "${join(folder, on)}.mjs"`, `on = "${on}"`]),
    ].join('\n'),
  );
  const file = join(import.meta.dirname, '../../../bin/iothub-device.js');
  const daemon = spawn(process.execPath, ['--use-openssl-ca', file, 'run', '--config', config], {
    env: environment({ IOTHUB_DEVICE_CONNECTION_STRING: hub.connectionString }),
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  await listening(socket);
  return { daemon, socket };
}

async function official(_bench: Bench, hub: Hub, perSecond: number): Promise<Started> {
  const file = join(import.meta.dirname, '../clients/official.js');
  const work = { kind: 'daemon', connectionString: hub.connectionString, perSecond };
  const daemon = spawn(process.execPath, [file, JSON.stringify(work)], {
    env: environment({ NODE_EXTRA_CA_CERTS: hub.ca }),
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await firstLine(daemon);
  return { daemon };
}

async function listening(socket: string): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (performance.now() < deadline) {
    const status = await new Promise<string>((resolve) => {
      request({ socketPath: socket, path: '/v1/status' }, (response) => {
        let text = '';
        response
          .on('data', (chunk: Buffer) => (text += chunk.toString()))
          .on('end', () => {
            resolve(text);
          });
      })
        .on('error', () => {
          resolve('');
        })
        .end();
    });
    if (status.includes('"online"')) return;
    await delay(50);
  }
  throw new Error('the agent is not online');
}

async function memoryOf(pid: number): Promise<Reading> {
  const rollup = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8');
  const mebibytes = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(rollup)?.[1]) / 1024;
  return {
    residentMiB: mebibytes('Rss'),
    privateMiB: mebibytes('Private_Clean') + mebibytes('Private_Dirty'),
  };
}
