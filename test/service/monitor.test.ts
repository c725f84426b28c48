import { expect, test } from 'vitest';

import type { HubEvent } from '../../src/amqp/event-message.js';
import type { AgentError } from '../../src/errors.js';
import {
  parseEventHubConnectionString,
  parseServiceConnectionString,
} from '../../src/identity/connection-string.js';
import { eventHubTokens } from '../../src/identity/token.js';
import { EventHubConnection, findEventHub } from '../../src/service/event-hub.js';
import { openMonitor, type MonitorOptions } from '../../src/service/monitor.js';
import { device, failure, never, startHub } from '../amqp/hub.js';
import { devices, eventsOf, sendAs, serviceOf, signalled, take } from './kit.js';

const fromStart: Pick<MonitorOptions, 'from'> = { from: { at: 'start' } };
const ids = (events: readonly HubEvent[]): (string | undefined)[] => events.map(({ messageId }) => messageId);

test('telemetry of all devices is read from every partition, each in its order, with what the hub stamped on it', async () => {
  await using hub = await startHub({ devices });
  await Promise.all(devices.map((id) => sendAs(hub, id, [`${id}-1`, `${id}-2`, `${id}-3`])));
  await using events = openMonitor({ eventHub: eventsOf(hub), ...fromStart }, never);
  const seen = await take(events, 3 * devices.length);
  expect(new Set(seen.map(({ partition }) => partition))).toEqual(new Set(['0', '1', '2', '3']));
  for (const id of devices) {
    const own = seen.filter(({ deviceId }) => deviceId === id);
    expect(ids(own)).toEqual([`${id}-1`, `${id}-2`, `${id}-3`]);
    expect(new Set(own.map(({ partition }) => partition)).size).toBe(1);
  }
  expect(seen[0]).toMatchObject({
    source: 'Telemetry',
    contentType: 'application/json',
    properties: { k: 'v' },
    sequenceNumber: 0,
    offset: '0',
    body: Buffer.from('{"t":21.5}'),
    annotations: { 'iothub-connection-device-id': seen[0]?.deviceId, 'iothub-message-source': 'Telemetry' },
  });
  expect(Math.abs(seen[0]!.enqueuedAt - Date.now())).toBeLessThan(60_000);
});

test("the event hub is found with the hub's own connection string", async () => {
  await using hub = await startHub();
  await sendAs(hub, device, ['a']);
  const identity = parseServiceConnectionString(hub.serviceConnectionString());
  const eventHub = (signal: AbortSignal) => findEventHub(serviceOf(hub), identity, signal);
  await using events = openMonitor({ eventHub, ...fromStart }, never);
  expect(ids(await take(events, 1))).toEqual(['a']);
});

test('a policy without the right to read is refused, and a key that is wrong', async () => {
  await using hub = await startHub();
  const text = hub.serviceConnectionString('registryRead');
  const identity = parseServiceConnectionString(text);
  const find = (signal: AbortSignal) => findEventHub(serviceOf(hub, text), identity, signal);
  expect(await failure(openMonitor({ eventHub: find }, never).next())).toMatchObject({ code: 'refused' });
  const wrong = hub.eventHubConnectionString.replace(/SharedAccessKey=..../, 'SharedAccessKey=AAAA');
  expect(await failure(openMonitor({ eventHub: eventsOf(hub, wrong) }, never).next())).toMatchObject({
    code: 'refused',
    condition: 'cbs:401',
  });
});

test('reading begins at the start, at a time, behind an offset, or with what comes next', async () => {
  await using hub = await startHub();
  await sendAs(hub, device, ['a', 'b']);
  hub.jumpClock(60_000);
  await sendAs(hub, device, ['c', 'd']);
  const eventHub = eventsOf(hub);
  await using all = openMonitor({ eventHub, ...fromStart }, never);
  const [a, , c] = await take(all, 4);
  await using sinceC = openMonitor({ eventHub, from: { at: 'time', enqueuedAt: c!.enqueuedAt } }, never);
  expect(ids(await take(sinceC, 2))).toEqual(['c', 'd']);
  await using behindA = openMonitor({ eventHub, from: { at: 'offset', offset: a!.offset } }, never);
  expect(ids(await take(behindA, 3))).toEqual(['b', 'c', 'd']);
  const online = signalled();
  await using next = openMonitor({ eventHub, onOnline: online.raise }, never);
  await online.promise;
  await sendAs(hub, device, ['e']);
  expect(ids(await take(next, 1))).toEqual(['e']);
});

test('a reader that starts now misses nothing that comes while its connection is lost', async () => {
  await using hub = await startHub();
  const online = signalled();
  await using events = openMonitor({ eventHub: eventsOf(hub), onOnline: online.raise }, never);
  await online.promise;
  hub.faults.now({ act: 'drop' });
  await sendAs(hub, device, ['a', 'b']);
  expect(ids(await take(events, 2))).toEqual(['a', 'b']);
});

test('after lost connections, sessions and links it goes on exactly where it was', async () => {
  await using hub = await startHub();
  const expected = Array.from({ length: 400 }, (_, n) => String(n));
  await sendAs(hub, device, expected);
  await using events = openMonitor({ eventHub: eventsOf(hub), ...fromStart }, never);
  const seen: HubEvent[] = [];
  for (const trouble of [
    { act: 'drop' },
    { act: 'detach', condition: 'amqp:link:detach-forced' },
    { act: 'end', condition: 'amqp:internal-error' },
  ] as const) {
    seen.push(...(await take(events, 60)));
    hub.faults.now(trouble, trouble.act === 'detach' ? { link: 'partition' } : {});
  }
  seen.push(...(await take(events, 400 - seen.length)));
  expect(ids(seen)).toEqual(expected);
});

test('a partition sends no more than it was granted', async () => {
  await using hub = await startHub();
  await sendAs(hub, device, ['a', 'b', 'c', 'd', 'e']);
  await using connection = await EventHubConnection.open(eventsOf(hub), never);
  const seen: HubEvent[] = [];
  const [partition = ''] = await partitionsWithEvents(connection);
  const link = await connection.read(
    { group: '$Default', partition, position: { at: 'start' }, onEvent: (event) => seen.push(event) },
    never,
  );
  link.grant(2);
  // Answers on this connection come after what was sent before them.
  await until(() => seen.length >= 2);
  await connection.partitionIds(never);
  expect(ids(seen)).toEqual(['a', 'b']);
  link.grant(3);
  await until(() => seen.length >= 5);
});

test('tokens are renewed while it reads: three lifetimes and no gap, on one connection', async () => {
  await using hub = await startHub({ tokenGraceMs: 0 });
  const string = parseEventHubConnectionString(hub.eventHubConnectionString);
  const makeToken = eventHubTokens(string, string.entityPath!, 2_000);
  await using events = openMonitor({ eventHub: { ...eventsOf(hub), makeToken }, ...fromStart }, never);
  const startedAt = performance.now();
  let sent = 0;
  for (; performance.now() - startedAt < 7_000; sent++) {
    await sendAs(hub, device, [String(sent)]);
    expect(ids(await take(events, 1))).toEqual([String(sent)]);
  }
  expect(hub.record.of('connected').length).toBe(1 + sent);
});

test('a partition that does not exist is a usage error that names those that do', async () => {
  await using hub = await startHub();
  const error = await failure(openMonitor({ eventHub: eventsOf(hub), partitions: ['9'] }, never).next());
  expect(error).toMatchObject({ code: 'usage', hint: 'there are 0, 1, 2, 3' });
});

test('a reader without ownership gives way to one that owns the partition, and says what to do', async () => {
  await using hub = await startHub();
  const online = signalled();
  await using events = openMonitor({ eventHub: eventsOf(hub), onOnline: online.raise }, never);
  await online.promise;
  const ending = failure(events.next());
  await using owner = await EventHubConnection.open(eventsOf(hub), never);
  const reading = { group: '$Default', position: { at: 'start' }, onEvent: () => undefined } as const;
  await Promise.all(
    ['0', '1', '2', '3'].map((partition) => owner.read({ ...reading, partition, epoch: 1 }, never)),
  );
  const error = (await ending) as AgentError;
  expect(error).toMatchObject({ code: 'unavailable', condition: 'amqp:link:stolen' });
  expect(error.hint).toMatch(/--group/);
});

test('without TLS it talks to a development emulator', async () => {
  await using hub = await startHub({ plainPort: 0 });
  await sendAs(hub, device, ['a']);
  const plain = hub.eventHubConnectionString.replace(`:${String(hub.port)}/`, `:${String(hub.plainPort)}/`);
  const eventHub = eventsOf(hub, `${plain};UseDevelopmentEmulator=true`);
  await using events = openMonitor({ eventHub, ...fromStart }, never);
  expect(ids(await take(events, 1))).toEqual(['a']);
});

test("the signal's reason ends the iteration, and leaving the loop closes the connection", async () => {
  await using hub = await startHub();
  await sendAs(hub, device, ['a']);
  const stop = new AbortController();
  const events = openMonitor({ eventHub: eventsOf(hub), ...fromStart }, stop.signal);
  await take(events, 1);
  const next = failure(events.next());
  stop.abort(new Error('enough'));
  expect(await next).toMatchObject({ message: 'enough' });
  await events[Symbol.asyncDispose]();
  for await (const event of openMonitor({ eventHub: eventsOf(hub), ...fromStart }, never)) {
    expect(event.messageId).toBe('a');
    break;
  }
  await hub.waitFor(() => hub.connections.length === 0);
});

async function partitionsWithEvents(connection: EventHubConnection): Promise<string[]> {
  const all = await connection.partitionIds(never);
  const ends = await Promise.all(all.map((id) => connection.last(id, never)));
  return all.filter((_, n) => ends[n]?.offset !== '-1');
}

async function until(condition: () => boolean): Promise<void> {
  await expect.poll(condition, { timeout: 5_000, interval: 5 }).toBe(true);
}
