/**
 * Appends to a store on a disk that takes its time: strace holds each `fdatasync` back, and stops nothing else. How
 * late the event loop runs meanwhile is what callers, commands and keep-alives would feel.
 *
 *     npm run build && node --import ./test/typescript.js test/faults/slow-disk.ts [SYNC_MS] [APPENDS]
 *
 * Default: 500 ms a sync, 6 000 appends, one every 5 ms.
 */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

export interface SlowDisk {
  /** How long callers waited for their message to be on disk. */
  medianAppendMs: number;
  longestAppendMs: number;
  /** How late the event loop was. */
  p99Ms: number;
  p999Ms: number;
  longestMs: number;
}

const dist = join(import.meta.dirname, '../../dist/store/store.js');

export async function appendToSlowDisk({ syncMs = 500, appends = 6_000 } = {}): Promise<SlowDisk> {
  const directory = await mkdtemp(join(tmpdir(), 'iothub-slow-'));
  const tracing = ['-f', '--seccomp-bpf', '-qq', '-o', '/dev/null', '-e', 'trace=fdatasync'];
  const slow = ['-e', `inject=fdatasync:delay_enter=${syncMs * 1000}`];
  const script = program(directory, appends);
  try {
    const command = [...tracing, ...slow, process.execPath, '--input-type=module', '-e', script];
    const { stdout } = await promisify(execFile)('strace', command);
    return JSON.parse(stdout) as SlowDisk;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const program = (directory: string, appends: number): string => `
  import { monitorEventLoopDelay } from 'node:perf_hooks';
  import { setTimeout as delay } from 'node:timers/promises';
  import { openStore } from ${JSON.stringify(dist)};
  const store = await openStore({ directory: ${JSON.stringify(join(directory, 'store'))}, ledger: {} });
  const message = { messageId: 'm', deviceId: 'd', encoded: Buffer.alloc(1024, 'telemetry ') };
  await store.spool.append([message]);
  // What it records is the time from tick to tick; what is beyond the tick is lateness.
  const resolution = 1;
  const lateness = monitorEventLoopDelay({ resolution });
  lateness.enable();
  const waits = [];
  const appending = [];
  for (let n = 0; n < ${appends}; n++) {
    const started = performance.now();
    appending.push(store.spool.append([message]).then(() => waits.push(performance.now() - started)));
    await delay(5);
  }
  await Promise.all(appending);
  lateness.disable();
  waits.sort((a, b) => a - b);
  const late = (ns) => Math.round((ns / 1e6 - resolution) * 10) / 10;
  process.stdout.write(JSON.stringify({
    medianAppendMs: Math.round(waits[waits.length >> 1]),
    longestAppendMs: Math.round(waits.at(-1)),
    p99Ms: late(lateness.percentile(99)),
    p999Ms: late(lateness.percentile(99.9)),
    longestMs: late(lateness.max),
  }));
  await store.close();
`;

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [syncMs = 500, appends = 6_000] = process.argv.slice(2).map(Number);
  process.stdout.write(`${JSON.stringify(await appendToSlowDisk({ syncMs, appends }))}
`);
}
