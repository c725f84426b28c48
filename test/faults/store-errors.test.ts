import { expect, test } from 'vitest';

import type { DurableLog } from '../../src/store/log/durable-log.js';
import { Spool } from '../../src/store/spool.js';
import type { SpooledMessage } from '../../src/store/spooled-message.js';
import { FakeDisk, seeded, systemError } from '../store/fake-disk.js';
import { HandClock, MemoryLog, message, openLog } from '../store/kit.js';

const segmentBytes = 4096;
const body = Buffer.alloc(200, 'x');

/** What the callers of a run know to be so. */
interface Told {
  /** Acknowledged, and not asked to be removed. */
  readonly stored: Set<string>;
  /** Whose removal was acknowledged. */
  readonly removed: Set<string>;
}

/**
 * Appends messages, removes most of them a little later, and takes errors as a caller would: what was refused is
 * asked for again once. The clock goes on, so that the store may try again too.
 */
async function run(disk: FakeDisk): Promise<Told> {
  const told: Told = { stored: new Set(), removed: new Set() };
  const clock = new HandClock();
  const open = (): Promise<DurableLog> => openLog(disk, { segmentBytes, clock });
  const log = await open()
    .catch(open)
    .catch(() => undefined);
  if (!log) return told;
  const spool = await Spool.open(log, { clock, machine: clock });
  const patiently = async (work: () => Promise<unknown>): Promise<boolean> => {
    for (const _attempt of [1, 2]) {
      clock.pass(2000);
      if (
        await work().then(
          () => true,
          () => false,
        )
      )
        return true;
    }
    return false;
  };
  for (let round = 0; round < 16; round++) {
    const ids = [0, 1, 2].map((i) => `${round}.${i}`);
    const messages = ids.map((id) => message(id, { encoded: body }));
    if (await patiently(() => spool.append(messages))) for (const id of ids) told.stored.add(id);
    const { messages: waiting } = await spool
      .read(Spool.start, { count: 3 })
      .catch(() => ({ messages: [] as readonly SpooledMessage[] }));
    if (round % 4 === 3) continue;
    for (const { messageId } of waiting) told.stored.delete(messageId);
    if (await patiently(() => spool.remove(waiting))) {
      for (const { messageId } of waiting) told.removed.add(messageId);
    }
  }
  await log.close().catch(() => undefined);
  return told;
}

/** What the next start finds, after a power cut and after `kill -9`. */
async function check(disk: FakeDisk, { stored, removed }: Told, where: string): Promise<void> {
  for (const left of [disk.afterPowerCut(), disk.afterKill()]) {
    const opened = await openLog(left, { segmentBytes, log: new MemoryLog() });
    const spool = await Spool.open(opened, { maximumAgeMs: Infinity });
    const found = new Set<string>();
    for await (const { messageId } of spool.waiting()) found.add(messageId);
    await opened.close();
    for (const id of stored) expect(found, `${where}: ${id} was acknowledged`).toContain(id);
    for (const id of removed) expect(found, `${where}: ${id} was removed`).not.toContain(id);
  }
}

async function callsOf(work: (disk: FakeDisk) => Promise<unknown>): Promise<number> {
  const disk = new FakeDisk();
  await work(disk);
  return disk.trace.length;
}

for (const fault of ['G7: EIO', 'G1: ENOSPC', 'G3: EROFS']) {
  const code = fault.slice(4);
  test(`${fault} at the k-th call to the disk loses nothing acknowledged, for each k`, async () => {
    const calls = await callsOf(run);
    expect(calls).toBeGreaterThan(80);
    for (let k = 0; k < calls; k++) {
      const disk = new FakeDisk(seeded(k));
      disk.fault = (_call, index) => (index === k ? systemError(code) : undefined);
      const told = await run(disk);
      await check(disk, told, `${code} at call ${k}`);
      expect(told.stored.size + told.removed.size).toBe(48);
    }
  });

  test(`${fault} from the k-th call to the disk on loses nothing acknowledged, for each k`, async () => {
    const calls = await callsOf(run);
    for (let k = 0; k < calls; k++) {
      const disk = new FakeDisk(seeded(k));
      disk.fault = (_call, index) => (index >= k ? systemError(code) : undefined);
      await check(disk, await run(disk), `${code} from call ${k} on`);
    }
  });
}

test('G7: nothing acknowledged is lost when the k-th call that only reads fails, for each k', async () => {
  let calls = 0;
  const counting = new FakeDisk();
  counting.readFault = () => {
    calls++;
    return undefined;
  };
  await run(counting);
  expect(calls).toBeGreaterThan(20);
  for (const code of ['EIO', 'EMFILE']) {
    for (let k = 0; k < calls; k++) {
      const disk = new FakeDisk(seeded(k));
      disk.readFault = (_call, index) => (index === k ? systemError(code) : undefined);
      await check(disk, await run(disk), `${code} at call ${k}`);
    }
  }
});

test('G8: nothing acknowledged is lost when the power is cut at the k-th call to the disk, for each k', async () => {
  const calls = await callsOf(run);
  for (let k = 0; k < calls; k++) {
    for (const seed of [1, 2, 3]) {
      const disk = new FakeDisk(seeded(1000 * seed + k));
      disk.fault = (_call, index) => (index === k ? 'power cut' : undefined);
      await check(disk, await run(disk), `power cut at call ${k}, seed ${seed}`);
    }
  }
});

test('what is acknowledged was synced before, with the name of its file', async () => {
  // Nothing that is not synced outlasts a cut of this disk.
  const disk = new FakeDisk(() => 0);
  const log = await openLog(disk, { segmentBytes });
  const spool = await Spool.open(log);
  for (let i = 0; i < 60; i++) {
    await Promise.all(
      [0, 1, 2].map(async (j) => {
        const id = `${i}.${j}`;
        await spool.append([message(id, { encoded: body })]);
        const image = disk.afterPowerCut();
        const opened = await Spool.open(await openLog(image, { segmentBytes }));
        const found: string[] = [];
        for await (const { messageId } of opened.waiting()) found.push(messageId);
        expect(found).toContain(id);
      }),
    );
  }
  // As the trace says it too: no write to a segment without a sync of it before the next write.
  const unsynced = new Set<string>();
  for (const { call, path } of disk.trace) {
    if (call === 'write' && !path.endsWith('.sum')) {
      expect(unsynced).not.toContain(`second ${path}`);
      unsynced.add(path);
    }
    if (call === 'sync') unsynced.delete(path);
  }
  expect([...unsynced]).toEqual([]);
});

test('G7: a failed sync is never asked again: the records go to another file', async () => {
  const disk = new FakeDisk();
  const log = await openLog(disk, { segmentBytes });
  const spool = await Spool.open(log);
  await spool.append([message('1')]);
  const [segment] = disk.trace.filter(({ call }) => call === 'sync').slice(-1);
  let failed: { path: string; at: number } | undefined;
  disk.fault = ({ call, path }) => {
    if (call !== 'sync' || failed) return undefined;
    failed = { path, at: disk.trace.length };
    return systemError('EIO');
  };
  await spool.append([message('2')]);
  expect(failed).toMatchObject({ path: segment!.path });
  const later = disk.trace.slice(failed!.at + 1);
  expect(later.filter(({ call, path }) => call === 'write' && path === failed!.path)).toEqual([]);
  const opened = await Spool.open(await openLog(disk.afterPowerCut(), { segmentBytes }));
  const found: string[] = [];
  for await (const { messageId } of opened.waiting()) found.push(messageId);
  expect(found).toEqual(['1', '2']);
});

test('what a failed write has left behind is not taken for real, even if it cannot be cut off', async () => {
  const disk = new FakeDisk();
  const log = await openLog(disk, { segmentBytes });
  const spool = await Spool.open(log);
  await spool.append([message('1')]);
  let failures = 0;
  disk.fault = ({ call }) => {
    const fails = call === 'truncate' || (call === 'sync' && failures === 0);
    if (fails) failures++;
    return fails ? systemError('EIO') : undefined;
  };
  // Written, but not synced; written again to the next file, and then something else under other ids.
  await spool.append([message('2'), message('3')]);
  const { messages } = await spool.read(Spool.start, { count: 2 });
  await spool.remove(messages);
  await spool.append([message('4')]);
  expect(failures).toBeGreaterThan(1);
  for (const left of [disk.afterKill(), disk.afterPowerCut()]) {
    const opened = await Spool.open(await openLog(left, { segmentBytes }));
    const found: string[] = [];
    for await (const { messageId } of opened.waiting()) found.push(messageId);
    expect(found).toEqual(['3', '4']);
  }
});

/** A store of a hundred messages in many segments, opened anew. */
async function reopened(disk: FakeDisk, said = new MemoryLog()): Promise<{ log: DurableLog; spool: Spool }> {
  const first = await openLog(disk, { segmentBytes });
  const filling = await Spool.open(first);
  for (const id of hundred) await filling.append([message(id, { encoded: body })]);
  await first.close();
  const log = await openLog(disk, { segmentBytes, log: said });
  return { log, spool: await Spool.open(log) };
}

const hundred = Array.from({ length: 100 }, (_, i) => String(i));

test('G10: without descriptors to spare, appends go on, reading fails, and later it is all there', async () => {
  const disk = new FakeDisk();
  const { log, spool } = await reopened(disk);
  disk.readFault = ({ call }) => (call === 'open' ? systemError('EMFILE') : undefined);
  await expect(spool.read(Spool.start, { count: 1000 })).rejects.toMatchObject({ code: 'io' });
  await spool.append([message('one more')]);
  disk.readFault = () => undefined;
  const { messages } = await spool.read(Spool.start, { count: 1000 });
  expect(messages.map(({ messageId }) => messageId)).toEqual([...hundred, 'one more']);
  await log.close();
});

test('G7: a spot that the disk cannot read costs its record until the next start, and is not thrown away', async () => {
  const disk = new FakeDisk();
  const said = new MemoryLog();
  const { log, spool } = await reopened(disk, said);
  let reads = 0;
  // The first read of many records fails, and of those read one by one the third does.
  disk.readFault = ({ call, path }) =>
    call === 'read' && path.endsWith('.log') && [0, 3].includes(reads++) ? systemError('EIO') : undefined;
  const { messages } = await spool.read(Spool.start, { count: 1000 });
  expect(messages.map(({ messageId }) => messageId)).toEqual(hundred.filter((id) => id !== '2'));
  expect(said.errors()).toEqual(['the disk cannot read a record; it is skipped until the next start']);
  await spool.remove(messages);
  await log.close();
  disk.readFault = () => undefined;
  const opened = await Spool.open(await openLog(disk.afterPowerCut(), { segmentBytes }));
  const left = await opened.read(Spool.start, { count: 5 });
  expect(left.messages.map(({ messageId }) => messageId)).toEqual(['2']);
});

test('G1 and G2: on a full disk telemetry is refused, what waits is delivered, and that makes room again', async () => {
  const clock = new HandClock();
  const disk = new FakeDisk();
  const log = await openLog(disk, { segmentBytes, clock });
  const spool = await Spool.open(log, { clock, machine: clock });
  const files = 12;
  disk.fault = ({ call }) =>
    call === 'create' && disk.paths(/^(spare|\d{8}).*(?<!sum)$/).length >= files
      ? systemError('ENOSPC')
      : undefined;

  const stored: string[] = [];
  let refusal: unknown;
  for (let i = 0; refusal === undefined; i++) {
    await spool.append([message(String(i), { encoded: body })]).then(
      () => stored.push(String(i)),
      (error: unknown) => {
        refusal = error;
      },
    );
  }
  expect(refusal).toMatchObject({
    code: 'try-again',
    message: expect.stringContaining('disk is full') as string,
  });
  expect(stored.length).toBeGreaterThan(50);

  const delivered: string[] = [];
  while (spool.stats().waiting.count > 0) {
    const { messages } = await spool.read(Spool.start, { count: 7 });
    await spool.remove(messages);
    delivered.push(...messages.map(({ messageId }) => messageId));
  }
  expect(delivered).toEqual(stored);
  clock.pass(2000);
  await spool.append([message('after')]);
  await log.close();
  const opened = await Spool.open(await openLog(disk.afterPowerCut(), { segmentBytes }), {
    maximumAgeMs: Infinity,
  });
  expect(opened.stats().waiting.count).toBe(1);
});

test('G9: a store is ready without being read: of each segment only its header, and what is known of it', async () => {
  const disk = new FakeDisk();
  const first = await openLog(disk, { segmentBytes });
  const filling = await Spool.open(first);
  for (const id of hundred) await filling.append([message(id, { encoded: body })]);
  await first.close();
  const segments = disk.paths(/\.log$/);
  expect(segments.length).toBeGreaterThan(5);
  const reads = new Map<string, number>();
  disk.readFault = ({ call, path }) => {
    if (call === 'read') reads.set(path, (reads.get(path) ?? 0) + 1);
    return undefined;
  };
  const log = await openLog(disk, { segmentBytes });
  expect((await Spool.open(log)).stats().waiting.count).toBe(100);
  // The newest is still being written, and so it is read.
  expect(segments.map((path) => reads.get(path))).toEqual([...segments.slice(1).map(() => 1), 2]);
  await log.close();
});

test('space is given back: a spool that is filled and drained many times does not grow', async () => {
  const disk = new FakeDisk();
  const log = await openLog(disk, { segmentBytes });
  const spool = await Spool.open(log);
  // One message stays for ever, in the oldest segment.
  await spool.append([message('stays', { priority: 7 })]);
  for (let round = 0; round < 60; round++) {
    await spool.append(Array.from({ length: 20 }, (_, i) => message(`${round}.${i}`, { encoded: body })));
    const { messages } = await spool.read(Spool.start, { count: 20 });
    await spool.remove(messages);
  }
  await log.close();
  expect(disk.paths(/\.log$/).length).toBeLessThan(8);
  const bytes = disk.paths(/\.log$/).reduce((sum, path) => sum + disk.bytesOf(path).length, 0);
  expect(bytes).toBeLessThan(8 * segmentBytes);
  const opened = await Spool.open(await openLog(disk.afterPowerCut(), { segmentBytes }));
  expect(opened.stats().waiting.count).toBe(1);
});
