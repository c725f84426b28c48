import rhea from 'rhea';
import type { EventContext } from 'rhea';
import { expect, test } from 'vitest';

import { startEmulator } from '../../src/emulator/emulator.js';
import {
  acceptUnsettled,
  connectDevice,
  connectService,
  data,
  happens,
  next,
  openReceiver,
  openSender,
  send,
} from './client.js';

const events = '/devices/d/messages/events';
const commands = '/devices/d/messages/devicebound';

test.for([
  '/devices/d/messages/events',
  'amqps://localhost:5671/devices/d/messages/events',
  'amqps://localhost/DEVICES/d/Messages/Events',
])('takes telemetry at %s', async (address) => {
  await using hub = await startEmulator({ devices: ['d'] });
  await using client = await connectDevice(hub, 'd');
  expect(await send(await openSender(await client.session(), address), {})).toEqual({ outcome: 'accepted' });
});

test('finds an id that is percent-encoded in the address, and one that is not', async () => {
  await using hub = await startEmulator({ devices: ['a%b#c'] });
  await using client = await connectDevice(hub, 'a%b#c');
  const session = await client.session();
  await openSender(session, '/devices/a%25b%23c/messages/events');
  await openSender(session, '/devices/a%b#c/messages/events');
});

test('keeps an id of any AMQP type', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  await using client = await connectDevice(hub, 'd');
  const sender = await openSender(await client.session(), events);
  const uuid = rhea.string_to_uuid('00112233-4455-6677-8899-aabbccddeeff');
  for (const id of ['text', 7, uuid]) await send(sender, { message_id: id });
  expect(hub.record.of('telemetry').map(({ messageId }) => messageId)).toEqual([
    'text',
    '7',
    '00112233-4455-6677-8899-aabbccddeeff',
  ]);
});

test('takes a batch as one transfer, and answers it once', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  await using client = await connectDevice(hub, 'd');
  const sender = await openSender(await client.session(), events);
  const inner = ['m1', 'm2'].map((message_id) =>
    rhea.message.encode({ message_id, application_properties: { k: message_id }, body: data('x') }),
  );
  const batch = rhea.message.encode({ body: rhea.message.data_sections(inner) });
  const accepted = happens(sender, 'accepted');
  sender.send(batch, undefined, 0x80013700);
  await accepted;
  expect(hub.record.of('telemetry').map(({ messageId, properties }) => [messageId, properties])).toEqual([
    ['m1', { k: 'm1' }],
    ['m2', { k: 'm2' }],
  ]);
});

test('rejects more than 256 KB, and closes the link above 1 MB', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  await using client = await connectDevice(hub, 'd');
  const sender = await openSender(await client.session(), events);
  expect(sender.max_message_size).toBe(1_048_576);
  const ofSize = (bytes: number) => ({ body: rhea.message.data_section(Buffer.alloc(bytes)) as unknown });
  expect(await send(sender, ofSize(256 * 1024))).toEqual({ outcome: 'accepted' });
  expect(await send(sender, ofSize(256 * 1024 + 1))).toEqual({
    outcome: 'rejected',
    condition: 'amqp:link:message-size-exceeded',
  });
  const closed = happens(sender, 'sender_error');
  sender.send(ofSize(1024 * 1024 + 1));
  await closed;
  expect(sender.error).toMatchObject({ condition: 'amqp:link:message-size-exceeded' });
});

test('answers a client in settle mode second with a disposition of its own', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  await using client = await connectDevice(hub, 'd');
  for (const messageId of ['c1', 'c2']) hub.sendCommand({ deviceId: 'd', messageId });
  const receiver = await openReceiver(await client.session(), commands, { credit: 0, rcv_settle_mode: 1 });
  receiver.add_credit(1);
  const first = await next(receiver);
  const settled = happens(receiver, 'settled');
  acceptUnsettled(first.delivery);
  expect((await settled).delivery?.remote_state).toBeDefined();
  expect(hub.queueDepth('d')).toBe(1);

  receiver.add_credit(1);
  const second = await next(receiver);
  hub.jumpClock(60_000);
  const lost = happens(receiver, 'settled');
  acceptUnsettled(second.delivery);
  const answer = (await lost).delivery!;
  expect(JSON.stringify(answer.remote_state)).toContain('com.microsoft:message-lock-lost');
  expect(hub.record.of('outcome').map(({ lockLost }) => lockLost)).toEqual([false, true]);
  expect(hub.queueDepth('d')).toBe(1);
});

test('tells a device of a command all that IoT Hub tells', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  await using client = await connectDevice(hub, 'd');
  hub.sendCommand({
    deviceId: 'd',
    messageId: 'c1',
    correlationId: 'r1',
    ack: 'full',
    properties: { k: 'v' },
  });
  const { message, delivery } = await next(await openReceiver(await client.session(), commands));
  expect(message).toMatchObject({
    message_id: 'c1',
    correlation_id: 'r1',
    to: '/devices/d/messages/devicebound',
    application_properties: { k: 'v', 'iothub-ack': 'full' },
  });
  const annotations = message.message_annotations!;
  const tag = Buffer.from(delivery.tag as Buffer);
  tag.subarray(0, 4).reverse();
  tag.subarray(4, 6).reverse();
  tag.subarray(6, 8).reverse();
  expect(String(annotations['x-opt-lock-token']).replaceAll('-', '')).toBe(tag.toString('hex'));
  expect(annotations).toMatchObject({ 'x-opt-sequence-number': 1, 'iothub-deliverycount': 0 });
  expect(annotations['iothub-enqueuedtime']).toBeInstanceOf(Date);
});

test('rejects commands that cannot be delivered, each for its reason', async () => {
  await using hub = await startEmulator({ devices: ['d', 'full'] });
  for (let i = 0; i < 50; i++) hub.sendCommand({ deviceId: 'full' });
  await using service = await connectService(hub);
  const sender = await openSender(await service.session(), '/messages/devicebound');
  const to = commands;
  for (const [message, condition] of [
    [{ to: '/devices/none/messages/devicebound' }, 'amqp:not-found'],
    [{ to: '/devices/full/messages/devicebound' }, 'amqp:resource-limit-exceeded'],
    [{ to: '/nowhere' }, 'com.microsoft:argument-error'],
    [{ to, absolute_expiry_time: Date.now() - 1 }, 'com.microsoft:argument-error'],
    [{ to, body: rhea.message.data_section(Buffer.alloc(65_537)) }, 'amqp:link:message-size-exceeded'],
  ] as const) {
    expect(await send(sender, message)).toEqual({ outcome: 'rejected', condition });
  }
});

test('gives feedback for each end that a command can come to', async () => {
  await using hub = await startEmulator({ devices: ['d'], feedbackBatchMs: 1 });
  await using client = await connectDevice(hub, 'd');
  hub.sendCommand({ deviceId: 'd', messageId: 'ten', ack: 'negative' });
  const receiver = await openReceiver(await client.session(), commands, { credit: 10 });
  receiver.on('message', ({ message, delivery }: EventContext) => {
    if (message!.message_id === 'ten') delivery!.release();
    if (message!.message_id === 'no') delivery!.reject();
    if (message!.message_id === 'yes') delivery!.accept();
  });
  await hub.waitFor((record) => record.of('dead-letter').length === 1);
  receiver.add_credit(10);
  for (const messageId of ['no', 'yes']) hub.sendCommand({ deviceId: 'd', messageId, ack: 'full' });
  await hub.waitFor((record) => record.of('outcome').some(({ messageId }) => messageId === 'yes'));
  receiver.close();
  await hub.waitFor((record) => record.of('detached').some(({ link }) => link === 'commands'));
  hub.sendCommand({ deviceId: 'd', messageId: 'late', ack: 'full', expiresAt: hub.now() + 1000 });
  hub.jumpClock(1000);
  await hub.waitFor((record) => record.of('dead-letter').length === 3);
  hub.sendCommand({ deviceId: 'd', messageId: 'gone', ack: 'full' });
  hub.device('d').mailbox.purge();
  const reports = await hub.waitFor((record) => {
    const all = record.of('feedback').flatMap(({ records }) => records);
    return all.length === 5 && all;
  });
  expect(reports.map(({ originalMessageId, statusCode }) => [originalMessageId, statusCode])).toEqual([
    ['ten', 'DeliveryCountExceeded'],
    ['no', 'Rejected'],
    ['yes', 'Success'],
    ['late', 'Expired'],
    ['gone', 'Purged'],
  ]);
});

test('shows which session holds which links', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  await using client = await connectDevice(hub, 'd');
  const session = await client.session();
  await openSender(session, events);
  await openReceiver(session, commands);
  const [connection] = hub.connections;
  expect(connection).toMatchObject({ tokens: 1, transport: 'tls' });
  expect(
    connection!.sessions.map(({ links }) => links.map(({ link, direction }) => `${link} ${direction}`)),
  ).toEqual([
    ['cbs out', 'cbs in'],
    ['telemetry out', 'commands in'],
  ]);
});

test('answers an attach before it sends, even when credit came with the attach', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  for (let i = 0; i < 5; i++) hub.sendCommand({ deviceId: 'd', messageId: `c${i}` });
  await using client = await connectDevice(hub, 'd');
  const receiver = (await client.session()).open_receiver({ source: { address: commands } });
  receiver.add_credit(10);
  expect((await next(receiver)).message.message_id).toBe('c0');
});

test('redirects readers of its own events to the Event Hubs endpoint', async () => {
  await using hub = await startEmulator();
  await using service = await connectService(hub);
  const receiver = (await service.session()).open_receiver(
    'messages/events/ConsumerGroups/$Default/Partitions/0',
  );
  await happens(receiver, 'receiver_error');
  const { condition, info } = receiver.error as { condition: string; info: Record<string, unknown> };
  expect(condition).toBe('amqp:link:redirect');
  expect(info).toMatchObject({
    hostname: 'localhost',
    port: hub.port,
    address: `amqps://localhost:${hub.port}/iothub-events/ConsumerGroups/$Default/Partitions/0`,
  });
});
