import { expect, test } from 'vitest';

import { Spool } from '../../src/store/spool.js';
import { FakeDisk, seeded } from '../store/fake-disk.js';
import { MemoryLog, message, openLog } from '../store/kit.js';

const segmentBytes = 4096;
const count = 200;
/** Every byte in the long form; here every 13th, starting anywhere, and a different bit each time. */
const stride = process.env['IOTHUB_FAULTS'] === 'long' ? 1 : 13;

/** A store of 200 messages, as it was left by a process that ended well. */
async function filled(): Promise<FakeDisk> {
  const disk = new FakeDisk();
  const log = await openLog(disk, { segmentBytes });
  const spool = await Spool.open(log);
  for (let i = 0; i < count; i++) {
    await spool.append([message(String(i), { deviceId: 'd', encoded: Buffer.from(`${i}`) })]);
  }
  await log.close();
  return disk.afterPowerCut();
}

interface Delivered {
  readonly ids: readonly string[];
  readonly log: MemoryLog;
  readonly openMs: number;
}

/** Opens the store, and delivers and removes all it has. */
async function deliverAll(disk: FakeDisk): Promise<Delivered> {
  const log = new MemoryLog();
  const started = performance.now();
  const opened = await openLog(disk, { segmentBytes, log });
  const openMs = performance.now() - started;
  const spool = await Spool.open(opened);
  const { messages } = await spool.read(Spool.start, { count: 2 * count, bytes: Infinity });
  await spool.remove(messages);
  expect(spool.stats().waiting.count).toBe(0);
  await opened.close();
  return { ids: messages.map(({ messageId }) => messageId), log, openMs };
}

const all = Array.from({ length: count }, (_, i) => String(i));

test('G5: any byte of a store of 200 messages may be wrong: it starts, delivers 199 at least, keeps and reports the rest', async () => {
  const disk = await filled();
  let tried = 0;
  let slowestMs = 0;
  for (const path of disk.paths(/\.(log|sum)$/)) {
    const bytes = disk.bytesOf(path);
    for (let at = Math.floor(Math.random() * stride); at < bytes.length; at += stride) {
      const damaged = disk.afterKill();
      const wrong = Buffer.from(bytes);
      wrong[at] = bytes[at]! ^ (1 << (at % 8));
      damaged.put(path, wrong);
      const where = `${path} at ${at}`;

      const { ids, log, openMs } = await deliverAll(damaged);
      expect(
        all.filter((id) => ids.includes(id)),
        where,
      ).toEqual(ids);
      expect(ids.length, where).toBeGreaterThanOrEqual(count - 1);
      if (ids.length < count) {
        expect(log.errors(), where).toEqual(['damaged bytes in the store: set aside, the rest goes on']);
        expect(damaged.paths(/-at-\d+-\d+\.bin$/), where).toHaveLength(1);
      }
      slowestMs = Math.max(slowestMs, openMs);
      tried++;
      // What was found once is not found, nor reported, again.
      if (tried % 50 === 0) expect((await deliverAll(damaged)).log.errors(), where).toEqual([]);
    }
  }
  expect(tried).toBeGreaterThan(15_000 / stride);
  expect(slowestMs).toBeLessThan(1000);
}, 180_000);

test('G5: a page of zeros or garbage costs the records that it touches, and no others', async () => {
  const disk = await filled();
  const random = seeded(1);
  const pageBytes = 512;
  for (const path of disk.paths(/\.(log|sum)$/)) {
    const bytes = disk.bytesOf(path);
    for (let at = 0; at < bytes.length; at += pageBytes) {
      for (const garbage of [false, true]) {
        const damaged = disk.afterKill();
        const wrong = Buffer.from(bytes);
        for (let i = at; i < Math.min(at + pageBytes, bytes.length); i++) {
          wrong[i] = garbage ? Math.floor(random() * 256) : 0;
        }
        damaged.put(path, wrong);
        const { ids, log } = await deliverAll(damaged);
        const touched = path.endsWith('.sum') ? 0 : pageBytes / 60 + 2;
        expect(ids.length, `${path} at ${at}`).toBeGreaterThanOrEqual(count - touched);
        if (ids.length < count) expect(log.errors().length).toBeGreaterThan(0);
      }
    }
  }
});

test('G4: a tail cut off at any byte of the last three records costs only what was cut', async () => {
  const disk = new FakeDisk();
  const log = await openLog(disk, { segmentBytes: 64 * 1024 });
  const spool = await Spool.open(log);
  const ends: number[] = [];
  for (let i = 0; i < 20; i++) {
    await spool.append([message(String(i), { encoded: Buffer.from(`${i}`) })]);
    ends.push(log.bytes(12));
  }
  await log.close();
  const [path] = disk.paths(/\.log$/);
  const bytes = disk.bytesOf(path!);
  const first = 48;
  for (let at = first + ends[16]!; at <= first + ends[19]!; at++) {
    const complete = ends.filter((end) => first + end <= at).length;
    for (const rest of ['missing', 'zero'] as const) {
      const torn = disk.afterKill();
      torn.put(path!, rest === 'missing' ? bytes.subarray(0, at) : Buffer.from(bytes).fill(0, at));
      const { ids } = await deliverAll(torn);
      expect(ids, `${rest} from ${at}`).toEqual(all.slice(0, complete));
      // And what comes next finds its place.
      const opened = await openLog(torn);
      const next = await Spool.open(opened);
      await next.append([message('next')]);
      await opened.close();
      expect((await deliverAll(torn.afterPowerCut())).ids).toEqual(['next']);
    }
  }
});

test('G6: missing, foreign, doubled and empty files stop nothing', async () => {
  const disk = await filled();
  const [oldest, second] = disk.paths(/\.log$/);
  const [summary] = disk.paths(/\.sum$/);
  const games: ((d: FakeDisk) => void)[] = [
    (d) => d.remove(oldest!),
    (d) => d.remove(second!),
    (d) => d.remove(summary!),
    (d) => {
      d.put(oldest!, Buffer.alloc(0));
    },
    (d) => {
      d.put(summary!, Buffer.alloc(0));
    },
    (d) => {
      d.put('/store/notes.txt', Buffer.from('not ours'));
    },
    (d) => {
      d.put('/store/spare-0123456789ab', Buffer.alloc(100));
    },
    (d) => {
      d.put('/store/00000099-00000099.0-01020304.log', d.bytesOf(oldest!));
    },
    (d) => {
      d.put('/store/00000099-00000099.0-01020304.log', Buffer.alloc(segmentBytes));
    },
    (d) => {
      d.put(summary!, d.bytesOf(disk.paths(/\.sum$/).at(-1)!));
    },
  ];
  for (const [i, play] of games.entries()) {
    const played = disk.afterKill();
    play(played);
    const { ids } = await deliverAll(played);
    const kept = all.filter((id) => ids.includes(id));
    expect(ids, `game ${i}`).toEqual(kept);
    expect(ids.length, `game ${i}`).toBeGreaterThan(count - 80);
  }
});

test('G6: a store of a newer version is refused in plain words, and left as it is', async () => {
  const disk = await filled();
  const [path] = disk.paths(/\.log$/);
  const { crc32 } = await import('node:zlib');
  const bytes = Buffer.from(disk.bytesOf(path!));
  bytes.writeUInt16LE(2, 8);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 44)), 44);
  disk.put(path!, bytes);
  const calls = disk.trace.length;
  await expect(openLog(disk)).rejects.toMatchObject({
    code: 'config',
    message: 'the store /store was written by a newer version (format 2; this one knows 1)',
  });
  expect(disk.trace.slice(calls).map(({ call }) => call)).toEqual(['syncDirectory']);
});
