/**
 * What the agent costs and brings, beside `azure-iot-device-amqp` doing the same work on the same hub in the same run.
 *
 *     npm run bench -- [--only send,drain,…] [--rounds N] [--scale S] [--folder DIRECTORY] [--out FILE.json]
 *
 * Contenders take turns within a round, so that what else the machine does meets all of them; the table has medians
 * of the rounds. `--folder` is where messages are stored: on the disk in question. `--list` names the figures.
 * `--scale 0.1` sends a tenth of the messages: sooner done, and less exact, as more of it is warming up.
 */
import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { arch, cpus, release, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { cold } from './figures/cold.js';
import { commands } from './figures/commands.js';
import { drain } from './figures/drain.js';
import { durable } from './figures/durable.js';
import { growth } from './figures/growth.js';
import { idle } from './figures/idle.js';
import { latency } from './figures/latency.js';
import { roundtrips } from './figures/roundtrips.js';
import { rtt } from './figures/rtt.js';
import { send } from './figures/send.js';
import { startRelay, type Bench, type Figure } from './kit/bench.js';
import { buildSink, startHub, type Hub } from './kit/hub.js';
import { markdown, rowsOf, type Results, type TableRow } from './kit/table.js';

const figures: Record<string, Figure> = {
  ...{ send, drain, rtt, durable, latency, commands, cold, roundtrips, idle, growth },
};

/** Programs of their own, which print tables of their own. */
const programs: Record<string, string> = {
  guard: 'what the guard between the socket and rhea costs',
  handlers: 'what a command costs, by the form of its handler',
  monitor: 'reading an event hub, beside @azure/event-hubs',
  store: 'the log of the store, beside what the disk can do',
  'store-backlog': 'opening and reading a store that has grown',
  version: 'starting, beside a Node.js that does nothing',
};

const defaultRounds = 5;

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    rounds: { type: 'string' },
    scale: { type: 'string', default: '1' },
    folder: { type: 'string', default: tmpdir() },
    out: { type: 'string', default: 'bench.json' },
    list: { type: 'boolean', default: false },
  },
});
if (values.list) list();
else await run(values.only?.split(',') ?? Object.keys(figures));

async function run(names: readonly string[]): Promise<void> {
  const unknown = names.filter((name) => !(name in figures) && !(name in programs));
  if (unknown.length > 0) throw new Error(`there is no figure ${unknown.join(', ')}; --list names them`);
  const measured = await measure(names.filter((name) => name in figures));
  if (measured.rows.length > 0) {
    print(markdown(measured.rows));
    await writeFile(values.out, JSON.stringify(measured, undefined, 1));
    print(`\nMedians; ${measured.machine}; hub: ${measured.hub}. All readings are in ${values.out}.`);
  }
  for (const name of names) if (name in programs) await runProgram(name);
}

async function measure(names: readonly string[]) {
  const machine = `${cpus().length} × ${cpus()[0]?.model ?? arch()}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}, Node.js ${process.version}`;
  const rows: TableRow[] = [];
  const readings: Record<string, Results> = {};
  if (names.length === 0) return { machine, hub: 'none', rows, readings };
  await using place = await openPlace();
  const { bench } = place;
  say(
    `hub: ${bench.hub.kind === 'sink' ? 'the C sink' : 'the emulator, for want of a C compiler and qpid-proton; it is slower than the clients'}`,
  );
  for (const name of names) {
    const figure = figures[name];
    if (figure === undefined) continue;
    if (figure.needsSink === true && bench.hub.kind !== 'sink') {
      say(`${name}: left out, needs the C sink`);
      continue;
    }
    readings[name] = await measureFigure(name, figure, bench);
    rows.push(...rowsOf(name, figure, readings[name]));
  }
  return { machine, hub: bench.hub.kind, rows, readings };
}

async function measureFigure(name: string, figure: Figure, bench: Bench): Promise<Results> {
  const rounds = Number(values.rounds ?? figure.rounds ?? defaultRounds);
  const results: Results = {};
  for (let round = 1; round <= rounds; round++) {
    for (const [contender, measureOnce] of Object.entries(figure.contenders)) {
      const reading = await measureOnce(bench);
      (results[contender] ??= []).push(reading);
      say(`${name} ${round}/${rounds} ${contender}: ${JSON.stringify(reading, shortNumber)}`);
    }
  }
  return results;
}

/** The hubs, and the folder that everything is written into. */
async function openPlace(): Promise<AsyncDisposable & { bench: Bench }> {
  const folder = await mkdtemp(join(values.folder, 'iothub-bench-'));
  const net = `127.${randomInt(1, 250)}.${randomInt(1, 250)}`;
  const relays = Array.from({ length: 8 }, (_, n) => `${net}.${100 + n}`);
  const sink = buildSink(folder);
  const hub = await startHub({ sink, folder, address: `${net}.1`, alsoAt: relays });
  const hub12 = await startHub({
    ...{ sink, folder, address: `${net}.2`, alsoAt: relays, tlsProtocols: 'TLSv1.2' },
  });
  const open: AsyncDisposable[] = [hub, hub12];
  const running = new Map<string, string>();
  const relay = async (to: Hub, roundTripMs: number): Promise<string> => {
    const key = `${to.address} ${roundTripMs}`;
    const known = running.get(key);
    if (known !== undefined) return known;
    const address = relays[running.size];
    if (address === undefined) throw new Error('too many relays');
    running.set(key, address);
    open.push(await startRelay(address, to, roundTripMs));
    return address;
  };
  return {
    bench: { hub, hub12, folder, relay, scale: Number(values.scale) },
    [Symbol.asyncDispose]: async () => {
      for (const one of open) await one[Symbol.asyncDispose]();
      await rm(folder, { recursive: true });
    },
  };
}

async function runProgram(name: string): Promise<void> {
  print(`\n${name}: ${programs[name] ?? ''}\n`);
  const file = join(import.meta.dirname, `${name}.ts`);
  const child = spawn(process.execPath, ['--import', './test/typescript.js', file], { stdio: 'inherit' });
  await once(child, 'exit');
}

function list(): void {
  for (const [name, { about }] of Object.entries(figures)) print(`${name.padEnd(14)} ${about}`);
  for (const [name, about] of Object.entries(programs)) print(`${name.padEnd(14)} ${about}`);
}

function shortNumber(_key: string, value: unknown): unknown {
  return typeof value === 'number' ? Number(value.toPrecision(4)) : value;
}

/** Progress, beside the table. */
function say(line: string): void {
  process.stderr.write(`${line}\n`);
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
