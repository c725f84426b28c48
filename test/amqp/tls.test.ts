/** Row N24 of the fault matrix: what can be wrong with TLS, each named, and not a byte of AMQP said to it. */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer as createTcpServer, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer, type TlsOptions } from 'node:tls';
import { inspect } from 'node:util';

import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';

import { openHubSession } from '../../src/amqp/session.js';
import type { Endpoint } from '../../src/amqp/socket.js';
import {
  makeCertificate,
  type CertificateAndKey,
  type NewCertificate,
} from '../../src/emulator/certificates.js';
import { AgentError } from '../../src/errors.js';
import { readClientCertificate } from '../../src/identity/certificate.js';
import { silentLog } from '../../src/log.js';
import { runTool } from '../cli/tool.js';
import { device, failure, never } from './hub.js';

const now = Date.now();
const day = 86_400_000;
const hasOpenssl = process.env['IOTHUB_TESTS_MAY_SKIP'] === 'no' || canRun('openssl', 'version');
const hasFaketime = process.env['IOTHUB_TESTS_MAY_SKIP'] === 'no' || canRun('faketime', '--version');

function canRun(...[program, ...args]: [string, ...string[]]): boolean {
  try {
    execFileSync(program, args, { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

let root: CertificateAndKey;
beforeAll(async () => {
  root = await makeCertificate({ commonName: 'Root', usage: 'authority', now });
});

const server = (more: Partial<NewCertificate> = {}): Promise<CertificateAndKey> =>
  makeCertificate({
    ...{ commonName: 'localhost', hostNames: ['localhost'], usage: 'server', issuer: root, now },
    ...more,
  });

/** A server that shows this, until the test is over; `heard` is what it was told inside of TLS. */
async function peer(options: TlsOptions): Promise<{ port: number; heard: Buffer[] }> {
  const heard: Buffer[] = [];
  const sockets = new Set<Socket>();
  const listening = createServer(options, (socket) => {
    socket.on('error', () => undefined).on('data', (chunk: Buffer) => heard.push(chunk));
  });
  listening.on('connection', (socket: Socket) => sockets.add(socket)).on('tlsClientError', () => undefined);
  listening.listen(0, '127.0.0.1');
  await once(listening, 'listening');
  onTestFinished(() => {
    listening.close();
    for (const socket of sockets) socket.destroy();
  });
  return { port: (listening.address() as AddressInfo).port, heard };
}

/** What logging in there comes to. */
async function login(port: number, more: Partial<Endpoint> = {}): Promise<AgentError> {
  const trust = { extraCa: root.certificate };
  const session = openHubSession(
    {
      endpoint: { host: 'localhost', port, trust, ...more },
      ...{ identity: { deviceId: device }, links: ['telemetry'], log: silentLog, deadlineMs: 5_000 },
    },
    never,
  );
  const error = await failure(session);
  if (!(error instanceof AgentError)) throw new Error('it let us in');
  return error;
}

const shown = ({ certificate, key }: CertificateAndKey, ...chain: CertificateAndKey[]): TlsOptions => ({
  cert: [certificate, ...chain.map((above) => above.certificate)].join('\n'),
  key,
});

describe('N24: a hub whose certificate', () => {
  const intermediate = () =>
    makeCertificate({ commonName: 'Plant 7', usage: 'authority', issuer: root, now });

  test.each<[string, () => Promise<TlsOptions>, RegExp, RegExp]>([
    [
      'has expired',
      async () => shown(await server({ now: now - 20 * day, days: 10 })),
      /shows an expired certificate: it ended \S+Z, and the clock of this machine says \S+Z \(CERT_HAS_EXPIRED\)$/,
      /clock/,
    ],
    [
      'is signed by one that has expired',
      async () => {
        const old = await makeCertificate({
          ...{ commonName: 'Plant 7', usage: 'authority', issuer: root, now: now - 20 * day, days: 10 },
        });
        return shown(await server({ issuer: old }), old);
      },
      /shows an expired certificate: one of those that signed it has ended/,
      /clock/,
    ],
    [
      'is not valid yet',
      async () => shown(await server({ now: now + 20 * day })),
      /not valid yet: it begins \S+Z, and the clock of this machine says/,
      /clock/,
    ],
    [
      'is for another name',
      async () => shown(await server({ hostNames: ['elsewhere.example', '10.0.0.1'] })),
      /shows a certificate for another name: elsewhere\.example, 10\.0\.0\.1, not localhost/,
      /HostName/,
    ],
    [
      'comes without its intermediate',
      async () => shown(await server({ issuer: await intermediate() })),
      /not trusted: its issuer "Plant 7" is neither sent along nor known here/,
      /intermediate certificate is missing/,
    ],
    [
      'leads to an unknown authority',
      async () => {
        const other = await makeCertificate({ commonName: 'Other', usage: 'authority', now });
        return shown(await server({ issuer: other }), other);
      },
      /not trusted: it leads to an authority that is not known here/,
      /--ca FILE/,
    ],
    [
      'signed itself',
      async () =>
        shown(
          await makeCertificate({ commonName: 'localhost', hostNames: ['localhost'], usage: 'server', now }),
        ),
      /not trusted: it signed itself/,
      /--ca FILE/,
    ],
  ])('%s is told why, and no AMQP', async (_title, options, message, hint) => {
    const { port, heard } = await peer(await options());
    const error = await login(port);
    expect(error).toMatchObject({ code: 'protocol', retry: 'late' });
    expect(error.message).toMatch(message);
    expect(error.hint).toMatch(hint);
    expect(heard).toEqual([]);
  });

  test.skipIf(!hasOpenssl)('is signed with SHA-1 is told why, and no AMQP', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'sha1-'));
    const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
    writeFileSync(join(folder, 'root.pem'), root.certificate);
    writeFileSync(join(folder, 'root.key'), root.key);
    writeFileSync(join(folder, 'ext'), 'subjectAltName=DNS:localhost\n');
    openssl(
      'req',
      '-new',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-keyout',
      'k',
      '-out',
      'csr',
      '-subj',
      '/CN=localhost',
    );
    openssl(
      ...['x509', '-req', '-in', 'csr', '-CA', 'root.pem', '-CAkey', 'root.key', '-CAcreateserial'],
      ...['-sha1', '-days', '9', '-extfile', 'ext', '-out', 'cert'],
    );
    const [cert, key] = ['cert', 'k'].map((name) => readFileSync(join(folder, name)));
    await rm(folder, { recursive: true });
    const { port, heard } = await peer({ cert: cert!, key: key!, ciphers: 'DEFAULT@SECLEVEL=0' });
    const error = await login(port);
    expect(error).toMatchObject({ code: 'protocol', retry: 'late' });
    expect(error.message).toMatch(
      /not trusted: ca signature digest algorithm too weak, as SHA-1 and short keys are/,
    );
    expect(heard).toEqual([]);
  });
});

describe('N24: a peer that', () => {
  test('knows no TLS after 1.1 is told why, and no AMQP', async () => {
    const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' } as const;
    const { port, heard } = await peer({ ...shown(await server()), ...old });
    expect(await login(port)).toMatchObject({
      code: 'protocol',
      retry: 'late',
      message: expect.stringContaining('speaks no TLS 1.2 or later') as string,
    });
    expect(heard).toEqual([]);
  });

  test('speaks something else is told why, and no AMQP', async () => {
    const heard: Buffer[] = [];
    const plain = createTcpServer((socket) => {
      socket.on('error', () => undefined).on('data', (chunk: Buffer) => heard.push(chunk));
      socket.end('HTTP/1.1 400 Bad Request\r\n\r\n');
    });
    plain.listen(0, '127.0.0.1');
    await once(plain, 'listening');
    onTestFinished(() => void plain.close());
    expect(await login((plain.address() as AddressInfo).port)).toMatchObject({
      code: 'protocol',
      message: expect.stringContaining('does not speak TLS') as string,
    });
    expect(Buffer.concat(heard).includes('AMQP')).toBe(false);
  });

  test.each(['TLSv1.2', 'TLSv1.3'] as const)('wants a certificate of ours says so: %s', async (version) => {
    const options = {
      requestCert: true,
      rejectUnauthorized: true,
      ca: [root.certificate],
      maxVersion: version,
    };
    const { port } = await peer({ ...shown(await server()), ...options });
    const error = await login(port);
    expect(error.hint).toMatch(/--cert FILE --key FILE/);
    expect(error.message).toMatch(/wants a certificate of this device|ended the TLS handshake/);
  });
});

test('a certificate of ours that has no business there is no secret to the log', async () => {
  const own = await makeCertificate({ commonName: device, usage: 'client', now });
  const certificate = readClientCertificate({ certificates: own.certificate, key: own.key });
  const { port } = await peer(shown(await server({ hostNames: ['elsewhere.example'] })));
  const error = await login(port, { certificate });
  expect(inspect(error, { depth: 10 })).not.toContain('PRIVATE KEY');
});

test.skipIf(!hasFaketime)('T3: a clock that stands at 1970 is named', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'clock-'));
  const { port, heard } = await peer(shown(await server()));
  const ca = join(folder, 'ca.pem');
  writeFileSync(ca, root.certificate);
  const env = {
    IOTHUB_DEVICE_CONNECTION_STRING: `HostName=localhost:${String(port)};DeviceId=${device};SharedAccessKey=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=`,
    IOTHUB_DEVICE_CA: ca,
    ...faketimeEnvironment('1970-01-01 00:01:00'),
  };
  const { code, err } = await runTool('iothub-device', ['send', '--data', 'x', '-t', 'amqp'], { env });
  expect(err).toMatch(
    /not valid yet: it begins 20\S+Z, and the clock of this machine says 1970-01-01T00:01:\S+Z: it is not set/,
  );
  expect(err).toContain("check this machine's clock");
  expect(code).toBe(76);
  expect(heard).toEqual([]);
  await rm(folder, { recursive: true });
});

/** As faketime(1) sets it for the program that it starts; timers go by the monotonic clock, which stays. */
function faketimeEnvironment(time: string): Record<string, string> {
  const preload = execFileSync('faketime', [time, 'printenv', 'LD_PRELOAD']).toString().trim();
  return {
    LD_PRELOAD: preload,
    FAKETIME: `@${time}`,
    DONT_FAKE_MONOTONIC: '1',
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
    TZ: 'UTC',
  };
}
