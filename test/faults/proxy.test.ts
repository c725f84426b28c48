import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';

import { expect, test } from 'vitest';

import { closed, Proxy } from './proxy.js';

/** A server that says back what it hears, a proxy before it, and a client behind that. */
async function setUp() {
  const heard: Socket[] = [];
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    heard.push(socket);
    socket.on('error', () => undefined);
    socket.pipe(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const proxy = await Proxy.start((server.address() as AddressInfo).port);
  const clients: Socket[] = [];
  return {
    proxy,
    heard,
    /** Resolves when the proxy knows of it. */
    async client(): Promise<Socket> {
      const socket = connect({ port: proxy.port, host: '127.0.0.1', allowHalfOpen: true });
      clients.push(socket);
      socket.on('error', () => undefined);
      await once(socket, 'connect');
      while (proxy.accepted < clients.length) await new Promise(setImmediate);
      return socket;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of [...clients, ...heard]) socket.destroy();
      await proxy[Symbol.asyncDispose]();
      server.close();
      await once(server, 'close');
    },
  };
}

async function next(socket: Socket): Promise<string> {
  const [chunk] = (await once(socket, 'data')) as [Buffer];
  return chunk.toString();
}

test('bytes pass both ways, and the end does', async () => {
  await using it = await setUp();
  const client = await it.client();
  client.end('hello');
  expect(await text(client)).toBe('hello');
});

test('a reset is one on both sides', async () => {
  await using it = await setUp();
  const client = await it.client();
  client.write('a');
  await next(client);
  expect(it.proxy.reset()).toBe(1);
  await closed(client);
  await closed(it.heard[0]!);
  expect(it.proxy.open).toBe(0);
});

test('a half that is closed leaves the other open', async () => {
  await using it = await setUp();
  const client = await it.client();
  client.write('a');
  await next(client);
  it.proxy.halfClose('down');
  client.resume();
  await once(client, 'end');
  const heard = next(it.heard[0]!.unpipe());
  it.heard[0]!.resume();
  client.write('still heard');
  expect(await heard).toBe('still heard');
});

test('what is stalled arrives when the network is well again', async () => {
  await using it = await setUp();
  const client = await it.client();
  it.proxy.stallAfter(3, 'up');
  client.write('abcdef');
  expect(await next(client)).toBe('abc');
  const rest = next(client);
  await it.proxy.heal();
  expect(await rest).toBe('def');
});

test('a connection can be cut after any byte', async () => {
  await using it = await setUp();
  const client = await it.client();
  it.proxy.resetAfter(4, 'down');
  let got = 0;
  client.on('data', (chunk: Buffer) => (got += chunk.length));
  client.write('abcdef');
  // Not every kernel tells of the reset to who has read up to it.
  client.once('end', () => client.destroy());
  await closed(client);
  expect(got).toBeLessThanOrEqual(4);
});

test('bytes can be late, slow and in slices', async () => {
  await using it = await setUp();
  const client = await it.client();
  const pieces: number[] = [];
  it.proxy.shape({ delayMs: 50, sliceBytes: 2 });
  const startedAt = performance.now();
  client.end('abcdefgh');
  client.on('data', (chunk: Buffer) => pieces.push(chunk.length));
  await once(client, 'end');
  expect(performance.now() - startedAt).toBeGreaterThanOrEqual(99);
  expect(pieces.reduce((sum, length) => sum + length, 0)).toBe(8);
});

test('who comes can be refused, or kept waiting', async () => {
  await using it = await setUp();
  await it.proxy.door('refuse');
  const refused = connect(it.proxy.port, '127.0.0.1');
  const [error] = (await once(refused, 'error')) as [NodeJS.ErrnoException];
  expect(error.code).toBe('ECONNREFUSED');

  await it.proxy.door('mute');
  const client = await it.client();
  client.write('anyone?');
  await it.proxy.door('open');
  await closed(client);
  const other = await it.client();
  other.end('x');
  expect(await text(other)).toBe('x');
  expect(it.proxy.accepted).toBe(2);
});

test('a port that someone else has got while nobody listened is waited for', async () => {
  await using it = await setUp();
  await it.proxy.door('refuse');
  const other = createServer().listen(it.proxy.port, '127.0.0.1');
  await once(other, 'listening');
  const opened = it.proxy.door('open');
  await new Promise(setImmediate);
  other.close();
  await opened;
  const client = await it.client();
  client.write('a');
  expect(await next(client)).toBe('a');
});
