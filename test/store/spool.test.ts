import fc from 'fast-check';
import { expect, test } from 'vitest';

import { priorities, type Priority } from '../../src/store/kinds.js';
import { Spool, type SpoolOptions } from '../../src/store/spool.js';
import { FakeDisk, seeded, systemError } from './fake-disk.js';
import { HandClock, message, openLog } from './kit.js';

const never = new AbortController().signal;

async function openSpool(
  disk = new FakeDisk(),
  options: SpoolOptions = {},
): Promise<Spool & AsyncDisposable> {
  const clock = options.clock as HandClock | undefined;
  const log = await openLog(disk, clock ? { clock } : {});
  const spool = await Spool.open(log, { ...(clock && { machine: clock }), ...options });
  return Object.assign(spool, { [Symbol.asyncDispose]: () => log.close() });
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const item of items) list.push(item);
  return list;
}

async function idsOf(spool: Spool, count = 100): Promise<string[]> {
  const { messages } = await spool.read(Spool.start, { count });
  return messages.map(({ messageId }) => messageId);
}

test('messages come out in the order they went in, as they were', async () => {
  await using spool = await openSpool();
  await spool.append([message('1', { moduleId: 'camera' }), message('2')]);
  await spool.append([message('3')]);
  const { messages } = await spool.read(Spool.start, { count: 10 });
  expect(messages.map(({ messageId }) => messageId)).toEqual(['1', '2', '3']);
  expect(messages[0]).toMatchObject({ deviceId: 'dev1', moduleId: 'camera', priority: 4 });
  expect(messages[1]!.moduleId).toBeUndefined();
  expect(messages[2]!.encoded.toString()).toBe('body of 3');
});

test('appends that are under way at the same time keep the order of the calls, also while room is made', async () => {
  await using spool = await openSpool(new FakeDisk(), { maximumCount: 60, whenFull: 'drop_oldest' });
  const ids = Array.from({ length: 100 }, (_, n) => String(n));
  await Promise.all(ids.map((id) => spool.append([message(id)])));
  const kept = await idsOf(spool);
  expect(kept.length).toBeGreaterThan(50);
  expect(kept).toEqual(ids.slice(-kept.length));
});

test('a reader goes on behind its cursor, and starts over with what was not removed', async () => {
  await using spool = await openSpool();
  await spool.append(['1', '2', '3', '4', '5'].map((id) => message(id)));
  const first = await spool.read(Spool.start, { count: 2 });
  const second = await spool.read(first.cursor, { count: 2 });
  expect(second.messages.map(({ messageId }) => messageId)).toEqual(['3', '4']);
  await spool.remove([first.messages[1]!, second.messages[0]!]);
  expect(await idsOf(spool)).toEqual(['1', '4', '5']);
});

test('a batch ends at its byte limit, but has one message at least', async () => {
  await using spool = await openSpool();
  await spool.append(['1', '2', '3'].map((id) => message(id, { encoded: Buffer.alloc(1000) })));
  const two = await spool.read(Spool.start, { count: 10, bytes: 1500 });
  expect(two.messages).toHaveLength(2);
  expect((await spool.read(two.cursor, { count: 10, bytes: 1 })).messages).toHaveLength(1);
});

test('a more urgent message overtakes those that wait, also behind a cursor', async () => {
  await using spool = await openSpool();
  await spool.append([message('low', { priority: 7 }), message('normal'), message('alarm', { priority: 0 })]);
  const first = await spool.read(Spool.start, { count: 2 });
  expect(first.messages.map(({ messageId }) => messageId)).toEqual(['alarm', 'normal']);
  await spool.append([message('alarm 2', { priority: 0 })]);
  const second = await spool.read(first.cursor, { count: 5 });
  expect(second.messages.map(({ messageId }) => messageId)).toEqual(['alarm 2', 'low']);
});

test('next waits for a message, and until it is told to stop', async () => {
  await using spool = await openSpool();
  const batch = spool.next(Spool.start, { count: 5 }, never);
  await spool.append([message('1')]);
  const { messages, cursor } = await batch;
  expect(messages).toHaveLength(1);
  const stop = new AbortController();
  const nothing = spool.next(cursor, { count: 5 }, stop.signal);
  stop.abort(new Error('enough'));
  await expect(nothing).rejects.toThrow('enough');
});

test('a refused message becomes a dead letter with what the hub said, and can be sent again', async () => {
  const disk = new FakeDisk();
  {
    await using spool = await openSpool(disk);
    await spool.append([message('1', { priority: 2 }), message('2')]);
    const { messages } = await spool.read(Spool.start, { count: 1 });
    await spool.setAside(messages[0]!, { condition: 'amqp:not-allowed', description: 'no such property' });
    expect(await idsOf(spool)).toEqual(['2']);
  }
  await using spool = await openSpool(disk.afterPowerCut());
  const [letter] = await all(spool.deadLetters());
  expect(letter).toMatchObject({ condition: 'amqp:not-allowed', description: 'no such property' });
  expect(letter!.message).toMatchObject({ messageId: '1', priority: 2 });
  expect(letter!.message.encoded.toString()).toBe('body of 1');
  await spool.requeue(letter!);
  expect(await idsOf(spool)).toEqual(['1', '2']);
  expect(spool.stats().deadLetters.count).toBe(0);
});

test('dead letters have a limit of their own, and what it costs is counted', async () => {
  await using spool = await openSpool(new FakeDisk(), { maximumDeadLetterBytes: 3000 });
  await spool.append(['1', '2', '3', '4'].map((id) => message(id, { encoded: Buffer.alloc(1000) })));
  const { messages } = await spool.read(Spool.start, { count: 4 });
  for (const refused of messages) await spool.setAside(refused, { condition: 'amqp:not-allowed' });
  const letters = await all(spool.deadLetters());
  expect(letters.map(({ message: { messageId } }) => messageId)).toEqual(['3', '4']);
  expect(spool.stats().dropped.deadLetters.count).toBe(2);
});

test('a full spool refuses messages with try-again, stores none of them, and takes them when there is room', async () => {
  await using spool = await openSpool(new FakeDisk(), { maximumCount: 3 });
  await spool.append([message('1'), message('2')]);
  await expect(spool.append([message('3'), message('4')])).rejects.toMatchObject({ code: 'try-again' });
  expect(await idsOf(spool)).toEqual(['1', '2']);
  const { messages } = await spool.read(Spool.start, { count: 1 });
  await spool.remove(messages);
  await spool.append([message('3'), message('4')]);
  expect(await idsOf(spool)).toEqual(['2', '3', '4']);
});

test('appends at the same time do not exceed the limit together', async () => {
  await using spool = await openSpool(new FakeDisk(), { maximumCount: 5 });
  const results = await Promise.allSettled(
    Array.from({ length: 10 }, (_, i) => spool.append([message(String(i))])),
  );
  expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(5);
  expect(spool.stats().waiting.count).toBe(5);
});

test('drop_oldest pushes out the oldest of the last priority and counts them', async () => {
  const disk = new FakeDisk();
  {
    await using spool = await openSpool(disk, { maximumCount: 4, whenFull: 'drop_oldest' });
    await spool.append([message('a', { priority: 0 }), message('1'), message('2'), message('3')]);
    expect(await spool.append([message('4'), message('5')])).toMatchObject({ stored: 2, dropped: 0 });
    expect(await idsOf(spool)).toEqual(['a', '3', '4', '5']);
  }
  await using spool = await openSpool(disk.afterPowerCut());
  expect(spool.stats().dropped.oldest.count).toBe(2);
});

test('drop_newest stores what fits and counts the rest', async () => {
  await using spool = await openSpool(new FakeDisk(), { maximumCount: 3, whenFull: 'drop_newest' });
  await spool.append([message('1'), message('2')]);
  expect(await spool.append([message('3'), message('4'), message('5')])).toMatchObject({
    stored: 1,
    dropped: 2,
  });
  expect(await idsOf(spool)).toEqual(['1', '2', '3']);
  expect(spool.stats().dropped.newest.count).toBe(2);
});

test('a message that could never fit is refused for good', async () => {
  await using spool = await openSpool(new FakeDisk(), { maximumBytes: 5000 });
  const large = message('1', { encoded: Buffer.alloc(6000) });
  await expect(spool.append([large])).rejects.toMatchObject({ code: 'data' });
});

test('what is too old is dropped, counted, and makes room', async () => {
  const clock = new HandClock();
  await using spool = await openSpool(new FakeDisk(), { clock, maximumAgeMs: 60_000, maximumCount: 2 });
  await spool.append([message('1'), message('2')]);
  clock.pass(61_000);
  await spool.append([message('3')]);
  expect(await idsOf(spool)).toEqual(['3']);
  expect(spool.stats().dropped.expired.count).toBe(2);
});

test('a jump of the clock makes no message old', async () => {
  const clock = new HandClock();
  const disk = new FakeDisk();
  const options = { clock, machine: clock, maximumAgeMs: 60_000 };
  {
    await using spool = await openSpool(disk, options);
    await spool.append([message('1')]);
    clock.nowMs += 10 * 365 * 24 * 3600 * 1000;
    expect(await idsOf(spool)).toEqual(['1']);
  }
  await using spool = await openSpool(disk, options);
  expect(await idsOf(spool)).toEqual(['1']);
  expect(await spool.oldestAgeMs()).toBe(0);
});

test('what was stored before the clock was set is not old after the next start of the machine', async () => {
  const clock = new HandClock();
  clock.nowMs = 5000;
  const disk = new FakeDisk();
  const options = { clock, machine: clock, maximumAgeMs: 60_000 };
  {
    await using spool = await openSpool(disk, options);
    await spool.append([message('1')]);
  }
  clock.boot = 2;
  clock.elapsedMs = 30;
  clock.nowMs = Date.UTC(2026, 5, 1);
  await using spool = await openSpool(disk, options);
  expect(await idsOf(spool)).toEqual(['1']);
  clock.pass(61_000);
  expect(await idsOf(spool)).toEqual([]);
});

test('a delivery that the disk cannot record is not handed out again, and recorded later', async () => {
  const clock = new HandClock();
  const disk = new FakeDisk();
  const spool = await openSpool(disk, { clock });
  await spool.append([message('1'), message('2')]);
  const { messages } = await spool.read(Spool.start, { count: 1 });
  disk.fault = () => systemError('EIO');
  await expect(spool.remove(messages)).rejects.toMatchObject({ code: 'io' });
  expect(await idsOf(spool)).toEqual(['2']);
  disk.fault = () => undefined;
  clock.pass(2000);
  expect(await idsOf(spool)).toEqual(['2']);
  await spool[Symbol.asyncDispose]();
  await using again = await openSpool(disk.afterPowerCut(), { clock });
  expect(await idsOf(again)).toEqual(['2']);
});

interface Step {
  readonly add: readonly Priority[];
  readonly deliver: number;
  readonly refuse: number;
  readonly cut: number | undefined;
}

test('whatever happens, each message waits, was delivered, is a dead letter, or is counted as dropped', async () => {
  const step = fc.record<Step>({
    add: fc.array(fc.constantFrom(...priorities), { maxLength: 6 }),
    deliver: fc.nat(5),
    refuse: fc.nat(1),
    cut: fc.option(fc.nat(20), { nil: undefined, freq: 4 }),
  });
  const whenFull = fc.constantFrom('drop_oldest' as const, 'drop_newest' as const);
  const maximumCount = fc.integer({ min: 6, max: 20 });
  await fc.assert(
    fc.asyncProperty(fc.nat(), whenFull, maximumCount, fc.array(step), async (seed, policy, most, steps) => {
      let disk = new FakeDisk(seeded(seed));
      const options = { whenFull: policy, maximumCount: most, maximumDeadLetterBytes: 600 };
      let spool = await openSpool(disk, options);
      let added = 0;
      let delivered = 0;
      for (const { add, deliver, refuse, cut } of steps) {
        await spool.append(add.map((priority) => message(String(added++), { priority })));
        const { messages } = await spool.read(Spool.start, { count: deliver + refuse });
        await spool.remove(messages.slice(refuse));
        delivered += Math.max(0, messages.length - refuse);
        for (const refused of messages.slice(0, refuse)) await spool.setAside(refused, {});
        if (cut !== undefined) {
          disk = disk.afterPowerCut();
          spool = await openSpool(disk, options);
        }
        const { waiting, deadLetters, dropped } = spool.stats();
        const total = waiting.count + delivered + deadLetters.count;
        const gone = dropped.oldest.count + dropped.newest.count + dropped.deadLetters.count;
        expect(total + gone).toBe(added);
        expect(waiting.count).toBeLessThanOrEqual(most);
      }
      expect(await idsOf(spool)).toHaveLength(spool.stats().waiting.count);
    }),
    { numRuns: 100 },
  );
});
