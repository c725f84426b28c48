import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { createServer, type AddressInfo, type Server } from 'node:net';

import { describe, expect, onTestFinished, test } from 'vitest';

import { EitherWay } from '../../src/amqp/either-way.js';
import type { HttpProxy } from '../../src/amqp/proxy.js';
import type { Endpoint } from '../../src/amqp/socket.js';
import { openWebSocket } from '../../src/amqp/websocket.js';
import { makeCertificate } from '../../src/emulator/certificates.js';
import type { Emulator } from '../../src/emulator/emulator.js';
import { silentLog } from '../../src/log.js';
import { Secret } from '../../src/secret.js';
import {
  device,
  encode,
  endpointOf,
  failure,
  message,
  never,
  openSession,
  reasonOf,
  startHub,
} from './hub.js';
import { HttpConnectProxy, type ProxyOptions } from './http-proxy.js';

const startHubWithWebSocket = () => startHub({ httpsPort: 0 });

function webSocketOf(hub: Emulator, proxy?: HttpProxy): Endpoint {
  return { ...endpointOf(hub), webSocket: { port: hub.httpsPort!, proxy } };
}

function proxyAt({ port }: { port: number }, login?: string): HttpProxy {
  const authorization = login && new Secret(`Basic ${Buffer.from(login).toString('base64')}`);
  return { host: 'localhost', port, tls: false, ...(authorization && { authorization }) };
}

/** What opening a session by this way comes to. */
async function outcomeOf(hub: Emulator, endpoint: Endpoint): Promise<unknown> {
  const error = await failure(
    openSession(hub, { endpoint }).then(async (session) => {
      await session[Symbol.asyncDispose]();
    }),
  );
  return error ?? 'online';
}

test('a session goes inside of a WebSocket as it goes over TLS: telemetry, commands, one session for both', async () => {
  await using hub = await startHubWithWebSocket();
  await using session = await openSession(hub, { endpoint: webSocketOf(hub) });
  expect(hub.connections).toMatchObject([{ transport: 'websocket', tokens: 1 }]);
  expect(await session.telemetry.send(encode(message()))).toEqual({ outcome: 'accepted' });

  const delivered = new Promise((resolve) => {
    session.commands.onCommand(({ command, settle }) => {
      settle({ outcome: 'reject', reason: 'no' });
      resolve(command.body.toString());
    });
  });
  session.commands.grant(1);
  const body = 'x'.repeat(60_000);
  hub.sendCommand({ deviceId: device, body });
  expect(await delivered).toBe(body);
  await hub.waitFor((record) => record.of('outcome').some(({ outcome }) => outcome.outcome === 'rejected'));
});

test('the connection closes from either side, and nothing is left of it', async () => {
  await using hub = await startHubWithWebSocket();
  const session = await openSession(hub, { endpoint: webSocketOf(hub) });
  await session[Symbol.asyncDispose]();
  await hub.waitFor(() => hub.connections.length === 0);

  await using next = await openSession(hub, { endpoint: webSocketOf(hub) });
  hub.faults.now({ act: 'drop' });
  await reasonOf(next.over);
  expect(next.over.reason).toMatchObject({ code: 'unavailable', retry: 'soon' });
});

test('what is written waits for a hub that does not read', async () => {
  const ca = await makeCertificate({ commonName: 'CA', usage: 'authority', now: Date.now() });
  const port = await serveTls(ca, (server) => {
    server.on('upgrade', (request, socket) => {
      void import('node:crypto').then(({ createHash }) => {
        const key = `${request.headers['sec-websocket-key'] ?? ''}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`;
        const accept = createHash('sha1').update(key).digest('base64');
        const lines = ['101 Switching Protocols', 'Upgrade: websocket', 'Connection: Upgrade'];
        socket.write(
          `HTTP/1.1 ${lines.join('\r\n')}\r\nSec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Protocol: AMQPWSB10\r\n\r\n`,
        );
        socket.pause();
        onTestFinished(() => void socket.destroy());
      });
    });
  });
  const trust = { extraCa: ca.certificate };
  const stream = await openWebSocket({ host: 'localhost', port, trust }, { port }, never);
  const chunk = Buffer.alloc(64 * 1024);
  let written = 0;
  while (written < 64 * 1024 * 1024 && !stream.writableNeedDrain) {
    stream.write(chunk);
    written += chunk.length;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  expect(stream.writableNeedDrain).toBe(true);
  expect(stream.writableLength).toBeLessThanOrEqual(2 * chunk.length);
  stream.destroy();
});

async function serveTls(
  ca: { certificate: string; key: string },
  set: (server: ReturnType<typeof createHttpsServer>) => void,
): Promise<number> {
  const own = await makeCertificate({
    commonName: 'localhost',
    hostNames: ['localhost'],
    usage: 'server',
    issuer: ca,
    now: Date.now(),
  });
  const server = createHttpsServer({ cert: own.certificate, key: own.key });
  set(server);
  return listening(server);
}

/** Listens until the test is over. */
async function listening(server: Server): Promise<number> {
  const sockets = new Set<{ destroy(): void }>();
  server.on('connection', (socket: { destroy(): void }) => sockets.add(socket));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return (server.address() as AddressInfo).port;
}

describe('what is no hub is named', () => {
  const html = '<html><body>Welcome! Please log in to the guest network.</body></html>';

  test.each([
    [
      200,
      'protocol',
      /answered with HTTP 200 OK with text\/html instead of opening a WebSocket/,
      /log-in page/,
    ],
    [302, 'protocol', /answered with HTTP 302 Found/, /log-in page/],
    [404, 'protocol', /answered with HTTP 404 Not Found/, /check HostName/],
    [403, 'refused', /answered with HTTP 403 Forbidden/, /IP filter/],
    [503, 'unavailable', /answered with HTTP 503/, /busy/],
  ])('a page instead of a WebSocket: %i', async (status, code, message, hint) => {
    await using hub = await startHub();
    const ca = await makeCertificate({ commonName: 'CA', usage: 'authority', now: Date.now() });
    const port = await serveTls(ca, (server) => {
      server.on('request', (_request, response) => {
        response
          .writeHead(status, { 'content-type': 'text/html; charset=utf-8', location: '/login' })
          .end(html);
      });
    });
    const trust = { extraCa: ca.certificate };
    expect(await outcomeOf(hub, { host: 'localhost', port: 1, trust, webSocket: { port } })).toMatchObject({
      code,
      message: expect.stringMatching(message) as string,
      hint: expect.stringMatching(hint) as string,
    });
  });

  test('a page without TLS', async () => {
    await using hub = await startHub();
    const port = await listening(createHttpServer((_request, response) => response.end(html)));
    expect(await outcomeOf(hub, { ...endpointOf(hub), webSocket: { port } })).toMatchObject({
      code: 'protocol',
      message: expect.stringContaining('does not speak TLS') as string,
    });
  });

  test('another certificate, before a word of HTTP or AMQP', async () => {
    await using hub = await startHub();
    const ca = await makeCertificate({ commonName: 'CA', usage: 'authority', now: Date.now() });
    let requests = 0;
    const port = await serveTls(ca, (server) => server.on('request', () => requests++));
    expect(await outcomeOf(hub, { ...endpointOf(hub), webSocket: { port } })).toMatchObject({
      code: 'protocol',
      message: expect.stringContaining('is not trusted') as string,
    });
    expect(requests).toBe(0);
  });
});

describe('through an HTTP proxy', () => {
  test.each([
    ['that anyone may use', {}, undefined],
    ['with a user name and a password', { user: 'plant 7', password: 'p@ss:word' }, 'plant 7:p@ss:word'],
  ])('%s', async (_what, options, login) => {
    await using hub = await startHubWithWebSocket();
    await using proxy = await HttpConnectProxy.start(options);
    await using session = await openSession(hub, { endpoint: webSocketOf(hub, proxyAt(proxy, login)) });
    expect(await session.telemetry.send(encode(message()))).toEqual({ outcome: 'accepted' });
    expect(proxy.asked).toEqual([`localhost:${String(hub.httpsPort)}`]);
  });

  test('that is spoken to with TLS, and has to be trusted like any other', async () => {
    const ca = await makeCertificate({ commonName: 'CA', usage: 'authority', now: Date.now() });
    const { certificate: cert, key } = await makeCertificate({
      ...{ commonName: 'localhost', hostNames: ['localhost'], usage: 'server', issuer: ca, now: Date.now() },
    });
    await using hub = await startHubWithWebSocket();
    await using proxy = await HttpConnectProxy.start({ tls: { cert, key } });
    const endpoint = webSocketOf(hub, { ...proxyAt(proxy), tls: true });
    expect(await outcomeOf(hub, endpoint)).toMatchObject({
      code: 'protocol',
      message: expect.stringMatching(
        /^the proxy localhost:\d+ shows a certificate that is not trusted/,
      ) as string,
    });
    const trust = { extraCa: `${hub.ca}${ca.certificate}` };
    expect(await outcomeOf(hub, { ...endpoint, trust })).toBe('online');
    expect(proxy.asked).toHaveLength(1);
  });

  const forbidden = '403 Forbidden';
  const ntlm =
    '407 Proxy Authentication Required\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Negotiate';
  interface Named {
    code: string;
    retry?: string;
    message: RegExp;
    hint?: RegExp;
  }
  test.each<[string, ProxyOptions, string | undefined, Named]>([
    [
      'that wants a password and gets none',
      { user: 'u', password: 'p' },
      undefined,
      { code: 'refused', message: /wants a user name and a password \(407/, hint: /HTTPS_PROXY/ },
    ],
    [
      'that wants another password',
      { user: 'u', password: 'p' },
      'u:wrong',
      { code: 'refused', message: /refused the user name or the password \(407/, hint: /percent-encode/ },
    ],
    [
      'that wants a log-in that only Windows has',
      { answer: ntlm },
      'u:p',
      { code: 'refused', message: /\(407/, hint: /asks for NTLM, Negotiate, and only Basic/ },
    ],
    [
      'that does not allow it',
      { answer: forbidden },
      undefined,
      {
        code: 'refused',
        message: /does not allow a connection to localhost:\d+ \(403 Forbidden\)/,
        hint: /allow CONNECT/,
      },
    ],
    [
      'that cannot reach the hub',
      { answer: '502 Bad Gateway' },
      undefined,
      { code: 'unavailable', retry: 'soon', message: /cannot reach localhost:\d+ \(502 Bad Gateway\)/ },
    ],
    [
      'that is a web server',
      { answer: '400 Bad Request' },
      undefined,
      { code: 'protocol', message: /does not take CONNECT \(400 Bad Request\)/, hint: /web server/ },
    ],
    [
      'that answers with a page of its own',
      { says: '<html>Welcome to the hotel</html>' },
      undefined,
      { code: 'protocol', message: /does not speak TLS/ },
    ],
  ])('%s is named', async (_what, options, login, { message, hint, ...rest }) => {
    await using hub = await startHubWithWebSocket();
    await using proxy = await HttpConnectProxy.start(options);
    expect(await outcomeOf(hub, webSocketOf(hub, proxyAt(proxy, login)))).toMatchObject({
      ...rest,
      message: expect.stringMatching(message) as string,
      ...(hint !== undefined && { hint: expect.stringMatching(hint) as string }),
    });
    expect(hub.record.of('connected')).toHaveLength(0);
  });

  test('that is not there, or drops what comes, is named', async () => {
    await using hub = await startHubWithWebSocket();
    const dropping = await listening(createServer((socket) => void socket.resetAndDestroy()));
    expect(await outcomeOf(hub, webSocketOf(hub, proxyAt({ port: 1 })))).toMatchObject({
      code: 'unavailable',
      message: 'the proxy localhost:1 refused the connection (ECONNREFUSED)',
    });
    expect(await outcomeOf(hub, webSocketOf(hub, proxyAt({ port: dropping })))).toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining('dropped the connection') as string,
    });
  });
});

describe('by either way', () => {
  const blocked = async () => listening(createServer((socket) => void socket.resume()));
  const said = () => {
    const lines: unknown[] = [];
    return { lines, log: { ...silentLog, warn: (...line: unknown[]) => void lines.push(line) } };
  };

  test('AMQP on its own port is preferred', async () => {
    await using hub = await startHubWithWebSocket();
    const { lines, log } = said();
    const eitherWay = new EitherWay({ webSocket: { port: hub.httpsPort! }, log });
    await using _session = await openSession(hub, { endpoint: { ...endpointOf(hub), eitherWay } });
    expect(hub.connections.map(({ transport }) => transport)).toEqual(['tls']);
    expect(lines).toEqual([]);
  });

  test.each([
    ['drops everything', blocked],
    ['refuses', () => Promise.resolve(1)],
    ['resets', async () => listening(createServer((socket) => void socket.resetAndDestroy()))],
  ])('a firewall that %s is gone around, which is said once; then the way is known', async (_what, wall) => {
    await using hub = await startHubWithWebSocket();
    const { lines, log } = said();
    const port = await wall();
    const eitherWay = new EitherWay({ webSocket: { port: hub.httpsPort! }, log, patienceMs: 200 });
    const endpoint = { ...endpointOf(hub), port, eitherWay };
    for (let n = 1; n <= 3; n++) expect(await outcomeOf(hub, endpoint)).toBe('online');
    expect(hub.record.of('connected').map(({ transport }) => transport)).toEqual(Array(3).fill('websocket'));
    expect(lines).toMatchObject(
      [
        [
          /own port; it goes inside of a WebSocket/,
          { host: 'localhost', blocked: port, port: hub.httpsPort },
        ],
      ].map(([text, facts]) => [expect.stringMatching(text as RegExp) as string, facts]),
    );
  });

  test('what answers and is not trusted is not gone around', async () => {
    await using hub = await startHubWithWebSocket();
    const ca = await makeCertificate({ commonName: 'CA', usage: 'authority', now: Date.now() });
    const port = await serveTls(ca, () => undefined);
    const eitherWay = new EitherWay({ webSocket: { port: hub.httpsPort! }, log: silentLog });
    expect(await outcomeOf(hub, { ...endpointOf(hub), port, eitherWay })).toMatchObject({
      message: expect.stringContaining('is not trusted') as string,
    });
    expect(hub.record.of('connected')).toHaveLength(0);
  });

  test('where neither leads there, both are named, and the one that says more comes first', async () => {
    await using hub = await startHubWithWebSocket();
    await using proxy = await HttpConnectProxy.start({ answer: '403 Forbidden' });
    const nobody = new EitherWay({ webSocket: { port: 2 }, log: silentLog });
    expect(await outcomeOf(hub, { ...endpointOf(hub), port: 1, eitherWay: nobody })).toMatchObject({
      code: 'unavailable',
      message: 'localhost:1 refused the connection (ECONNREFUSED)',
      hint: expect.stringContaining('and over WebSocket on port 2: localhost:2 refused') as string,
    });
    const webSocket = { port: hub.httpsPort!, proxy: proxyAt(proxy) };
    const refused = new EitherWay({ webSocket, log: silentLog });
    expect(await outcomeOf(hub, { ...endpointOf(hub), port: 1, eitherWay: refused })).toMatchObject({
      code: 'refused',
      message: expect.stringContaining('does not allow') as string,
      hint: expect.stringContaining('and on port 1: localhost:1 refused the connection') as string,
    });
  });
});
