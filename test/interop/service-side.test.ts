import { describe, expect, test } from 'vitest';

import { openMonitor } from '../../src/service/monitor.js';
import { openFeedbackWait } from '../../src/service/feedback.js';
import { openServiceClient, type ServiceOptions } from '../../src/service/client.js';
import { openCommandSender } from '../../src/service/commands.js';
import {
  followNotifications,
  type DeliveredNotification,
  type FileNotification,
} from '../../src/service/notifications.js';
import type { Emulator } from '../../src/emulator/emulator.js';
import { never, openSession } from '../amqp/hub.js';
import { devices, eventsOf, sendAs, serviceOf, take } from '../service/kit.js';
import { Sdk, mayUse443, startHub } from './sdk.js';

/** The hub's side as we do it, beside how Microsoft does it. */
describe.skipIf(!mayUse443)('service side', () => {
  test('azure-iothub sends, our agent settles, and the feedback that we read is what azure-iothub reads', async () => {
    await using hub = await startHub({ devices: ['dev-01'] });
    await using agent = await openSession(hub);
    agent.commands.onCommand(({ command, settle }) => {
      settle(command.messageId?.endsWith('no') === true ? { outcome: 'reject' } : { outcome: 'accept' });
    });
    agent.commands.grant(10);
    await using service = await Sdk.start('service', hub);
    await service.call('open', hub.serviceConnectionString());

    await using client = await openServiceClient(serviceAt(hub), never);
    const wait = await openFeedbackWait(client, never);
    const read: unknown[] = [];
    for (const messageId of ['theirs-yes', 'theirs-no']) {
      wait.expect(messageId);
      await service.call('send', 'dev-01', { body: 'x', messageId, ack: 'full' });
      read.push(await wait.next(messageId, AbortSignal.timeout(10_000)));
    }
    await client[Symbol.asyncDispose]();

    // Now the other way round: we send, they read.
    await service.call('feedback');
    await using sending = await openServiceClient(serviceAt(hub), never);
    const sender = await openCommandSender(sending, never);
    for (const [n, messageId] of ['ours-yes', 'ours-no'].entries()) {
      await sender.send(
        { to: { deviceId: 'dev-01' }, messageId, ack: 'full', properties: {}, body: Buffer.from('x') },
        never,
      );
      const [theirs] = (await service.next('feedback')) as unknown as Record<string, string>[];
      const own = read[n] as Record<string, string>;
      expect(theirs).toMatchObject({ originalMessageId: messageId, statusCode: own['statusCode'] });
      expect({ ...theirs, originalMessageId: '', enqueuedTimeUtc: '' }).toEqual({
        ...own,
        originalMessageId: '',
        enqueuedTimeUtc: '',
      });
    }
  });

  test('azure-iot-device uploads files, and we are told of them what azure-iothub is told', async () => {
    await using hub = await startHub({ devices: ['dev-01'] });
    await using uploader = await Sdk.start('device', hub);
    await uploader.call('open', hub.deviceConnectionString('dev-01'));
    await using service = await Sdk.start('service', hub);
    await service.call('open', hub.serviceConnectionString());
    await service.call('notifications');
    await uploader.call('upload', 'a day/log 1.txt', 'to them');
    const theirs = await service.next('notification');
    await service.call('close');

    await uploader.call('upload', 'a day/log 1.txt', 'to us');
    const [notification] = await firstOf(followNotifications(serviceAt(hub), AbortSignal.timeout(20_000)));
    expect(notification).toMatchObject({ deviceId: 'dev-01', blobSizeInBytes: 5 });
    const timeless = { lastUpdatedTime: '', enqueuedTimeUtc: '' };
    expect({ ...theirs, ...timeless }).toEqual({ ...notification, ...timeless, blobSizeInBytes: 7 });
    expect(hub.file('dev-01', 'a day/log 1.txt')?.toString()).toBe('to us');
  });

  test('@azure/event-hubs and our monitor read the same events, with the same offsets and annotations', async () => {
    await using hub = await startHub({ devices });
    await Promise.all(devices.map((id) => sendAs(hub, id, [`${id}/1`, `${id}/2`])));
    await using events = openMonitor({ eventHub: eventsOf(hub), from: { at: 'start' } }, never);
    const own = await take(events, 2 * devices.length);

    await using sdk = await Sdk.start('events', hub);
    await sdk.call('open', hub.eventHubConnectionString);
    await sdk.call('subscribe', { offset: '-1' });
    const theirs: Record<string, unknown>[] = [];
    while (theirs.length < own.length) theirs.push(await sdk.next('event'));

    const byId = new Map(theirs.map((event) => [event['messageId'], event]));
    for (const event of own) {
      const other = byId.get(event.messageId)!;
      expect(other).toMatchObject({
        partitionId: event.partition,
        offset: event.offset,
        sequenceNumber: event.sequenceNumber,
        enqueuedAt: event.enqueuedAt,
        body: JSON.parse(event.body.toString()) as unknown,
        properties: event.properties,
      });
      const stamps = Object.entries(event.annotations).filter(
        ([name]) => !name.startsWith('x-opt-') && name !== 'iothub-enqueuedtime',
      );
      expect(stamps).toHaveLength(4);
      expect(other['systemProperties']).toMatchObject(Object.fromEntries(stamps));
    }
  });
});

async function firstOf(notifications: AsyncIterable<DeliveredNotification>): Promise<FileNotification[]> {
  for await (const { notification, settle } of notifications) {
    settle('accept');
    return [notification];
  }
  return [];
}

/** The SDKs know no other ports than the standard ones, so their hub has an address of its own. */
function serviceAt(hub: Emulator): ServiceOptions {
  const service = serviceOf(hub);
  return { ...service, endpoint: { ...service.endpoint, host: hub.hostName } };
}
