import rhea from 'rhea';
import { expect, test, vi } from 'vitest';

import '../../src/no-debug.js';
import { device, startHub } from '../amqp/hub.js';
import { environmentOf, Folder, ToolProcess } from './tool.js';

const bytes = (...numbers: number[]): Buffer => Buffer.from(numbers);
const data = (body: Buffer): Buffer => {
  const head = Buffer.alloc(8);
  head.set([0x00, 0x53, 0x75, 0xb0]);
  head.writeUInt32BE(body.length, 4);
  return Buffer.concat([head, body]);
};
const withProperties = (properties: Record<string, string>): Buffer =>
  rhea.message.encode({
    application_properties: properties,
    body: rhea.message.data_section(Buffer.from('go')),
  });
const many = Object.fromEntries(Array.from({ length: 5_000 }, (_, n) => [`p${n}`, 'x']));

/** Messages as no hub should send them, and what the hub is told. */
const poisons: [what: string, message: Buffer, outcome: string][] = [
  ['rubbish', Buffer.from('ff'.repeat(100), 'hex'), 'rejected'],
  ['nothing at all', Buffer.alloc(0), 'rejected'],
  ['an empty body', data(Buffer.alloc(0)), 'accepted'],
  ['a section that is cut off', bytes(0x00, 0x53, 0x73, 0xc0, 0xff, 0x0a), 'rejected'],
  [
    'properties that claim to be four thousand million',
    bytes(0x00, 0x53, 0x74, 0xd1, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40),
    'rejected',
  ],
  [
    'an array of as many that take no place',
    bytes(0x00, 0x53, 0x77, 0xf0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40),
    'rejected',
  ],
  ['a value inside values without end', Buffer.alloc(60_000), 'rejected'],
  ['a list in place of properties', bytes(0x00, 0x53, 0x74, 0x45), 'rejected'],
  ['five thousand properties', withProperties(many), 'accepted'],
  ['properties that no environment holds', withProperties({ big: 'x'.repeat(150_000) }), 'rejected'],
  ['a NUL in a property', withProperties({ nul: 'a\0b' }), 'rejected'],
  [
    'names that mean something to JavaScript',
    withProperties({ __proto__x: '1', constructor: '2' }),
    'accepted',
  ],
  ['four times what the hub allows', data(Buffer.alloc(256_000, 'x')), 'accepted'],
];

test('commands that cannot be read are rejected, and good ones beside them handled, on one connection', async () => {
  await using hub = await startHub();
  await using folder = await Folder.make();
  const env = await environmentOf(hub, device, folder);
  const script = await folder.script('handler', 'cat >/dev/null');
  await using agent = new ToolProcess('iothub-device', ['run', '--exec', script], { env });
  await agent.says(/online/);
  const outcomeOf = (id: string) =>
    hub.record.of('outcome').find(({ messageId }) => messageId === id)?.outcome.outcome;
  const send = (messageId: string) =>
    hub.sendCommand({ deviceId: device, messageId, body: 'go', ack: 'full' });

  for (const [what, message] of poisons) {
    hub.faults.add({ at: 'delivery', link: 'commands', do: { act: 'garble', hex: message.toString('hex') } });
    send(what);
    // The next fault is for the next delivery.
    await vi.waitUntil(() => hub.record.of('delivery').some(({ messageId }) => messageId === what));
  }
  const good = Array.from({ length: 10 }, (_, n) => `good ${n}`);
  for (const messageId of good) send(messageId);
  await vi.waitUntil(() => good.every((id) => outcomeOf(id) !== undefined), { timeout: 20_000 });

  expect(good.map(outcomeOf)).toEqual(good.map(() => 'accepted'));
  await vi.waitFor(() => {
    expect(poisons.map(([what]) => [what, outcomeOf(what)])).toEqual(
      poisons.map(([what, , outcome]) => [what, outcome]),
    );
  });
  expect(hub.record.of('connected')).toHaveLength(1);
  expect(agent.exited).toBe(false);
});
