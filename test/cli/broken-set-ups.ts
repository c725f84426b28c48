import { once } from 'node:events';
import { createServer as createHttpServer, type Server as HttpServer } from 'node:http';
import { createServer, type AddressInfo, type Server } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';

import { makeCertificate, type NewCertificate } from '../../src/emulator/certificates.js';
import type { Emulator, EmulatorOptions } from '../../src/emulator/emulator.js';
import { device, startHub } from '../amqp/hub.js';
import { environmentOf, Folder } from './tool.js';

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

/** A hub, and what a device needs to know of it. */
export interface SetUp extends AsyncDisposable {
  hub: Emulator;
  folder: Folder;
  env: Record<string, string>;
  /** Listens as long as the hub does; the port. */
  serve: (server: Server | HttpServer) => Promise<number>;
}

export async function setUp(options: EmulatorOptions = {}): Promise<SetUp> {
  const hub = await startHub({ httpsPort: 0, ...options });
  const folder = await Folder.make();
  const servers: (Server | HttpServer)[] = [];
  return {
    hub,
    folder,
    env: { ...(await environmentOf(hub, device, folder)), IOTHUB_DEVICE_HTTPS_PORT: String(hub.httpsPort) },
    async serve(server) {
      servers.push(server);
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      return (server.address() as AddressInfo).port;
    },
    async [Symbol.asyncDispose]() {
      for (const server of servers) await closed(server);
      await hub[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

async function closed(server: Server | HttpServer): Promise<void> {
  server.close();
  if ('closeAllConnections' in server) server.closeAllConnections();
  await once(server, 'close');
}

export async function closedPort(it: SetUp): Promise<number> {
  const server = createServer();
  const port = await it.serve(server);
  server.close();
  return port;
}

/** The same device of a hub that is said to be elsewhere. */
export function movedTo(env: Record<string, string>, host: string): Record<string, string> {
  const connectionString = env['IOTHUB_DEVICE_CONNECTION_STRING']!.replace(
    /HostName=[^;]*/,
    `HostName=${host}`,
  );
  return { ...env, IOTHUB_DEVICE_CONNECTION_STRING: connectionString };
}

/** The agent would find the other way, which is not what is wanted of it here. */
const withoutWebSocket = (env: Record<string, string>) => ({ ...env, IOTHUB_DEVICE_TRANSPORT: 'amqp' });

/** A server that shows a certificate like this, signed by an authority that is trusted. */
async function certified(
  { env, folder, serve }: SetUp,
  certificate: Pick<NewCertificate, 'hostNames' | 'days'> & { now?: number },
): Promise<Record<string, string>> {
  const now = Date.now();
  const issuer = await makeCertificate({ commonName: 'Some CA', usage: 'authority', now });
  const own = await makeCertificate({ commonName: 'server', usage: 'server', now, issuer, ...certificate });
  const port = await serve(createTlsServer({ cert: own.certificate, key: own.key }));
  const ca = await folder.write('some-ca.pem', issuer.certificate);
  return { ...movedTo(env, `localhost:${String(port)}`), IOTHUB_DEVICE_CA: ca };
}

export interface Broken {
  what: string;
  /** Breaks something, and tells the environment in which it shows. */
  breaks: (it: SetUp) => Promise<Record<string, string>> | Record<string, string>;
  /** Which checks fail, and what is said about the first of them. */
  check: { fails: string[]; says: RegExp; exits: number };
  /** What `send` says on standard error; nothing where it works all the same. */
  send: { says?: RegExp; exits: number };
}

/** What is wrong in the world, each with what the commands have to say of it. */
export const brokenSetUps: Broken[] = [
  {
    what: "this machine's clock is two hours slow",
    breaks: ({ hub, env }) => {
      hub.jumpClock(2 * hourMs);
      return env;
    },
    check: { fails: ['clock', 'token'], says: /clock is 2h slow[^]*timedatectl/, exits: 78 },
    send: { says: /the SAS token expired at .*\n +the clock of this machine says .*: compare it/, exits: 77 },
  },
  {
    what: "this machine's clock is two hours fast",
    breaks: ({ hub, env }) => {
      hub.jumpClock(-2 * hourMs);
      return env;
    },
    check: { fails: ['clock'], says: /clock is 2h fast/, exits: 78 },
    send: { exits: 0 },
  },
  {
    what: 'the wrong authority is trusted',
    breaks: async ({ folder, env }) => {
      const other = await makeCertificate({ commonName: 'Other CA', usage: 'authority', now: Date.now() });
      return { ...env, IOTHUB_DEVICE_CA: await folder.write('other.pem', other.certificate) };
    },
    check: { fails: ['tls'], says: /not trusted[^]*signed by "iothub-emulator CA"[^]*--ca FILE/, exits: 76 },
    send: { says: /not trusted: .* authority that is not known here[^]*--ca FILE/, exits: 76 },
  },
  {
    what: 'the host name is that of another server',
    breaks: (it) => certified(it, { hostNames: ['hub.example.com'] }),
    check: {
      fails: ['tls'],
      says: /certificate for another name[^]*it is for hub\.example\.com[^]*HostName/,
      exits: 76,
    },
    send: { says: /certificate for another name: hub\.example\.com, not localhost[^]*HostName/, exits: 76 },
  },
  {
    what: 'the certificate has expired',
    breaks: (it) => certified(it, { hostNames: ['localhost'], now: Date.now() - 30 * dayMs, days: 10 }),
    check: {
      fails: ['tls'],
      says: /expired certificate[^]*from \d{4}-\d\d-\d\d to \d{4}-\d\d-\d\d/,
      exits: 76,
    },
    send: { says: /expired certificate: it ended .*, and the clock of this machine says/, exits: 76 },
  },
  {
    what: 'the key is wrong',
    breaks: ({ env }) => {
      const key = Buffer.alloc(32, 'wrong').toString('base64');
      const text = env['IOTHUB_DEVICE_CONNECTION_STRING']!.replace(
        /SharedAccessKey=.*/,
        `SharedAccessKey=${key}`,
      );
      return { ...env, IOTHUB_DEVICE_CONNECTION_STRING: text };
    },
    check: {
      fails: ['token'],
      says: /refused the token \(status 401\)[^]*signature[^]*the key is wrong/,
      exits: 77,
    },
    send: { says: /refused the token .*invalid signature.*\n +the key is wrong, or was renewed/, exits: 77 },
  },
  {
    what: 'the device is disabled',
    breaks: ({ hub, env }) => {
      hub.setDeviceStatus(device, 'disabled');
      return env;
    },
    check: { fails: ['token'], says: /refused the token \(status 401\): .*disabled/, exits: 77 },
    send: { says: /refused the token .*is disabled.*\n +enable the device at the hub/, exits: 77 },
  },
  {
    what: 'nothing listens on the port',
    breaks: async (it) => withoutWebSocket(movedTo(it.env, `localhost:${String(await closedPort(it))}`)),
    check: {
      fails: ['tcp'],
      says: /refused the connection \(ECONNREFUSED\)[^]*nothing listens there/,
      exits: 69,
    },
    send: { says: /refused the connection \(ECONNREFUSED\)\n +nothing listens there/, exits: 69 },
  },
  {
    what: 'a plain HTTP server is on the port',
    breaks: async ({ env, serve }) => {
      const port = await serve(createHttpServer((_request, response) => response.end('hello')));
      return movedTo(env, `localhost:${String(port)}`);
    },
    check: { fails: ['tls'], says: /does not speak TLS[^]*an HTTP server without TLS/, exits: 76 },
    send: { says: /does not speak TLS .*\n +AMQP over TLS is on port 5671/, exits: 76 },
  },
  {
    what: 'HTTPS is on the port',
    breaks: ({ hub, env }) => movedTo(env, `localhost:${String(hub.httpsPort)}`),
    check: { fails: ['amqp'], says: /AMQP over TLS on port 5671/, exits: 76 },
    send: { says: /no AMQP peer: an HTTP server answered.*\n.*port 5671/, exits: 76 },
  },
  {
    what: 'the name is unknown',
    breaks: ({ env }) => movedTo(env, 'no-such-hub.invalid'),
    check: { fails: ['dns'], says: /no-such-hub\.invalid|name servers/, exits: 68 },
    send: { says: /no-such-hub\.invalid:5671 cannot be .*\n +check HostName .*DNS/, exits: 68 },
  },
  {
    what: 'the port says nothing',
    breaks: async ({ env, serve }) => {
      // It takes what comes, and ends with the client.
      const port = await serve(createServer((socket) => socket.on('error', () => undefined).resume()));
      return withoutWebSocket(movedTo(env, `localhost:${String(port)}`));
    },
    check: { fails: ['tls'], says: /is open, and says nothing to TLS within 4s[^]*firewall/, exits: 69 },
    send: { says: /did not let us in within 3 s\n.*iothub-device check/, exits: 69 },
  },
  {
    what: 'the device is unknown',
    breaks: ({ hub, env }) => {
      hub.removeDevice(device);
      return env;
    },
    check: { fails: ['token'], says: /has no device/, exits: 77 },
    send: { says: /has no device for .*\n.*unknown/, exits: 77 },
  },
];
