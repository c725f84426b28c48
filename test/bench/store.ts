/**
 * What the durable log costs: 1 KiB items put and then removed in the same order, each commit on disk before the next.
 *
 *     node --import ./test/typescript.js test/bench/store.ts [DIRECTORY] [ROUNDS]
 *
 * `at once`: as many commits as one asks for without waiting for each, which is what group commit is for.
 * Prints medians of rounds taken in turn, beside the floor of the disk: a write and an fdatasync of the same bytes
 * into a file whose blocks are allocated. The directory should be on the disk in question, not on a tmpfs.
 */
import { close, fdatasync, openSync, write } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { DurableLog } from '../../src/store/log/durable-log.js';
import type { Ref } from '../../src/store/log/record.js';

const [parent = tmpdir(), rounds = '3'] = process.argv.slice(2);
const body = Buffer.alloc(1024, 'telemetry ');
const kind = 8;

interface Result {
  readonly perSecond: number;
  readonly p50us: number;
  readonly p99us: number;
  readonly cpuUs: number;
}

type Measured = Record<'put' | 'remove', Result>;

const works: { name: string; run: (directory: string) => Promise<Measured> }[] = [
  { name: 'floor: write + fdatasync, 1 item', run: (directory) => floor(directory, 1, 5000) },
  { name: 'floor: write + fdatasync, 100 items', run: (directory) => floor(directory, 100, 1500) },
  { name: 'log, 1 per commit', run: (directory) => log(directory, { perCommit: 1, count: 5000 }) },
  { name: 'log, 100 per commit', run: (directory) => log(directory, { perCommit: 100, count: 300_000 }) },
  {
    name: 'log, 1 per commit, 100 at once',
    run: (directory) => log(directory, { perCommit: 1, count: 100_000, atOnce: 100 }),
  },
];

const results = new Map<string, Measured[]>();
for (let round = 0; round < Number(rounds); round++) {
  for (const { name, run } of works) {
    const directory = await mkdtemp(join(parent, 'iothub-bench-'));
    results.set(name, [...(results.get(name) ?? []), await run(directory)]);
    await rm(directory, { recursive: true });
  }
}
print('| | put/s | p50 µs | p99 µs | CPU µs/item | remove/s | CPU µs/item | put+remove/s |');
print('|---|---|---|---|---|---|---|---|');
for (const [name, measured] of results) {
  const of = (pick: (m: Measured) => number): number => median(measured.map(pick));
  const put = of((m) => m.put.perSecond);
  const remove = of((m) => m.remove.perSecond);
  const cells = [
    put,
    of((m) => m.put.p50us),
    of((m) => m.put.p99us),
    of((m) => m.put.cpuUs),
    remove,
    of((m) => m.remove.cpuUs),
    1 / (1 / put + 1 / remove),
  ];
  print(
    `| ${name} | ${cells.map((n) => n.toLocaleString('en', { maximumFractionDigits: n < 100 ? 1 : 0 })).join(' | ')} |`,
  );
}
print(`peak RSS ${(process.resourceUsage().maxRSS / 1024).toFixed(0)} MiB`);

async function log(
  directory: string,
  { perCommit, count, atOnce = 1 }: { perCommit: number; count: number; atOnce?: number },
): Promise<Measured> {
  const log = await DurableLog.open({ directory });
  const refs: Ref[] = [];
  const put = { put: { kind, value: [body] } };
  await log.commit([{ remove: (await log.commit([put]))[0]! }]);
  const commits = count / perCommit / atOnce;
  const measuredPut = await measure(commits, perCommit * atOnce, async () => {
    const waiting = Array.from({ length: atOnce }, () =>
      log.commitEach(Array.from({ length: perCommit }, () => put)),
    );
    for (const part of await Promise.all(waiting)) refs.push(...part);
  });
  let next = 0;
  const measuredRemove = await measure(commits, perCommit * atOnce, async () => {
    const waiting = Array.from({ length: atOnce }, () => {
      next += perCommit;
      return log.commit(refs.slice(next - perCommit, next).map((ref) => ({ remove: ref })));
    });
    await Promise.all(waiting);
  });
  await log.close();
  return { put: measuredPut, remove: measuredRemove };
}

async function floor(directory: string, items: number, commits: number): Promise<Measured> {
  const path = join(directory, 'floor');
  const size = 4 * 1024 * 1024;
  await writeFile(path, Buffer.alloc(size), { flush: true });
  const fd = openSync(path, 'r+');
  const once = (bytes: Buffer): Promise<Result> => {
    let position = 0;
    return measure(commits, items, async () => {
      if (position + bytes.length > size) position = 0;
      await promisify(write)(fd, bytes, 0, bytes.length, position);
      await promisify(fdatasync)(fd);
      position += bytes.length;
    });
  };
  const put = await once(Buffer.alloc(items * (body.length + 30), 1));
  const remove = await once(Buffer.alloc(items * 12 + 24, 1));
  await promisify(close)(fd);
  return { put, remove };
}

async function measure(times: number, items: number, work: () => Promise<void>): Promise<Result> {
  const microseconds = new Float64Array(times);
  const cpu = process.cpuUsage();
  const start = performance.now();
  for (let i = 0; i < times; i++) {
    const before = performance.now();
    await work();
    microseconds[i] = (performance.now() - before) * 1000;
  }
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  microseconds.sort();
  return {
    perSecond: (times * items) / seconds,
    p50us: microseconds[Math.floor(times / 2)]!,
    p99us: microseconds[Math.floor(times * 0.99)]!,
    cpuUs: (user + system) / times / items,
  };
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
