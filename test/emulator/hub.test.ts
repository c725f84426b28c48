import { expect, test } from 'vitest';

import { startEmulator } from '../../src/emulator/emulator.js';
import {
  bodyText,
  connect,
  connectDevice,
  connectService,
  data,
  next,
  openReceiver,
  openSender,
  sas,
  send,
} from './client.js';

test('starts in well under a second and takes telemetry', async () => {
  const begin = performance.now();
  await using emulator = await startEmulator({ devices: ['dev-01'] });
  expect(performance.now() - begin).toBeLessThan(1000);
  await using client = await connectDevice(emulator, 'dev-01');
  const sender = await openSender(await client.session(), '/devices/dev-01/messages/events');
  expect(
    await send(sender, { message_id: 'm1', application_properties: { room: 'a' }, body: data('{"t":21.5}') }),
  ).toEqual({ outcome: 'accepted' });
  const [event] = emulator.record.of('telemetry');
  expect(event).toMatchObject({
    deviceId: 'dev-01',
    messageId: 'm1',
    properties: { room: 'a' },
    outcome: { outcome: 'accepted' },
  });
  expect(event!.body.toString()).toBe('{"t":21.5}');
});

test('refuses a token with a wrong signature', async () => {
  await using emulator = await startEmulator({ devices: ['dev-01'] });
  await using client = await connect(emulator);
  const resource = `${emulator.hostName}/devices/dev-01`;
  const { status, description } = await client.putToken(sas(resource, 'AAAA'), resource);
  expect(status).toBe(401);
  expect(description).toContain('invalid signature');
  const session = await client.session();
  await expect(openSender(session, '/devices/dev-01/messages/events')).rejects.toThrow(
    'amqp:unauthorized-access',
  );
});

test('delivers a command, and tells its sender what the device decided', async () => {
  await using emulator = await startEmulator({ devices: ['dev-01'] });
  await using service = await connectService(emulator);
  const session = await service.session();
  const sender = await openSender(session, '/messages/devicebound');
  const feedback = await openReceiver(session, '/messages/serviceBound/feedback');
  const told = next(feedback);
  const command = {
    to: '/devices/dev-01/messages/devicebound',
    message_id: 'c1',
    application_properties: { 'iothub-ack': 'full' },
    body: data('go'),
  };
  expect(await send(sender, command)).toEqual({ outcome: 'accepted' });
  await using device = await connectDevice(emulator, 'dev-01');
  const receiver = await openReceiver(await device.session(), '/devices/dev-01/messages/devicebound', {
    credit: 0,
  });
  const first = next(receiver);
  receiver.add_credit(1);
  const { message, delivery } = await first;
  expect(message.message_id).toBe('c1');
  expect((delivery.tag as Buffer).length).toBe(16);
  delivery.accept();
  const { message: report } = await told;
  expect(JSON.parse(bodyText(report))).toMatchObject([{ originalMessageId: 'c1', statusCode: 'Success' }]);
});

test('closes a connection that has gone quiet, as the hub does', async () => {
  await using emulator = await startEmulator({ idleTimeoutMs: 400 });
  await using client = await connect(emulator);
  // rhea sends heartbeats by itself, so it is kept from writing.
  Object.assign(client.connection, { socket_ready: false });
  await client.closed;
  expect(client.connection.error).toMatchObject({ condition: 'amqp:connection:forced' });
});
