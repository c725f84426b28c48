import { createConnection } from 'node:net';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { expect, test } from 'vitest';

import { startEmulator } from '../../src/emulator/emulator.js';
import type { Emulator, Fault } from '../../src/emulator/emulator.js';
import { connect, connectDevice, happens, next, openReceiver, openSender, sas, send } from './client.js';

const events = '/devices/d/messages/events';
const commands = '/devices/d/messages/devicebound';

test('accepts TCP and says nothing, as often as asked', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  const fault = hub.faults.add({ at: 'connect', do: { act: 'say-nothing' } });
  const socket = createConnection(hub.port, '127.0.0.1');
  await once(socket, 'connect');
  socket.write('hello?');
  await using client = await connectDevice(hub, 'd');
  expect(client.connection.is_open()).toBe(true);
  expect(fault.hits).toBe(1);
  expect(socket.bytesRead).toBe(0);
  socket.destroy();
});

test('refuses a token with the status it is told', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  hub.faults.add({ at: 'put-token', do: { act: 'refuse', status: 500, description: 'not today' } });
  await using client = await connect(hub);
  const resource = `${hub.hostName}/devices/d`;
  const token = sas(resource, key(hub));
  expect(await client.putToken(token, resource)).toEqual({ status: 500, description: 'not today' });
  expect(await client.putToken(token, resource)).toMatchObject({ status: 200 });
});

test('refuses an attach with a condition', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  hub.faults.add({ at: 'attach', link: 'commands', do: { act: 'refuse', condition: 'amqp:internal-error' } });
  await using client = await connectDevice(hub, 'd');
  const session = await client.session();
  await openSender(session, events);
  await expect(openReceiver(session, commands)).rejects.toThrow('amqp:internal-error');
});

test('answers neighbours with different outcomes, each with its own', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  const on = { at: 'transfer', link: 'telemetry' } as const;
  const wanted = ['accepted', 'rejected', 'released', 'accepted', 'modified', 'accepted'] as const;
  for (const outcome of wanted) hub.faults.add({ ...on, do: { act: 'answer', outcome } });
  await using client = await connectDevice(hub, 'd');
  const sender = await openSender(await client.session(), events);
  await happens(sender, 'sendable');
  const outcomes = await Promise.all(wanted.map(async () => (await send(sender, {})).outcome));
  expect(outcomes).toEqual(wanted);
});

test('takes a message and loses its connection before it says so', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  hub.faults.add({ at: 'disposition', after: 2, do: { act: 'drop' } });
  await using client = await connectDevice(hub, 'd');
  const sender = await openSender(await client.session(), events);
  for (let i = 0; i < 2; i++) expect(await send(sender, {})).toEqual({ outcome: 'accepted' });
  void send(sender, {});
  await client.closed;
  expect(hub.record.of('telemetry')).toHaveLength(3);
});

test('never answers a transfer', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  hub.faults.add({ at: 'transfer', do: { act: 'say-nothing' } });
  await using client = await connectDevice(hub, 'd');
  const sender = await openSender(await client.session(), events);
  let answered = false;
  void send(sender, {}).then(() => (answered = true));
  expect(await send(sender, {})).toEqual({ outcome: 'accepted' });
  expect(answered).toBe(false);
  expect(hub.record.of('telemetry').map(({ outcome }) => outcome.outcome)).toEqual(['none', 'accepted']);
});

test('withholds credit until the fault is cleared', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  const fault = hub.faults.add({ at: 'credit', link: 'telemetry', do: { act: 'withhold' } });
  await using client = await connectDevice(hub, 'd');
  const sender = await openSender(await client.session(), events);
  await hub.waitFor(() => fault.hits > 0);
  expect(sender.sendable()).toBe(false);
  fault.clear();
  expect(await send(sender, {})).toEqual({ outcome: 'accepted' });
});

test('detaches the link it is told, with or without an error, and gives its commands to the next', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  hub.sendCommand({ deviceId: 'd', messageId: 'c1' });
  await using client = await connectDevice(hub, 'd');
  const session = await client.session();
  const receiver = await openReceiver(session, commands);
  await next(receiver);
  const closing = happens(receiver, 'receiver_error');
  expect(hub.faults.now({ act: 'detach', condition: 'amqp:link:detach-forced' }, { link: 'commands' })).toBe(
    1,
  );
  await closing;
  expect(receiver.error).toMatchObject({ condition: 'amqp:link:detach-forced' });
  const again = await next(await openReceiver(session, commands));
  expect(again.message.message_id).toBe('c1');
  const sender = await openSender(session, events);
  const closed = happens(sender, 'sender_close');
  hub.faults.now({ act: 'detach' }, { link: 'telemetry' });
  await closed;
  expect(sender.error ?? null).toBeNull();
});

test.for<[Fault['do'], string]>([
  [{ act: 'end', condition: 'amqp:internal-error' }, 'session_close'],
  [{ act: 'close', condition: 'amqp:connection:forced' }, 'connection_close'],
  [{ act: 'close' }, 'connection_close'],
  [{ act: 'drop' }, 'disconnected'],
])('ends by %o', async ([ending, event]) => {
  await using hub = await startEmulator({ devices: ['d'] });
  await using client = await connectDevice(hub, 'd');
  await openSender(await client.session(), events);
  const ended = happens(client.connection, event);
  hub.faults.now(ending as Parameters<Emulator['faults']['now']>[0]);
  await ended;
});

test('freezes a connection: it stays open and answers nothing', async () => {
  await using hub = await startEmulator({ devices: ['d'] });
  await using client = await connectDevice(hub, 'd');
  const session = await client.session();
  hub.faults.now({ act: 'freeze' });
  let opened = false;
  void openSender(session, events).then(() => (opened = true));
  await using other = await connectDevice(hub, 'd');
  await openSender(await other.session(), events);
  expect(opened).toBe(false);
  expect(client.connection.is_open()).toBe(true);
});

function key(hub: Emulator): string {
  return /SharedAccessKey=(.*)/.exec(hub.deviceConnectionString('d'))![1]!;
}

test('a connection that was cut off does not keep the process', () => {
  const program = `
    import { openSession, startHub } from './amqp/hub.js';
    const hub = await startHub();
    const session = await openSession(hub);
    hub.faults.now({ act: 'drop' });
    await session[Symbol.asyncDispose]();
    await hub[Symbol.asyncDispose]();
  `;
  const { status, stderr } = spawnSync(
    process.execPath,
    ['--import', './typescript.js', '--input-type=module', '-e', program],
    { cwd: join(import.meta.dirname, '..'), encoding: 'utf8', timeout: 20_000 },
  );
  expect(status, stderr).toBe(0);
});
