import { expect, test } from 'vitest';

import { StreamOutbox, type StreamAnswer } from '../../src/agent/stream-outbox.js';
import { pumpTelemetry } from '../../src/agent/telemetry.js';
import { systemClock } from '../../src/clock.js';
import { encode, failure, message, never, openSession, startHub } from '../amqp/hub.js';

/** Numbers to send, one message each, so many of them ready together, and what was answered, in order. */
function numbers(count: number, capacity: number, together = 30) {
  const answers: [number, StreamAnswer][] = [];
  let read = 0;
  async function* source() {
    while (read < count) yield await Promise.resolve(next());
  }
  function* next() {
    for (let n = 0; n < together && read < count; n++) yield read++;
  }
  const outbox = new StreamOutbox(source(), {
    capacity,
    encode: (n) => encode(message({ messageId: `m${String(n)}`, body: Buffer.from(String(n)) })),
    onResults: (results) => {
      for (const { item, answer } of results) answers.push([item, answer]);
    },
  });
  return { outbox, answers, read: () => read };
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, n) => n);

test('a stream arrives in order and once, and is answered in order', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub);
  const { outbox, answers } = numbers(5_000, 100);
  await pumpTelemetry(session, outbox, { window: 100, batches: false, clock: systemClock, stopping: never });
  expect(hub.record.of('telemetry').map(({ body }) => Number(body))).toEqual(upTo(5_000));
  expect(answers.map(([n, answer]) => [n, answer?.outcome.outcome])).toEqual(
    upTo(5_000).map((n) => [n, 'accepted']),
  );
});

test.each([
  { window: 7, capacity: 12 },
  { window: 12, capacity: 7 },
])('no more is on its way, and no more is read, than %o allow', async ({ window, capacity }) => {
  await using hub = await startHub();
  hub.faults.add({ at: 'transfer', link: 'telemetry', do: { act: 'say-nothing' }, times: 'always' });
  await using session = await openSession(hub);
  const { outbox, read } = numbers(1_000, capacity);
  const pumping = failure(
    pumpTelemetry(session, outbox, { window, batches: false, clock: systemClock, stopping: never }),
  );
  await hub.waitFor((record) => record.of('telemetry').length === 7);
  expect(read()).toBe(7);
  hub.faults.now({ act: 'drop' });
  await pumping;
  expect(hub.record.of('telemetry')).toHaveLength(7);
});

test('what was ready before the source failed is sent and answered, and then the failure is told', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub);
  const told: number[] = [];
  async function* source() {
    yield await Promise.resolve([1, 2]);
    yield (function* () {
      yield 3;
      throw new Error('the disk is gone');
    })();
  }
  const outbox = new StreamOutbox(source(), {
    capacity: 10,
    encode: (n) => encode(message({ messageId: `m${String(n)}` })),
    onResults: (results) => told.push(...results.map(({ item }) => item)),
  });
  const options = { window: 10, batches: false, clock: systemClock, stopping: never };
  await expect(pumpTelemetry(session, outbox, options)).rejects.toThrow('the disk is gone');
  expect(told).toEqual([1, 2, 3]);
});

test("the hub's credit is kept to when it is smaller than the window", async () => {
  await using hub = await startHub({ creditWindow: 3 });
  await using session = await openSession(hub);
  const { outbox } = numbers(500, 100);
  await pumpTelemetry(session, outbox, { window: 100, batches: false, clock: systemClock, stopping: never });
  expect(hub.record.of('telemetry').map(({ body }) => Number(body))).toEqual(upTo(500));
});

test('what the hub had not answered when the connection was lost goes out first on the next, in order', async () => {
  await using hub = await startHub();
  hub.faults.add({ at: 'disposition', link: 'telemetry', after: 40, do: { act: 'drop' } });
  const { outbox, answers } = numbers(200, 20);
  for (let connection = 0; connection < 2; connection++) {
    await using session = await openSession(hub);
    await failure(
      pumpTelemetry(session, outbox, { window: 20, batches: false, clock: systemClock, stopping: never }),
    );
  }
  expect(answers.map(([n]) => n)).toEqual(upTo(200));
  const perConnection = [1, 2].map((connection) =>
    hub.record
      .of('telemetry')
      .filter((entry) => entry.connection === connection)
      .map(({ body }) => Number(body)),
  );
  const [before, after] = perConnection;
  expect(before).toEqual(upTo(before!.length));
  expect(after).toEqual(upTo(200).slice(after![0]));
  // Sent twice: at most what was on its way when the connection was lost.
  expect(before!.length - after![0]!).toBeLessThanOrEqual(20);
});

test('after stopping, what is on its way is still waited for', async () => {
  await using hub = await startHub();
  hub.faults.add({ at: 'transfer', link: 'telemetry', do: { act: 'delay', ms: 200 }, times: 'always' });
  await using session = await openSession(hub);
  const stop = new AbortController();
  const { outbox, answers } = numbers(1_000, 50);
  const pumping = pumpTelemetry(session, outbox, {
    window: 10,
    batches: false,
    clock: systemClock,
    stopping: stop.signal,
  });
  await hub.waitFor((record) => record.of('telemetry').length >= 10);
  stop.abort();
  await pumping;
  expect(answers.length).toBe(hub.record.of('telemetry').length);
  expect(answers.length).toBeLessThan(1_000);
});
