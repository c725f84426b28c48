import { expect, test } from 'vitest';

import {
  followFeedback,
  findEventHub,
  openCommandSender,
  openMonitor,
  openServiceClient,
  parseServiceConnectionString,
  type HubEvent,
} from '../../src/index.js';
import { device, encode, message, never, openSession, startHub } from '../amqp/hub.js';
import { eventsOf, sendAs, serviceOf, take } from './kit.js';

/** What people do with a hub over AMQP, each with nothing but what the library exports. */

test('get telemetry: a device sends, and a reader of all partitions gets it with its properties', async () => {
  await using hub = await startHub();
  await using sensor = await openSession(hub, { links: ['telemetry'] });
  await sensor.telemetry.send(
    encode(
      message({ messageId: 'm-1', properties: { level: 'high' }, body: Buffer.from('{"temperature":31.5}') }),
    ),
  );
  const identity = parseServiceConnectionString(hub.serviceConnectionString());
  await using events = openMonitor(
    { eventHub: (signal) => findEventHub(serviceOf(hub), identity, signal), from: { at: 'start' } },
    AbortSignal.timeout(20_000),
  );
  for await (const event of events) {
    expect(event).toMatchObject({ deviceId: device, messageId: 'm-1', properties: { level: 'high' } });
    expect(JSON.parse(event.body.toString())).toEqual({ temperature: 31.5 });
    break;
  }
});

test('command and feedback: sent with iothub-ack full, accepted by the device, told field by field', async () => {
  await using hub = await startHub();
  await using agent = await openSession(hub, { links: ['commands'] });
  agent.commands.onCommand(({ command, settle }) => {
    expect(command).toMatchObject({ messageId: 'c-1', ack: 'full', properties: { volume: '3' } });
    expect(command.body.toString()).toBe('beep');
    settle({ outcome: 'accept' });
  });
  agent.commands.grant(1);
  await using client = await openServiceClient(serviceOf(hub), never);
  const sender = await openCommandSender(client, never);
  const sentAt = Date.now();
  const result = await sender.send(
    {
      ...{ to: { deviceId: device }, messageId: 'c-1', ack: 'full', body: Buffer.from('beep') },
      properties: { volume: '3' },
    },
    never,
  );
  expect(result).toEqual({ outcome: 'accepted' });
  for await (const { records, settle } of followFeedback(serviceOf(hub), AbortSignal.timeout(20_000))) {
    settle('accept');
    const [record] = records;
    expect(Object.keys(record!).sort()).toEqual([
      'description',
      'deviceGenerationId',
      'deviceId',
      'enqueuedTimeUtc',
      'originalMessageId',
      'statusCode',
    ]);
    expect(record).toMatchObject({
      originalMessageId: 'c-1',
      statusCode: 'Success',
      description: 'Success',
      deviceId: device,
      deviceGenerationId: hub.device(device).generationId,
    });
    expect(Date.parse(record!.enqueuedTimeUtc)).toBeGreaterThanOrEqual(sentAt - 1_000);
    expect(Date.parse(record!.enqueuedTimeUtc)).toBeLessThan(Date.now() + 1_000);
    break;
  }
});

test('an app that is suspended goes on from the time that it saved', async () => {
  await using hub = await startHub();
  await sendAs(hub, device, ['a', 'b']);
  let savedTime = 0;
  const seen: HubEvent[] = [];
  {
    await using events = openMonitor({ eventHub: eventsOf(hub), from: { at: 'start' } }, never);
    seen.push(...(await take(events, 2)));
    savedTime = Math.max(...seen.map(({ enqueuedAt }) => enqueuedAt)) + 1;
  }
  hub.jumpClock(600_000); // less than a token lasts
  await sendAs(hub, device, ['c', 'd']);
  await using events = openMonitor(
    { eventHub: eventsOf(hub), from: { at: 'time', enqueuedAt: savedTime } },
    never,
  );
  seen.push(...(await take(events, 2)));
  expect(seen.map(({ messageId }) => messageId)).toEqual(['a', 'b', 'c', 'd']);
});
