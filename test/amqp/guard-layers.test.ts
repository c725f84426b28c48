import { once } from 'node:events';
import { connect as connectTcp, createServer, type AddressInfo } from 'node:net';
import { connect as connectTls } from 'node:tls';

import rhea, { type EventContext } from 'rhea';
import { describe, expect, test } from 'vitest';

import { guard } from '../../src/amqp/guard.js';
import { startEmulator } from '../../src/emulator/emulator.js';
import * as wire from './guard-frames.js';
import { answers, clientOf, limits, startClient, startHub } from './guard-peer.js';

/** The SASL layer of a server that takes everybody. */
const mechanisms = wire.frame(wire.described(0x40, wire.list(wire.symbol('ANONYMOUS'))), { type: 1 });
const outcome = (code: number) =>
  wire.frame(wire.described(0x44, wire.list(Buffer.from([0x50, code]))), { type: 1 });

/** A server that says all of `bytes` at once, as soon as it hears anything. */
async function startServer(...bytes: Buffer[]) {
  const server = createServer((socket) => {
    socket.on('error', () => undefined).once('data', () => socket.write(Buffer.concat(bytes)));
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      server.close();
      await Promise.resolve();
    },
  };
}

function startSaslClient(port: number) {
  return startClient(port, {}, { username: 'anybody' });
}

describe('SASL', () => {
  test('and what follows it pass, even when all comes at once', async () => {
    await using server = await startServer(
      wire.saslHeader,
      mechanisms,
      outcome(0),
      wire.amqpHeader,
      wire.open(),
    );
    await using client = startSaslClient(server.port);
    await once(client.connection, 'connection_open');
  });

  test('of a real server passes', async () => {
    const container = rhea.create_container({ id: 'server' });
    (container.sasl_server_mechanisms as { enable_anonymous: () => void }).enable_anonymous();
    const server = container.listen({ port: 0, host: '127.0.0.1' });
    await once(server, 'listening');
    await using client = startSaslClient((server.address() as AddressInfo).port);
    await once(client.connection, 'connection_open');
    client.connection.close();
    await once(client.connection, 'connection_close');
    server.close();
  });

  test.each([
    ['is missing', [wire.amqpHeader], /it offers no SASL/],
    [
      'has its outcome first',
      [wire.saslHeader, outcome(0)],
      /sasl-outcome on channel 0: it came before sasl-mechanisms/,
    ],
    [
      'offers its mechanisms twice',
      [wire.saslHeader, mechanisms, mechanisms],
      /sasl-mechanisms on channel 0: it came before/,
    ],
    [
      'sends what a client sends',
      [wire.saslHeader, wire.frame(wire.described(0x41, wire.list(wire.symbol('PLAIN'))), { type: 1 })],
      /only a client sends it/,
    ],
    [
      'goes on with AMQP frames',
      [wire.saslHeader, mechanisms, wire.open()],
      /it is of another layer than the connection/,
    ],
  ])('is refused when it %s', async (_, bytes, says) => {
    await using server = await startServer(...bytes);
    await using client = startSaslClient(server.port);
    expect(await client.ended).toMatchObject({
      code: 'protocol',
      message: expect.stringMatching(says) as string,
    });
  });
});

test('a heartbeat of 2^32-1 ms, which timers would fire every millisecond, becomes the longest that they take', async () => {
  await using hub = await startHub(({ socket }) => {
    const started = answers();
    const open = wire.open(wire.nul, wire.nul, wire.nul, wire.uint(0xffffffff));
    socket.write(Buffer.concat([wire.amqpHeader, open, started.subarray(8 + wire.open().length)]));
  });
  await using client = startClient(hub.port);
  const [context] = (await once(client.connection, 'connection_open')) as [EventContext];
  expect(context.connection.idle_time_out).toBe(0x7fffffff);
});

test('ordinary traffic passes over TLS', async () => {
  await using hub = await startEmulator({ devices: ['dev-01'] });
  const socket = connectTls({ host: 'localhost', port: hub.port, ca: hub.ca });
  const guarded = guard(socket, limits);
  await using client = clientOf(guarded, (connected) => socket.once('secureConnect', connected));
  await once(client.connection, 'connection_open');
  expect(guarded.encrypted).toBe(true);
  expect(guarded.authorized).toBe(true);
  expect(guarded.remotePort).toBe(hub.port);
  expect(client.connection.get_peer_certificate()).toMatchObject({
    subject: { CN: expect.any(String) as string },
  });
});

test('an error of the socket is handed on as it is', async () => {
  const socket = connectTcp(1, '127.0.0.1');
  const [error] = (await once(guard(socket, limits), 'error')) as [NodeJS.ErrnoException];
  expect(error.code).toBe('ECONNREFUSED');
});
