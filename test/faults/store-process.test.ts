import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, expect, test } from 'vitest';

import { Spool } from '../../src/store/spool.js';
import { openStore } from '../../src/store/store.js';
import { appendToSlowDisk } from './slow-disk.js';
import { Promises, WriterProcess } from './store-process.js';

/** More rounds, and every k, in the long form. */
const isLong = process.env['IOTHUB_FAULTS'] === 'long';
const segmentBytes = 64 * 1024;

const root = mkdtempSync(join(tmpdir(), 'iothub-store-'));
afterAll(() => {
  rmSync(root, { recursive: true });
});
let directories = 0;
const newDirectory = (): string => join(root, String(directories++));

test(
  'P1: nothing acknowledged is lost when the process is killed at any moment, again and again',
  async () => {
    const directory = newDirectory();
    const promises = new Promises();
    for (let round = 0; round < (isLong ? 200 : 8); round++) {
      await using writer = new WriterProcess({ directory, prefix: `r${round}`, segmentBytes, promises });
      const before = promises.count;
      await writer.until(() => promises.count > before + 20);
      await delay(Math.random() * 100);
      await writer.kill();
      expect(await promises.broken(directory)).toEqual([]);
    }
    expect(promises.count).toBeGreaterThan(200);
  },
  isLong ? 600_000 : 60_000,
);

const canMount = (() => {
  const probe = newDirectory();
  mkdirSync(probe);
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', probe]).status !== 0) return false;
  return spawnSync('umount', [probe]).status === 0;
})();

test.skipIf(!canMount)(
  'G1: on a full file system telemetry is refused, and what waits is still delivered and recorded',
  async () => {
    const directory = newDirectory();
    mkdirSync(directory);
    expect(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m,mode=700', 'tmpfs', directory]).status).toBe(0);
    try {
      const options = { directory, segmentBytes, ledger: { replyMessage: () => undefined } };
      const message = (i: number) => ({ messageId: `m${i}`, deviceId: 'd', encoded: Buffer.alloc(500, i) });
      const stored: string[] = [];
      {
        await using store = await openStore(options);
        let refusal: unknown;
        for (let i = 0; refusal === undefined && i < 5000; i++) {
          await store.spool.append([message(i)]).then(
            () => stored.push(`m${i}`),
            (error: unknown) => {
              refusal = error;
            },
          );
        }
        expect(refusal).toMatchObject({ code: 'try-again' });
        expect(stored.length).toBeGreaterThan(1000);
        // Commands go on as well: what is recorded of them is small and matters.
        await store.ledger.received('k');
        await store.ledger.started('k', { handler: 'h', attempt: 1 });
        await store.ledger.finished('k', {
          outcome: { outcome: 'accept' },
          fault: false,
          command: { deviceId: 'd' },
        });
      }
      await using store = await openStore(options);
      expect(await store.ledger.received('k')).toMatchObject({ state: 'decided' });
      const delivered: string[] = [];
      for (let cursor = Spool.start; ;) {
        const batch = await store.spool.read(cursor, { count: 50 });
        if (batch.messages.length === 0) break;
        await store.spool.remove(batch.messages);
        delivered.push(...batch.messages.map(({ messageId }) => messageId));
        ({ cursor } = batch);
      }
      expect(delivered).toEqual(stored);
      await store.spool.append([message(0)]);
      expect(store.spool.stats().waiting.count).toBe(1);
    } finally {
      spawnSync('umount', [directory]);
    }
  },
);

const canTrace = spawnSync('strace', ['-f', '-o', '/dev/null', 'true']).status === 0;

/** strace counts the calls of each thread apart, so there is one only that makes them. */
function tracing(inject: string): string[] {
  const [call = ''] = inject.split(':');
  const options = ['-f', '-qq', '-o', '/dev/null', '-e', `trace=${call}`, '-e', `inject=${inject}`];
  return ['env', 'UV_THREADPOOL_SIZE=1', 'strace', ...options];
}

/** Runs a writer whose k-th call fails, and checks its promises by a process that has no faults. */
async function withFault(inject: string, count = 150): Promise<{ failures: string[]; promised: number }> {
  const directory = newDirectory();
  const promises = new Promises();
  const under = tracing(inject);
  await using writer = new WriterProcess({
    directory,
    prefix: 'm',
    count,
    segmentBytes,
    promises,
    under,
  });
  await writer.done();
  await writer.end();
  expect(await promises.broken(directory), inject).toEqual([]);
  expect(readdirSync(directory).filter((name) => name.startsWith('owner-'))).toEqual([]);
  rmSync(directory, { recursive: true });
  return { failures: promises.failures, promised: promises.count };
}

const sweep = isLong ? Array.from({ length: 60 }, (_, i) => i + 1) : [1, 4];
/** Without the first sync of the directory a store does not open. */
const firstOf = (call: string): number => (call.startsWith('fsync') ? 2 : 1);
for (const call of [
  'fdatasync:error=EIO',
  'pwrite64:error=ENOSPC',
  'pwrite64:error=EIO',
  'fsync:error=EIO',
  'rename:error=EROFS',
]) {
  test.skipIf(!canTrace)(
    `G7: nothing acknowledged is lost when the k-th system call fails: ${call}`,
    async () => {
      for (const k of sweep.filter((n) => n >= firstOf(call))) {
        const { promised } = await withFault(`${call}:when=${k}`);
        expect(promised).toBeGreaterThan(50);
      }
    },
    isLong ? 600_000 : 60_000,
  );
}

test.skipIf(!canTrace)(
  'G7: nothing acknowledged is lost when the disk fails for good',
  async () => {
    for (const call of ['fdatasync:error=EIO', 'pwrite64:error=ENOSPC']) {
      for (const k of sweep.filter((n) => n < 6)) {
        const { failures } = await withFault(`${call}:when=${k + 1}+`, 10);
        expect(failures.length).toBeGreaterThan(0);
      }
    }
  },
  isLong ? 600_000 : 60_000,
);

test.skipIf(!canTrace)('G11: a slow disk makes callers wait, and the event loop go on', async () => {
  const { longestAppendMs, p99Ms } = await appendToSlowDisk({ syncMs: 300, appends: 200 });
  expect(longestAppendMs).toBeGreaterThan(300);
  // Two syncs at most for each caller: the one in flight, and its own.
  expect(longestAppendMs).toBeLessThan(3000);
  expect(p99Ms).toBeLessThan(150);
});
