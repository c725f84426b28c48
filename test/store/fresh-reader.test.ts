import { expect, test } from 'vitest';

import { Spool, type Cursor } from '../../src/store/spool.js';
import { FakeDisk, seeded } from './fake-disk.js';
import { message, openLog } from './kit.js';

const never = new AbortController().signal;

async function openSpool(disk = new FakeDisk()): Promise<Spool & AsyncDisposable> {
  const log = await openLog(disk, { segmentBytes: 256 * 1024 });
  return Object.assign(await Spool.open(log), { [Symbol.asyncDispose]: () => log.close() });
}

const numbered = (from: number, count: number, body?: Buffer) =>
  Array.from({ length: count }, (_, n) => message(String(from + n), body && { encoded: body }));

/** All that comes after the cursor, as it is read in portions. */
async function readOn(spool: Spool, from: Cursor): Promise<{ ids: string[]; cursor: Cursor }> {
  const ids: string[] = [];
  for (let cursor = from; ;) {
    const batch = await spool.read(cursor, { count: 7 });
    if (batch.messages.length === 0) return { ids, cursor: batch.cursor };
    ids.push(...batch.messages.map(({ messageId }) => messageId));
    cursor = batch.cursor;
  }
}

test('a reader who keeps up is given what was stored without a read of the disk, as it was', async () => {
  const disk = new FakeDisk();
  await using spool = await openSpool(disk);
  let reads = 0;
  disk.readFault = ({ call }) => {
    if (call === 'read') reads++;
    return undefined;
  };
  const { cursor } = await readOn(spool, Spool.start);
  await spool.append([message('1', { moduleId: 'camera', priority: 6 }), message('2', { priority: 2 })]);
  const { messages } = await spool.read(cursor, { count: 10 });
  expect(messages.map(({ messageId }) => messageId)).toEqual(['2', '1']);
  expect(messages[1]).toMatchObject({ deviceId: 'dev1', moduleId: 'camera', priority: 6 });
  expect(messages[1]!.encoded.toString()).toBe('body of 1');
  expect(reads).toBe(0);
  expect((await readOn(spool, Spool.start)).ids).toEqual(['2', '1']);
  expect(reads).toBeGreaterThan(0);
});

test('what was removed or dropped meanwhile is not given', async () => {
  await using spool = await openSpool();
  const { cursor } = await readOn(spool, Spool.start);
  await spool.append(numbered(0, 5));
  const other = await spool.read(Spool.start, { count: 2 });
  await spool.remove(other.messages);
  expect((await readOn(spool, cursor)).ids).toEqual(['2', '3', '4']);
});

test('a reader who falls behind by more than is kept misses nothing', async () => {
  await using spool = await openSpool();
  const { cursor } = await readOn(spool, Spool.start);
  const body = Buffer.alloc(10_000);
  for (let n = 0; n < 500; n += 50) await spool.append(numbered(n, 50, body));
  const { ids, cursor: end } = await readOn(spool, cursor);
  expect(ids).toEqual(Array.from({ length: 500 }, (_, n) => String(n)));
  await spool.append(numbered(500, 3));
  expect((await readOn(spool, end)).ids).toEqual(['500', '501', '502']);
});

test.each([1, 2, 3, 4, 5, 6, 7, 8])(
  'each of several readers gets everything once and in order while others write and read (seed %i)',
  async (seed) => {
    const random = seeded(seed);
    const pause = async () => {
      if (random() < 0.5) await new Promise((resolve) => setImmediate(resolve));
    };
    await using spool = await openSpool();
    const total = 400;
    const reader = async (): Promise<number[]> => {
      const got: number[] = [];
      for (let cursor = Spool.start; got.length < total;) {
        const batch = await spool.next(cursor, { count: 1 + Math.floor(random() * 40) }, never);
        got.push(...batch.messages.map(({ messageId }) => Number(messageId)));
        cursor = batch.cursor;
        await pause();
      }
      return got;
    };
    const writer = async (): Promise<void> => {
      for (let n = 0; n < total;) {
        const count = Math.min(total - n, 1 + Math.floor(random() * 5));
        const stored = spool.append(numbered(n, count));
        if (random() < 0.3) await stored;
        else await pause();
        n += count;
      }
    };
    const [, ...read] = await Promise.all([writer(), reader(), reader(), reader()]);
    const everything = Array.from({ length: total }, (_, n) => n);
    for (const got of read) expect(got).toEqual(everything);
  },
);
