import { fork } from 'node:child_process';
import { once } from 'node:events';
import rhea from 'rhea';
import type { EventContext } from 'rhea';
import { expect, test } from 'vitest';

import { startEmulator } from '../../src/emulator/emulator.js';
import type { Emulator } from '../../src/emulator/emulator.js';
import {
  connectDevice,
  connectService,
  connectWith,
  data,
  happens,
  openReceiver,
  openSender,
  sas,
} from './client.js';
import type { Client } from './client.js';

test(
  '200 devices send 20 000 messages, and each consumer group reads every one in order',
  { timeout: 120_000 },
  async () => {
    const ids = Array.from({ length: 200 }, (_, i) => `dev-${i}`);
    await using hub = await startEmulator({ devices: ids });
    const clients = new Map<string, Client>();
    // Twenty handshakes at a time: this process does both ends of each.
    for (let i = 0; i < ids.length; i += 20) {
      const some = ids.slice(i, i + 20);
      await Promise.all(some.map(async (id) => clients.set(id, await connectDevice(hub, id))));
    }
    expect(hub.connections).toHaveLength(200);
    await Promise.all([...clients].map(([id, client]) => sendHundred(client, id)));
    await Promise.all([...clients.values()].map((client) => client[Symbol.asyncDispose]()));
    expect(hub.record.of('telemetry')).toHaveLength(20_000);
    for (const group of ['$Default', 'second']) {
      const read = await readAll(hub, group, 20_000);
      expect(read.size).toBe(200);
      for (const [id, numbers] of read) {
        expect(numbers, `${id} in ${group}`).toEqual(Array.from({ length: 100 }, (_, n) => n));
      }
    }
  },
);

test('1 000 connections come and go without a trace', { timeout: 120_000 }, async () => {
  const child = fork(new URL('../fixtures/emulator-process.js', import.meta.url), { execArgv: [] });
  const [hub] = (await once(child, 'message')) as [{ port: number; ca: string; key: string }];
  const resource = `localhost:${hub.port}/devices/d`;
  const cycle = async (): Promise<void> => {
    await using client = await connectWith({ port: hub.port, ca: hub.ca });
    await client.putToken(sas(resource, hub.key), resource);
    const session = await client.session();
    await openSender(session, '/devices/d/messages/events');
    await openReceiver(session, '/devices/d/messages/devicebound');
  };
  for (let i = 0; i < 500; i++) await cycle();
  const before = await measured(child);
  for (let i = 0; i < 500; i++) await cycle();
  const after = await measured(child);
  child.disconnect();
  expect(after.connections).toBe(0);
  expect(Math.abs(after.descriptors - before.descriptors)).toBeLessThanOrEqual(2);
  expect(Math.abs(after.heap - before.heap)).toBeLessThan(5_000_000);
});

async function sendHundred(client: Client, id: string): Promise<void> {
  const sender = await openSender(await client.session(), `/devices/${id}/messages/events`);
  if (!sender.sendable()) await happens(sender, 'sendable');
  let accepted = 0;
  const all = new Promise<void>((resolve) => {
    sender.on('accepted', () => {
      if (++accepted === 100) resolve();
    });
  });
  for (let n = 0; n < 100; n++) sender.send({ message_id: `${id}/${n}`, body: data(String(n)) });
  await all;
}

/** What each device sent, by number, as one consumer group reads it from the start. */
async function readAll(hub: Emulator, group: string, count: number): Promise<Map<string, number[]>> {
  await using service = await connectService(hub);
  const session = await service.session();
  const read = new Map<string, number[]>();
  let total = 0;
  await new Promise<void>((resolve) => {
    const take = ({ message, delivery, receiver }: EventContext): void => {
      const id = String(message!.message_annotations!['iothub-connection-device-id']);
      const number = Number((message!.body as { content: Buffer }).content.toString());
      read.set(id, [...(read.get(id) ?? []), number]);
      delivery!.accept();
      receiver!.add_credit(1);
      if (++total === count) resolve();
    };
    for (const partition of ['0', '1', '2', '3']) {
      const address = `iothub-events/ConsumerGroups/${group}/Partitions/${partition}`;
      const receiver = session.open_receiver({ source: { address, filter: fromStart } });
      receiver.on('message', take);
      receiver.add_credit(300);
    }
  });
  return read;
}

const fromStart = {
  'apache.org:selector-filter:string': rhea.types.wrap_described(
    "amqp.annotation.x-opt-offset > '-1'",
    0x468c00000004,
  ),
};

interface Measure {
  descriptors: number;
  heap: number;
  connections: number;
}

/** Asked until the last connection is gone: its end takes a moment to arrive. */
async function measured(child: ReturnType<typeof fork>): Promise<Measure> {
  for (;;) {
    child.send('measure');
    const [measure] = (await once(child, 'message')) as [Measure];
    if (measure.connections === 0) return measure;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
