import { describe, expect, test } from 'vitest';

import type { Emulator } from '../../src/emulator/emulator.js';
import { connectDevice, data, openSender, send } from '../emulator/client.js';
import { Sdk, mayUse443, startHub } from './sdk.js';

describe.skipIf(!mayUse443)('@azure/event-hubs', () => {
  test('reads properties of the hub and its partitions', async () => {
    await using hub = await startHub({ devices: ['dev-01'] });
    await sendSome(hub, 'dev-01', 3);
    await using events = await Sdk.start('events', hub);
    await events.call('open', hub.eventHubConnectionString);
    expect(await events.call('properties')).toEqual({
      name: 'iothub-events',
      partitionIds: ['0', '1', '2', '3'],
    });
    const partitions = await Promise.all(['0', '1', '2', '3'].map((id) => events.call('partition', id)));
    expect(partitions).toContainEqual(
      expect.objectContaining({ isEmpty: false, beginningSequenceNumber: 0, lastEnqueuedSequenceNumber: 2 }),
    );
  });

  test('reads from the start, in two consumer groups, with all that the hub stamps', async () => {
    await using hub = await startHub({ devices: ['dev-01'] });
    await sendSome(hub, 'dev-01', 2);
    for (const group of ['$Default', 'other']) {
      await using events = await Sdk.start('events', hub);
      await events.call('open', hub.eventHubConnectionString, group);
      await events.call('subscribe', { offset: '-1' }, { metrics: group === 'other' });
      const first = await events.next('event');
      expect(first).toMatchObject({
        body: { n: 0 },
        sequenceNumber: 0,
        messageId: 'm0',
        properties: { k: 'v' },
      });
      expect(first['systemProperties']).toMatchObject({
        'iothub-connection-device-id': 'dev-01',
        'iothub-message-source': 'Telemetry',
      });
      expect(await events.next('event')).toMatchObject({ body: { n: 1 }, sequenceNumber: 1 });
      if (group === 'other') expect(first['last']).toBe(1);
    }
  });

  test('starts at an offset, a sequence number, a time, or with what comes next', async () => {
    await using hub = await startHub({ devices: ['dev-01'] });
    await sendSome(hub, 'dev-01', 5);
    const stored: Record<string, unknown>[] = [];
    {
      await using events = await Sdk.start('events', hub);
      await events.call('open', hub.eventHubConnectionString);
      await events.call('subscribe', { offset: '-1' });
      for (let i = 0; i < 5; i++) stored.push(await events.next('event'));
    }
    const third = stored[2]!;
    for (const [start, expected] of [
      [{ offset: third['offset'] }, 3],
      [{ offset: third['offset'], isInclusive: true }, 2],
      [{ sequenceNumber: 2 }, 3],
      [{ sequenceNumber: 2, isInclusive: true }, 2],
      [{ enqueuedOn: Number(third['enqueuedAt']) - 1 }, undefined],
    ] as const) {
      await using events = await Sdk.start('events', hub);
      await events.call('open', hub.eventHubConnectionString);
      await events.call('subscribe', start);
      const { sequenceNumber, enqueuedAt } = await events.next('event');
      if (expected !== undefined) expect(sequenceNumber).toBe(expected);
      else expect(enqueuedAt).toBeGreaterThanOrEqual(Number(third['enqueuedAt']));
    }
    await using events = await Sdk.start('events', hub);
    await events.call('open', hub.eventHubConnectionString);
    await events.call('subscribe', { offset: '@latest' });
    await hub.waitFor(() => partitionReaders(hub) === 4);
    await sendSome(hub, 'dev-01', 1);
    expect(await events.next('event')).toMatchObject({ sequenceNumber: 5 });
  });

  test('gives way to a reader with a higher owner level', async () => {
    await using hub = await startHub({ devices: ['dev-01'] });
    await using first = await Sdk.start('events', hub);
    await first.call('open', hub.eventHubConnectionString);
    await first.call('subscribe', { offset: '-1' }, { ownerLevel: 1, partition: '0' });
    await hub.waitFor((record) => record.of('attached').some(({ link }) => link === 'partition'));
    await using second = await Sdk.start('events', hub);
    await second.call('open', hub.eventHubConnectionString);
    await second.call('subscribe', { offset: '-1' }, { ownerLevel: 2, partition: '0' });
    expect(await first.next('failed')).toMatchObject({ code: 'ReceiverDisconnectedError' });
  });

  test('connects without TLS to a development emulator', async () => {
    await using hub = await startHub({ devices: ['dev-01'], plainPort: 5672 });
    await sendSome(hub, 'dev-01', 1);
    await using events = await Sdk.start('events', hub);
    await events.call('open', `${hub.eventHubConnectionString};UseDevelopmentEmulator=true`);
    await events.call('subscribe', { offset: '-1' });
    expect(await events.next('event')).toMatchObject({ messageId: 'm0' });
  });
});

function partitionReaders(hub: Emulator): number {
  const sessions = hub.connections.flatMap(({ sessions }) => sessions);
  return sessions.flatMap(({ links }) => links).filter(({ link }) => link === 'partition').length;
}

async function sendSome(hub: Emulator, deviceId: string, count: number): Promise<void> {
  await using client = await connectDevice(hub, deviceId);
  const sender = await openSender(await client.session(), `/devices/${deviceId}/messages/events`);
  for (let n = 0; n < count; n++) {
    const message = {
      message_id: `m${n}`,
      application_properties: { k: 'v' },
      content_type: 'application/json',
    };
    await send(sender, { ...message, body: data(JSON.stringify({ n })) });
  }
}
