import '../../src/no-debug.js';

import rhea, { type Message } from 'rhea';
import { describe, expect, test } from 'vitest';

import type { TwinLink } from '../../src/amqp/twin.js';
import type { Emulator } from '../../src/emulator/emulator.js';
import { startBareHub } from './bare-hub.js';
import { device, encode, failure, message, never, openSession, reasonOf, startHub } from './hub.js';

function twinOf(hub: Emulator) {
  return hub.device(device).twin;
}

async function document(twin: TwinLink): Promise<unknown> {
  return JSON.parse((await twin.get(never)).toString()) as unknown;
}

test('is read with both sections and their versions', async () => {
  await using hub = await startHub();
  twinOf(hub).patch({ desired: { interval: 5, fan: { speed: 2 } } }, hub.now());
  await using session = await openSession(hub);
  expect(await document(await session.openTwin(never))).toEqual({
    desired: { interval: 5, fan: { speed: 2 }, $version: 2 },
    reported: { $version: 1 },
  });
  expect(hub.connections[0]!.sessions[2]!.links.map(({ link }) => link)).toEqual(['twin', 'twin']);
});

test('a report is merged, and its version comes back', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub);
  const twin = await session.openTwin(never);
  expect(await twin.report('{"fw":"1.2","old":1}', never)).toBe(2);
  expect(await twin.report('{"old":null}', never)).toBe(3);
  expect(twinOf(hub).reported.properties).toEqual({ fw: '1.2' });
});

test('requests at the same time each get their own answer', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub);
  const twin = await session.openTwin(never);
  const versions = await Promise.all(
    Array.from({ length: 8 }, (_, n) => twin.report(`{"n${String(n)}":1}`, never)),
  );
  expect(versions).toEqual(Array.from({ length: 8 }, (_, n) => n + 2));
});

test('changes of the desired properties are told from the subscription on, until it ends', async () => {
  await using hub = await startHub();
  const desired = (n: number) => twinOf(hub).patch({ desired: { n } }, hub.now());
  await using session = await openSession(hub);
  const twin = await session.openTwin(never);
  const told: string[] = [];
  desired(1);
  await twin.watchDesired((patch) => told.push(String(patch)), never);
  desired(2);
  desired(3);
  await twin.get(never);
  await twin.unwatchDesired(never);
  desired(4);
  await twin.get(never);
  expect(told).toEqual(['{"n":2,"$version":3}', '{"n":3,"$version":4}']);
});

describe('what the hub refuses is an error with its status and words', () => {
  test('a patch that is no object', async () => {
    await using hub = await startHub();
    await using session = await openSession(hub);
    const twin = await session.openTwin(never);
    for (const patch of ['[1]', '"x"', '{"a.b":1}', 'nonsense']) {
      expect(await failure(twin.report(patch, never))).toMatchObject({
        code: 'data',
        condition: 'twin:400',
        message: expect.stringMatching(/refused the twin request \(status 400\): ./) as string,
      });
    }
    expect(twin.over.aborted).toBe(false);
  });

  test.each([
    [401, 'refused', 'late'],
    [404, 'no-device', 'late'],
    [429, 'try-again', 'late'],
    [500, 'try-again', 'soon'],
    [503, 'try-again', 'soon'],
  ] as const)('status %d', async (status, code, retry) => {
    await using hub = await startHub();
    await using session = await openSession(hub);
    const twin = await session.openTwin(never);
    hub.faults.add({ at: 'transfer', link: 'twin', do: { act: 'refuse', status, description: 'so it is' } });
    expect(await failure(twin.get(never))).toMatchObject({
      code,
      retry,
      message: expect.stringContaining('so it is') as string,
    });
    expect(await document(twin)).toBeTruthy();
  });
});

test('an answer that does not come ends the channel in time, and nothing else', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub, { answerWithinMs: 200 });
  const twin = await session.openTwin(never);
  hub.faults.add({ at: 'transfer', link: 'twin', do: { act: 'say-nothing' } });
  expect(await failure(twin.get(never))).toMatchObject({
    code: 'unavailable',
    message: 'the hub did not answer for the twin within 0.2 s',
  });
  expect(await reasonOf(twin.over)).toMatchObject({ retry: 'soon' });
  expect(await session.telemetry.send(encode(message()))).toEqual({ outcome: 'accepted' });
  expect(await document(await session.openTwin(never))).toBeTruthy();
});

test('a link that is lost rejects what was asked on it', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub);
  const twin = await session.openTwin(never);
  hub.faults.add({
    at: 'transfer',
    link: 'twin',
    do: { act: 'detach', condition: 'amqp:link:detach-forced' },
  });
  expect(await failure(twin.get(never))).toMatchObject({
    code: 'unavailable',
    condition: 'amqp:link:detach-forced',
  });
  const again = await session.openTwin(never);
  expect(await document(again)).toBeTruthy();
});

test('who stops waiting is told at once, and the channel stays', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub);
  const twin = await session.openTwin(never);
  const stop = new AbortController();
  hub.faults.add({ at: 'transfer', link: 'twin', do: { act: 'say-nothing' } });
  const asking = failure(twin.get(stop.signal));
  stop.abort(new Error('enough'));
  expect(await asking).toMatchObject({ message: 'enough' });
  expect(await document(twin)).toBeTruthy();
});

describe('on the wire', () => {
  const data = (bytes: string): unknown => rhea.message.data_section(Buffer.from(bytes));

  test('a request says what it is in annotations, and is settled as it is sent', async () => {
    await using hub = await startBareHub();
    const twin = await (await hub.open()).openTwin(never);
    void twin.report('{"a":1}', never).catch(() => undefined);
    const request = await hub.next();
    expect(request.message_annotations).toEqual({ operation: 'PATCH', resource: '/properties/reported' });
    expect(request.correlation_id).toMatch(/^[0-9a-f-]{36}$/);
    expect(String((request.body as { content: Buffer }).content)).toBe('{"a":1}');
  });

  test.each<[string, (id: string) => object]>([
    ['its correlation id as a uuid', (id) => ({ correlation_id: rhea.string_to_uuid(id) })],
    ['no annotations', (id) => ({ correlation_id: id })],
    [
      'a status of 204 and no body',
      (id) => ({ correlation_id: id, message_annotations: { status: 204 }, body: undefined }),
    ],
  ])('an answer with %s is an answer', async (_title, fields) => {
    await using hub = await startBareHub();
    const twin = await (await hub.open()).openTwin(never);
    const reporting = twin.report('{}', never);
    const { correlation_id: id } = await hub.next();
    await hub.send({ body: data(''), ...fields(id as string) });
    expect(await reporting).toBeUndefined();
  });

  test('answers to nobody are let pass, and changes that cannot be read are told as such', async () => {
    await using hub = await startBareHub();
    const twin = await (await hub.open()).openTwin(never);
    const told: (string | undefined)[] = [];
    const watching = twin.watchDesired((patch) => told.push(patch?.toString()), never);
    const { correlation_id: id } = await hub.next();
    await hub.send({ correlation_id: 'nobody', body: data('1') });
    await hub.send({ body: data('{"$version":2}') });
    await hub.send(Buffer.from([0x00, 0x53, 0x77, 0xff]));
    await hub.send({ correlation_id: id, body: data('') } as Message);
    await watching;
    expect(told).toEqual(['{"$version":2}', undefined]);
  });
});
