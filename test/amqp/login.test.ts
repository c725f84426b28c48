import { once } from 'node:events';
import type { AddressInfo, Server } from 'node:net';
import rhea from 'rhea';
import { expect, test } from 'vitest';

import { HubLogin } from '../../src/amqp/login.js';
import { saslMechanisms } from '../../src/amqp/sasl-mechanisms.js';
import { AgentError } from '../../src/errors.js';
import { silentLog } from '../../src/log.js';
import { device, endpointOf, failure, never, startHub } from './hub.js';

interface Frame {
  direction: string;
  performative: string;
  fields: Record<string, unknown>;
}

/** What a hub says in its `open`, and what is seen of it on the way. */
async function greeted(properties: Record<string, unknown>): Promise<Frame[]> {
  const container = rhea.create_container({ id: 'hub' });
  // rhea throws what nobody listens to.
  container.on('disconnected', () => undefined);
  const server = container.listen({ host: '127.0.0.1', port: 0, properties } as never) as Server;
  await once(server, 'listening');
  const frames: Frame[] = [];
  try {
    const { port } = server.address() as AddressInfo;
    const endpoint = { host: '127.0.0.1', port, withoutTls: true };
    await using _login = await HubLogin.open(
      {
        ...{ endpoint, identity: { deviceId: device }, log: silentLog },
        onFrame: (direction, { performative, describe }) => {
          frames.push({ direction, performative, fields: describe() });
        },
      },
      never,
    );
  } finally {
    server.close();
    await once(server, 'close');
  }
  return frames;
}

test('a frame is described by the names of the specification, with every type that AMQP has', async () => {
  const { types } = rhea;
  const frames = await greeted({
    boolean: true,
    ubyte: types.wrap_ubyte(200),
    ushort: types.wrap_ushort(60_000),
    uint: types.wrap_uint(4_000_000_000),
    ulong: types.wrap_ulong(2 ** 40),
    byte: types.wrap_byte(-3),
    short: types.wrap_short(-300),
    int: types.wrap_int(-70_000),
    long: types.wrap_long(-5),
    float: types.wrap_float(1.5),
    double: types.wrap_double(0.1),
    timestamp: types.wrap_timestamp(1_763_614_800_123),
    string: 'Grüße',
    long_string: 'x'.repeat(300),
    symbol: types.wrap_symbol('amqp:sym'),
    binary: types.wrap_binary(Buffer.from([0, 255])),
    list: types.wrap_list([1, 'two', null]),
    map: types.wrap_map({ inner: 'value' }),
    array: types.wrap_array([types.wrap_symbol('a'), types.wrap_symbol('b')].map(String), 0xa3, undefined),
    nothing: null,
  });
  const open = frames.find(({ direction, performative }) => direction === 'in' && performative === 'open');
  expect(open?.fields).toMatchObject({
    'container-id': 'hub',
    properties: {
      ...{ boolean: true, ubyte: 200, ushort: 60_000, uint: 4_000_000_000, ulong: 2 ** 40 },
      ...{ byte: -3, short: -300, int: -70_000, long: -5, float: 1.5, double: 0.1 },
      ...{ timestamp: 1_763_614_800_123, string: 'Grüße', long_string: 'x'.repeat(300), symbol: 'amqp:sym' },
      ...{
        binary: '00ff',
        list: [1, 'two', null],
        map: { inner: 'value' },
        array: ['a', 'b'],
        nothing: null,
      },
    },
  });
});

test('each step of the way in is one of its own, and tells what the hub answered', async () => {
  await using hub = await startHub();
  const { deviceTokens } = await import('../../src/identity/token.js');
  const { parseDeviceConnectionString } = await import('../../src/identity/connection-string.js');
  const identity = parseDeviceConnectionString(hub.deviceConnectionString(device));
  await using login = await HubLogin.open({ endpoint: endpointOf(hub), identity, log: silentLog }, never);
  expect(login.greeting).toMatchObject({ maxFrameBytes: 65_536, idleTimeoutMs: 240_000 });
  // Nobody has been named so far.
  expect(hub.record.of('token')).toEqual([]);
  expect(await failure(login.attachTelemetry(never))).toMatchObject({
    condition: 'amqp:unauthorized-access',
  });
  expect(await login.putToken(deviceTokens(identity)!(Date.now()), never)).toEqual({
    status: 200,
    description: 'OK',
  });
  const link = await login.attachTelemetry(never);
  expect([link.maxMessageBytes, await link.credit(never)]).toEqual([1_048_576, 1000]);
  await login.attachCommands(never);
  hub.expireTokens(device);
  const error = await login.ended(never);
  expect(error).toBeInstanceOf(AgentError);
  expect(error?.condition).toBe('amqp:unauthorized-access');
});

test('the SASL mechanisms that a hub offers, in the order in which it does', async () => {
  await using hub = await startHub();
  expect(await saslMechanisms(endpointOf(hub), never)).toEqual(['ANONYMOUS', 'MSSBCBS', 'PLAIN']);
});
