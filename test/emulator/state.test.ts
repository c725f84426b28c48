import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';

import { startEmulator } from '../../src/emulator/emulator.js';
import { parseSeed } from '../../src/emulator/seed.js';
import { connectDevice, connectService, data, next, openReceiver, openSender, send } from './client.js';

test('keeps the registry, twins, waiting commands and events over a restart', async () => {
  await using directory = await scratch();
  const options = { stateDirectory: directory.path, devices: ['d'] };
  let before;
  {
    await using hub = await startEmulator(options);
    hub.addDevice({ deviceId: 'd', moduleId: 'm' });
    hub.setDeviceStatus({ deviceId: 'd', moduleId: 'm' }, 'disabled');
    hub.device('d').twin.patch({ tags: { room: 'a' }, desired: { interval: 5 } }, hub.now());
    hub.sendCommand({ deviceId: 'd', messageId: 'c1', body: 'one', ack: 'full' });
    await using client = await connectDevice(hub, 'd');
    const sender = await openSender(await client.session(), '/devices/d/messages/events');
    for (const messageId of ['m1', 'm2'])
      await send(sender, { message_id: messageId, body: data(messageId) });
    before = {
      ca: hub.ca,
      device: hub.device('d'),
      connectionString: keyOf(hub.deviceConnectionString('d')),
    };
  }
  await using hub = await startEmulator(options);
  expect(hub.ca).toBe(before.ca);
  expect(keyOf(hub.deviceConnectionString('d'))).toBe(before.connectionString);
  expect(hub.device('d')).toMatchObject({
    generationId: before.device.generationId,
    etag: before.device.etag,
  });
  expect(hub.device({ deviceId: 'd', moduleId: 'm' }).status).toBe('disabled');
  expect(hub.device('d').twin.forService()).toEqual(before.device.twin.forService());
  expect(hub.device('d').twin.tags).toEqual({ room: 'a' });

  await using client = await connectDevice(hub, 'd');
  const command = await next(await openReceiver(await client.session(), '/devices/d/messages/devicebound'));
  expect(command.message).toMatchObject({
    message_id: 'c1',
    application_properties: { 'iothub-ack': 'full' },
  });
  await using service = await connectService(hub);
  const session = await service.session();
  const read: string[] = [];
  for (const partition of ['0', '1', '2', '3']) {
    const receiver = await openReceiver(
      session,
      `iothub-events/ConsumerGroups/$Default/Partitions/${partition}`,
      { credit: 0 },
    );
    receiver.on('message', ({ message }) => read.push(String(message!.message_id)));
    receiver.add_credit(10);
  }
  await expect.poll(() => read).toEqual(['m1', 'm2']);
});

test('keeps its files to itself, and starts when the last line of events was cut', async () => {
  await using directory = await scratch();
  {
    await using hub = await startEmulator({
      stateDirectory: directory.path,
      devices: ['d'],
      randomKeys: true,
    });
    await using client = await connectDevice(hub, 'd');
    await send(await openSender(await client.session(), '/devices/d/messages/events'), { message_id: 'm1' });
  }
  for (const name of ['ca.key', 'hub.key', 'hub.json', 'events.ndjson']) {
    expect((await stat(join(directory.path, name))).mode & 0o777, name).toBe(0o600);
  }
  const file = join(directory.path, 'events.ndjson');
  const lines = await readFile(file, 'utf8');
  await writeFile(file, lines + lines.slice(0, 40));
  await using hub = await startEmulator({ stateDirectory: directory.path, randomKeys: true });
  expect(await readFile(file, 'utf8')).toBe(lines);
  expect(hub.device('d')).toBeDefined();
});

test('begins with what a seed lists', async () => {
  const seed = parseSeed(
    JSON.stringify({
      devices: [
        { deviceId: 'a', tags: { room: 'x' }, desired: { n: 1 } },
        { deviceId: 'a', moduleId: 'm', status: 'disabled' },
        { deviceId: 'b', authentication: { type: 'certificateAuthority' } },
      ],
    }),
    'seed.json',
  );
  await using hub = await startEmulator({ seed });
  expect(hub.devices.map(({ deviceId, moduleId, status }) => [deviceId, moduleId, status])).toEqual([
    ['a', undefined, 'enabled'],
    ['a', 'm', 'disabled'],
    ['b', undefined, 'enabled'],
  ]);
  expect(hub.device('a').twin.desired.properties).toEqual({ n: 1 });
  expect(hub.deviceConnectionString('b')).toContain('x509=true');
});

test.for([
  ['{', 'is not JSON'],
  ['{"devices":[{"deviceId":"a b"}]}', 'devices.0.deviceId'],
  ['{"devices":[{"deviceId":"a","colour":1}]}', 'colour'],
])('names what is wrong with the seed %s', ([text, why]) => {
  expect(() => parseSeed(text!, 'seed.json')).toThrow(why);
});

function keyOf(connectionString: string): string {
  return connectionString.replace(/^HostName=[^;]*/, '');
}

async function scratch(): Promise<AsyncDisposable & { path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'emulator-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) };
}
