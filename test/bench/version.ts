/**
 * What it costs to start: `iothub-device --version`, started as its file says, beside a Node.js that does nothing.
 *
 *     npm run build && node --import ./test/typescript.js test/bench/version.ts [ROUNDS]
 *
 * Prints milliseconds for one process, from its start to its end and of CPU: medians of rounds taken in turn, and what
 * the tool adds to a bare `node -e 0`. The target is 15 ms. On a busy machine only the CPU, and the ratio, mean much.
 */
import { spawnSync } from 'node:child_process';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';

const tool = join(import.meta.dirname, '../../bin/iothub-device.js');
const rounds = Number(process.argv[2] ?? 9);
const perRound = 10;

const bare = `node -e 0`;
const contenders = {
  [bare]: [process.execPath, '-e', '0'],
  // The flag is what the first line of the file gives to node.
  'iothub-device --version': [process.execPath, '--use-openssl-ca', tool, '--version'],
};

interface Reading {
  ms: number;
  cpuMs: number;
}

const readings = new Map(Object.keys(contenders).map((name) => [name, [] as Reading[]]));
for (let round = 0; round < rounds; round++) {
  for (const [name, command] of Object.entries(contenders)) readings.get(name)?.push(measure(command));
}

print(`${'one process'.padEnd(24)} clock      CPU`);
const nothing = of(bare);
for (const name of Object.keys(contenders)) {
  const { ms, cpuMs } = of(name);
  print(`${name.padEnd(24)} ${shown(ms)}  ${shown(cpuMs)}`);
  if (name === bare) continue;
  print(`${'  more than bare'.padEnd(24)} ${shown(ms - nothing.ms)}  ${shown(cpuMs - nothing.cpuMs)}`);
  print(`${'  ratio'.padEnd(24)} ${shown(ms / nothing.ms, '')}  ${shown(cpuMs / nothing.cpuMs, '')}`);
}
print(
  `Node.js ${process.version}; load ${loadavg()[0]?.toFixed(1) ?? '?'} on ${String(cpus().length)} processors`,
);

/** Several in a row, because a shell tells the CPU time of its children in milliseconds. */
function measure(command: readonly string[]): Reading {
  const { PATH = '', HOME = '' } = process.env;
  const script = `for ((n = 0; n < ${String(perRound)}; n++)); do "$@" >/dev/null || exit; done; times`;
  const begun = performance.now();
  const { status, stdout, stderr } = spawnSync('bash', ['-c', script, 'bash', ...command], {
    env: { PATH, HOME },
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`${command.join(' ')} ended with ${String(status)}\n${stderr}`);
  const ms = performance.now() - begun;
  // The last line is of its children: user and system.
  const times = [...(stdout.trim().split('\n').at(-1) ?? '').matchAll(/(\d+)m([\d.]+)s/g)];
  const cpuMs = times.reduce(
    (sum, [, minutes, seconds]) => sum + (Number(minutes) * 60 + Number(seconds)) * 1000,
    0,
  );
  return { ms: ms / perRound, cpuMs: cpuMs / perRound };
}

function of(name: string): Reading {
  const all = readings.get(name) ?? [];
  return { ms: median(all.map(({ ms }) => ms)), cpuMs: median(all.map(({ cpuMs }) => cpuMs)) };
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
}

function shown(value: number, unit = ' ms'): string {
  return `${value.toFixed(unit === '' ? 2 : 1).padStart(6)}${unit.padEnd(3)}`;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
