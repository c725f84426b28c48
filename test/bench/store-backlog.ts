/**
 * How long a store with a large backlog takes to open, and what memory it takes.
 *
 *     npm run build && node --import ./test/typescript.js test/bench/store-backlog.ts [MESSAGES] [DIRECTORY]
 *
 * Fills a store with so many messages of 1 KiB (default a million), and opens it in processes of their own: after an
 * orderly end, without summaries, and after a kill. `ready`: until the first batch is there. Memory is anonymous RSS
 * above that of the same process with an empty store. With root, the page cache is dropped first. A fiftieth and a
 * fifth of the backlog are drained: that takes the same memory, which is V8's young generation at its full size, and
 * buffers that nobody needs any more and nobody has collected yet.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const [count = '1000000', parent = tmpdir()] = process.argv.slice(2);
const root = mkdtempSync(join(parent, 'iothub-backlog-'));
const directory = join(root, 'store');
const program = (body: string, store = directory): string => `
  import { readFileSync } from 'node:fs';
  import { openStore } from '${join(import.meta.dirname, '../../dist/store/store.js')}';
  import { Spool } from '${join(import.meta.dirname, '../../dist/store/spool.js')}';
  const anonymous = () => Number(/RssAnon:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024;
  const directory = ${JSON.stringify(store)};
  const open = () => openStore({ directory, spool: { maximumBytes: Infinity }, ledger: {} });
  ${body}`;
const run = (body: string, store?: string): string =>
  execFileSync(process.execPath, ['--input-type=module', '-e', program(body, store)], { encoding: 'utf8' });

const measure = `
  const started = performance.now();
  const store = await open();
  const openMs = performance.now() - started;
  const { messages } = await store.spool.read(Spool.start, { count: 100 });
  const readyMs = performance.now() - started;
  const anonMiB = anonymous();
  process.stdout.write(JSON.stringify({ openMs, readyMs, anonMiB, waiting: store.spool.stats().waiting.count }));
`;
interface Measured {
  readonly openMs: number;
  readonly readyMs: number;
  readonly anonMiB: number;
  readonly waiting: number;
}

try {
  const empty = JSON.parse(run(`${measure}; await store.close();`, join(root, 'empty'))) as Measured;
  const filled = JSON.parse(
    run(`
      const store = await open();
      const body = Buffer.alloc(1024, 'telemetry ');
      const started = performance.now();
      for (let i = 0; i < ${count}; i += 100) {
        await store.spool.append(Array.from({ length: 100 }, (_, j) =>
          ({ messageId: 'message-' + (i + j), deviceId: 'device-1', encoded: body })));
      }
      const seconds = (performance.now() - started) / 1000;
      process.stdout.write(JSON.stringify({ seconds, anonMiB: anonymous() }));
      await store.close();`),
  ) as { seconds: number; anonMiB: number };
  print(
    `filled: ${(Number(count) / filled.seconds).toFixed(0)} messages/s, anonymous RSS ${above(filled.anonMiB, empty)}`,
  );

  report('after an orderly end', JSON.parse(run(`${measure}; await store.close();`)) as Measured, empty);
  report('after a kill', JSON.parse(run(`${measure}; process.reallyExit(0);`)) as Measured, empty);
  for (const share of [50, 5]) drain(Math.floor(Number(count) / share), empty);
  for (const name of readdirSync(directory).filter((file) => file.endsWith('.sum')))
    rmSync(join(directory, name));
  report('without summaries', JSON.parse(run(`${measure}; await store.close();`)) as Measured, empty);
} finally {
  rmSync(root, { recursive: true });
}

function drain(messages: number, empty: Measured): void {
  const drained = JSON.parse(
    run(`
      import { getHeapSpaceStatistics } from 'node:v8';
      const young = () => getHeapSpaceStatistics().find(({ space_name }) => space_name === 'new_space');
      const store = await open();
      const started = performance.now();
      let most = { anonMiB: 0 };
      let count = 0;
      for (let cursor = Spool.start; count < ${messages};) {
        const batch = await store.spool.read(cursor, { count: 1000 });
        await store.spool.remove(batch.messages);
        count += batch.messages.length;
        cursor = batch.cursor;
        const anonMiB = anonymous();
        if (anonMiB > most.anonMiB) {
          const mebi = (bytes) => bytes / 1024 / 1024;
          const { arrayBuffers } = process.memoryUsage();
          most = { anonMiB, youngMiB: mebi(young().physical_space_size), buffersMiB: mebi(arrayBuffers) };
        }
      }
      process.stdout.write(JSON.stringify({ perSecond: count / (performance.now() - started) * 1000, ...most }));
      await store.close();`),
  ) as { perSecond: number; anonMiB: number; youngMiB: number; buffersMiB: number };
  const { perSecond, anonMiB, youngMiB, buffersMiB } = drained;
  print(
    `${messages} read and removed: ${perSecond.toFixed(0)} messages/s, anonymous RSS at most ${above(anonMiB, empty)}; young generation ${youngMiB.toFixed(0)} MiB, buffers ${buffersMiB.toFixed(0)} MiB`,
  );
}

function report(when: string, { openMs, readyMs, anonMiB, waiting }: Measured, empty: Measured): void {
  print(
    `${when}: ${waiting} waiting, open in ${openMs.toFixed(0)} ms, ready in ${readyMs.toFixed(0)} ms, anonymous RSS ${above(anonMiB, empty)}`,
  );
  dropCaches();
}

function above(anonMiB: number, empty: Measured): string {
  return `+${(anonMiB - empty.anonMiB).toFixed(1)} MiB`;
}

function dropCaches(): void {
  if (process.getuid?.() !== 0) return;
  execFileSync('sync');
  writeFileSync('/proc/sys/vm/drop_caches', '3');
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
