import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { SpoolOutbox } from '../../src/agent/spool-outbox.js';
import { pumpTelemetry, type PumpOptions } from '../../src/agent/telemetry.js';
import type { HubSession } from '../../src/amqp/session.js';
import type { Clock } from '../../src/clock.js';
import { systemClock } from '../../src/clock.js';
import { silentLog } from '../../src/log.js';
import { diskFiles, type Files } from '../../src/store/log/files.js';
import { openStore, type Store } from '../../src/store/store.js';
import { device, encode, failure, message, openSession, startHub } from '../amqp/hub.js';
import { fastClock } from './clock.js';

/** A store on disk with a spool, gone with the test. */
async function openSpool(files?: Files): Promise<Store & AsyncDisposable> {
  const directory = await mkdtemp(join(tmpdir(), 'iothub-test-'));
  const store = await openStore({
    directory,
    files,
    ledger: {
      replyMessage: () => {
        throw new Error('no commands here');
      },
    },
  });
  return {
    ...store,
    async [Symbol.asyncDispose]() {
      await store.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

function newMessage(n: number, body = String(n)) {
  const messageId = `m${String(n)}`;
  return { deviceId: device, messageId, encoded: encode(message({ messageId, body: Buffer.from(body) })) };
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, n) => n);

/** Pumps until the spool is empty, over one session. */
async function drain(
  session: HubSession,
  { spool }: Store,
  outbox: SpoolOutbox,
  options: Partial<PumpOptions> = {},
): Promise<void> {
  const stop = new AbortController();
  const pumping = pumpTelemetry(session, outbox, {
    window: 100,
    batches: false,
    clock: systemClock,
    stopping: stop.signal,
    ...options,
  });
  const watching = (async () => {
    while (spool.stats().waiting.count > 0 && !session.over.aborted) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    stop.abort();
  })();
  await Promise.all([pumping, watching]);
}

const outboxOf = ({ spool }: Store, clock: Clock = systemClock): SpoolOutbox =>
  new SpoolOutbox(spool, { clock, log: silentLog, random: () => 0 });

test('what was spooled arrives in order and once, and leaves the spool', async () => {
  await using hub = await startHub();
  await using store = await openSpool();
  await store.spool.append(upTo(3_000).map((n) => newMessage(n)));
  await using session = await openSession(hub);
  await drain(session, store, outboxOf(store));
  expect(hub.record.of('telemetry').map(({ body }) => Number(body))).toEqual(upTo(3_000));
  expect(store.spool.stats().waiting.count).toBe(0);
});

describe('batches', () => {
  test('carry what waits together, each message as it would arrive alone', async () => {
    await using hub = await startHub();
    await using store = await openSpool();
    await store.spool.append(upTo(1_000).map((n) => newMessage(n)));
    await using session = await openSession(hub);
    await drain(session, store, outboxOf(store), { batches: true, window: 1_000 });
    const arrived = hub.record.of('telemetry');
    expect(arrived.map(({ messageId, body }) => [messageId, Number(body)])).toEqual(
      upTo(1_000).map((n) => [`m${String(n)}`, n]),
    );
  });

  test('stay below the limit of the hub, however large the messages', async () => {
    await using hub = await startHub();
    await using store = await openSpool();
    const sizes = [200_000, 10, 60_000, 130_000, 130_000, 5, 250_000, 7, 255_000];
    await store.spool.append(sizes.map((size, n) => newMessage(n, 'x'.repeat(size))));
    await using session = await openSession(hub);
    await drain(session, store, outboxOf(store), { batches: true });
    expect(hub.record.of('telemetry').map(({ body }) => body.length)).toEqual(sizes);
    expect(store.spool.stats()).toMatchObject({ waiting: { count: 0 }, deadLetters: { count: 0 } });
  });

  test.each([
    { act: 'answer', outcome: 'released' },
    { act: 'answer', outcome: 'rejected', condition: 'amqp:not-allowed' },
  ] as const)('that come back $outcome go out again although nothing new arrives', async (answer) => {
    await using hub = await startHub();
    await using store = await openSpool();
    hub.faults.add({ at: 'transfer', link: 'telemetry', do: answer });
    await store.spool.append(upTo(10).map((n) => newMessage(n)));
    await using session = await openSession(hub);
    await drain(session, store, outboxOf(store), { batches: true });
    const accepted = hub.record.of('telemetry').filter(({ outcome }) => outcome.outcome === 'accepted');
    expect(accepted.map(({ body }) => Number(body))).toEqual(upTo(10));
    expect(store.spool.stats()).toMatchObject({ waiting: { count: 0 }, deadLetters: { count: 0 } });
  });

  test('that are refused for what is in them go out again in halves, in order', async () => {
    await using hub = await startHub();
    await using store = await openSpool();
    await store.spool.append(upTo(60).map((n) => newMessage(n)));
    const refusal = {
      act: 'answer',
      outcome: 'rejected',
      condition: 'com.microsoft:argument-error',
    } as const;
    hub.faults.add({ at: 'transfer', link: 'telemetry', times: 3, do: refusal });
    await using session = await openSession(hub);
    await drain(session, store, outboxOf(store), { batches: true });
    const arrived = hub.record.of('telemetry');
    // All sixty, then thirty and thirty, are refused; the quarters are taken.
    expect(arrived.slice(0, 120).every(({ outcome }) => outcome.outcome === 'rejected')).toBe(true);
    expect(arrived.slice(120).map(({ body }) => Number(body))).toEqual(upTo(60));
    expect(store.spool.stats()).toMatchObject({ waiting: { count: 0 }, deadLetters: { count: 0 } });
  });

  test('leave out what the hub would never take: it is refused alone and set aside', async () => {
    await using hub = await startHub();
    await using store = await openSpool();
    // Over 256 KB, planted as no sender could.
    const large = new Set([17, 42]);
    await store.spool.append(
      upTo(60).map((n) => newMessage(n, large.has(n) ? 'x'.repeat(300_000) : String(n))),
    );
    await using session = await openSession(hub);
    await drain(session, store, outboxOf(store), { batches: true });
    const accepted = hub.record.of('telemetry').filter(({ outcome }) => outcome.outcome === 'accepted');
    expect(accepted.map(({ body }) => Number(body))).toEqual(upTo(60).filter((n) => !large.has(n)));
    const letters = [];
    for await (const letter of store.spool.deadLetters()) letters.push(letter);
    expect(letters).toMatchObject([
      { message: { messageId: 'm17' }, condition: 'amqp:link:message-size-exceeded' },
      { message: { messageId: 'm42' }, condition: 'amqp:link:message-size-exceeded' },
    ]);
  });
});

describe('the answers of the hub', () => {
  const permanent = [
    'amqp:link:message-size-exceeded',
    'com.microsoft:argument-error',
    'com.microsoft:argument-out-of-range',
    'amqp:decode-error',
    'amqp:invalid-field',
    'amqp:not-allowed',
    'amqp:not-implemented',
    'amqp:precondition-failed',
  ];
  test.each(permanent)('H1: rejected with %s: it is set aside, and the next one goes', async (condition) => {
    await using hub = await startHub();
    await using store = await openSpool();
    await store.spool.append([newMessage(1), newMessage(2)]);
    hub.faults.add({
      at: 'transfer',
      link: 'telemetry',
      do: { act: 'answer', outcome: 'rejected', condition },
    });
    await using session = await openSession(hub);
    await drain(session, store, outboxOf(store), { window: 1 });
    const letters = [];
    for await (const letter of store.spool.deadLetters()) letters.push(letter);
    expect(letters).toMatchObject([{ condition, message: { messageId: 'm1' } }]);
    expect(hub.record.of('telemetry').map(({ messageId }) => messageId)).toEqual(['m1', 'm2']);
  });

  test.each([
    ['amqp:internal-error', 1],
    ['com.microsoft:timeout', 1],
    ['com.microsoft:device-container-throttled', 10],
    ['com.microsoft:server-busy', 10],
    ['amqp:resource-limit-exceeded', 60],
    ['com.microsoft:quota-exceeded', 60],
    ['amqp:unauthorized-access', 60],
    ['amqp:not-found', 60],
  ])(
    'H2 to H4: rejected with %s: a pause of %i s or half of it, then one alone, then the others',
    async (condition, seconds) => {
      await using hub = await startHub();
      await using store = await openSpool();
      await store.spool.append(upTo(20).map((n) => newMessage(n)));
      hub.faults.add({
        at: 'transfer',
        link: 'telemetry',
        times: 5,
        do: { act: 'answer', outcome: 'rejected', condition },
      });
      await using session = await openSession(hub);
      const clock = fastClock(200);
      const outbox = outboxOf(store, clock);
      const startedAt = clock.monotonic();
      await drain(session, store, outbox, { window: 5, clock });
      expect(clock.monotonic() - startedAt).toBeGreaterThanOrEqual((seconds * 1000) / 2);
      const arrived = hub.record.of('telemetry').map(({ messageId }) => messageId);
      // The first five are refused together; one is tried alone; and then all go, in order.
      expect(arrived.slice(0, 6)).toEqual(['m0', 'm1', 'm2', 'm3', 'm4', 'm0']);
      expect(arrived.slice(5)).toEqual(upTo(20).map((n) => `m${String(n)}`));
      expect(outbox.flow).toEqual({ flow: 'open' });
    },
  );

  test('H6 and H7: released or modified: it is sent again, and after five times modified it is set aside', async () => {
    await using hub = await startHub();
    await using store = await openSpool();
    await store.spool.append([newMessage(1), newMessage(2)]);
    hub.faults.add({
      at: 'transfer',
      link: 'telemetry',
      times: 3,
      do: { act: 'answer', outcome: 'released' },
    });
    await using session = await openSession(hub);
    await drain(session, store, outboxOf(store), { window: 1 });
    expect(hub.record.of('telemetry').map(({ messageId }) => messageId)).toEqual([
      'm1',
      'm1',
      'm1',
      'm1',
      'm2',
    ]);

    await store.spool.append([newMessage(3), newMessage(4)]);
    hub.faults.add({
      at: 'transfer',
      link: 'telemetry',
      times: 5,
      do: { act: 'answer', outcome: 'modified' },
    });
    await drain(session, store, outboxOf(store), { window: 1 });
    const ids = hub.record.of('telemetry').map(({ messageId }) => messageId);
    expect(ids.slice(5)).toEqual(['m3', 'm3', 'm3', 'm3', 'm3', 'm4']);
    expect(store.spool.stats().deadLetters.count).toBe(1);
  });

  test('H5: a condition that nobody knows is taken for trouble five times, then the message is set aside', async () => {
    await using hub = await startHub();
    await using store = await openSpool();
    await store.spool.append([newMessage(1), newMessage(2)]);
    const answer = { act: 'answer', outcome: 'rejected', condition: 'acme:odd' } as const;
    hub.faults.add({ at: 'transfer', link: 'telemetry', times: 5, do: answer });
    await using session = await openSession(hub);
    const clock = fastClock(200);
    await drain(session, store, outboxOf(store, clock), { window: 1, clock });
    expect(hub.record.of('telemetry').map(({ messageId }) => messageId)).toEqual([
      'm1',
      'm1',
      'm1',
      'm1',
      'm1',
      'm2',
    ]);
    expect(store.spool.stats().deadLetters.count).toBe(1);
  });
});

test('an answer that never comes costs the links and no message', async () => {
  await using hub = await startHub();
  await using store = await openSpool();
  await store.spool.append(upTo(50).map((n) => newMessage(n)));
  hub.faults.add({ at: 'disposition', link: 'telemetry', after: 10, do: { act: 'say-nothing' } });
  await using first = await openSession(hub);
  const clock = fastClock(200);
  const outbox = outboxOf(store, clock);
  const options = { window: 20, clock };
  expect(await failure(drain(first, store, outbox, options))).toMatchObject({
    message: 'the hub did not answer for a message within 30 s',
  });
  expect(first.isRepairable).toBe(true);
  const second = await first.repair(AbortSignal.timeout(5_000));
  await drain(second, store, outbox, options);
  const arrived = hub.record.of('telemetry').map(({ messageId }) => messageId);
  expect(new Set(arrived).size).toBe(50);
  expect(arrived.length).toBeLessThanOrEqual(50 + 20);
});

test('what was not answered when the connection was lost is sent again by the next, before what came later', async () => {
  await using hub = await startHub();
  await using store = await openSpool();
  await store.spool.append(upTo(200).map((n) => newMessage(n)));
  const outbox = outboxOf(store);
  hub.faults.add({ at: 'disposition', link: 'telemetry', after: 70, do: { act: 'drop' } });
  {
    await using session = await openSession(hub);
    await failure(drain(session, store, outbox, { window: 30 }));
  }
  await store.spool.append([newMessage(200)]);
  await using session = await openSession(hub);
  await drain(session, store, outbox, { window: 30 });
  const second = hub.record
    .of('telemetry')
    .filter(({ connection }) => connection === 2)
    .map(({ body }) => Number(body));
  expect(second).toEqual(upTo(201).slice(second[0]));
  expect(store.spool.stats().waiting.count).toBe(0);
});

test('one that is to be emptied ends when everything has an answer, also what had to be sent twice', async () => {
  await using hub = await startHub();
  await using store = await openSpool();
  hub.faults.add({
    at: 'transfer',
    link: 'telemetry',
    after: 2,
    do: { act: 'answer', outcome: 'released' },
  });
  await store.spool.append(upTo(300).map((n) => newMessage(n)));
  await using session = await openSession(hub);
  const outbox = new SpoolOutbox(store.spool, { clock: systemClock, log: silentLog, whenEmpty: 'end' });
  await pumpTelemetry(session, outbox, {
    window: 100,
    batches: true,
    clock: systemClock,
    stopping: new AbortController().signal,
  });
  await outbox.recorded();
  expect(store.spool.stats().waiting.count).toBe(0);
  const accepted = hub.record.of('telemetry').filter(({ outcome }) => outcome.outcome === 'accepted');
  expect(accepted.map(({ body }) => Number(body)).sort((a, b) => a - b)).toEqual(upTo(300));
});

describe('removals', () => {
  test('of few messages go along with the next message that is stored', async () => {
    await using hub = await startHub();
    const syncs = countingDisk();
    await using store = await openSpool(syncs.files);
    const outbox = outboxOf(store);
    await using session = await openSession(hub);
    const stop = new AbortController();
    const options = { window: 10, batches: true, clock: systemClock, stopping: stop.signal };
    const pumping = pumpTelemetry(session, outbox, options);
    const before = syncs.count;
    for (const n of upTo(20)) {
      await store.spool.append([newMessage(n)]);
      await until(() => hub.record.of('telemetry').length > n);
    }
    await outbox.recorded();
    expect(store.spool.stats().waiting.count).toBe(0);
    // One for each message that was stored, and hardly any more; one each would be 40.
    expect(syncs.count - before).toBeLessThan(32);
    stop.abort();
    await pumping;
  });

  test('that nobody writes along with anything are recorded all the same', async () => {
    await using hub = await startHub();
    await using store = await openSpool();
    await using session = await openSession(hub);
    await store.spool.append([newMessage(1)]);
    await drain(session, store, outboxOf(store));
    expect(store.spool.stats().waiting.count).toBe(0);
  });

  test('that the disk has not confirmed do not become more and more: then nothing is sent', async () => {
    await using hub = await startHub();
    const disk = countingDisk();
    await using store = await openSpool(disk.files);
    const count = 11_000;
    for (const n of upTo(count / 1_000)) {
      await store.spool.append(upTo(1_000).map((m) => newMessage(n * 1_000 + m)));
    }
    const goOn = disk.block();
    await using session = await openSession(hub);
    const outbox = outboxOf(store);
    const draining = drain(session, store, outbox, { batches: true, window: 200 });
    const sent = () => hub.record.of('telemetry').length;
    await until(() => sent() >= 10_000);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(sent()).toBeLessThanOrEqual(10_000 + 200);
    goOn();
    await draining;
    await outbox.recorded();
    expect(sent()).toBe(count);
    expect(store.spool.stats().waiting.count).toBe(0);
  });
});

/** The disk, with its syncs counted, and held up on request. */
function countingDisk() {
  let gate = Promise.resolve();
  const counted = {
    count: 0,
    block(): () => void {
      let open: () => void = () => undefined;
      gate = new Promise((resolve) => (open = resolve));
      return open;
    },
    files: {
      ...diskFiles,
      async open(path: string, access: 'read' | 'write') {
        const file = await diskFiles.open(path, access);
        const sync = file.sync.bind(file);
        file.sync = async () => {
          counted.count++;
          await gate;
          await sync();
        };
        return file;
      },
    } satisfies Files,
  };
  return counted;
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2));
}
