import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmod, readFile, readdir, stat } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { X509Certificate } from 'node:crypto';
import { describe, expect, test } from 'vitest';

import { hasOpenssl, openssl } from '../certificates/openssl.js';
import { run } from '../../src/cli/main.js';
import type { ToolName } from '../../src/cli/subcommands.js';
import { fakeIo } from './fake-io.js';
import { Folder, type Finished } from './tool.js';

interface Place extends AsyncDisposable {
  folder: Folder;
  /** `iothub-service cert …` in that folder; names of files are made absolute. */
  service: (...args: string[]) => Promise<Finished>;
  device: (...args: string[]) => Promise<Finished>;
}

async function setUp(): Promise<Place> {
  const folder = await Folder.make();
  const named = (arg: string) =>
    /^[\w.]+\.(?:pem|key|csr)$|^phrase$/.test(arg) ? join(folder.path, arg) : arg;
  // In this process: sixty of them would take their time.
  const inFolder = async (tool: ToolName, [verb = '', ...args]: string[]): Promise<Finished> => {
    const io = fakeIo();
    const takesDir =
      ['ca', 'intermediate', 'device', 'server', 'bundle'].includes(verb) && !args.includes('--dir');
    const dir = takesDir ? ['--dir', folder.path] : [];
    const code = await run(tool, ['cert', verb, ...args.map(named), ...dir], io);
    return {
      code,
      out: io.out.replaceAll(`${folder.path}/`, ''),
      err: io.err.replaceAll(`${folder.path}/`, ''),
    };
  };
  return {
    folder,
    service: (...args) => inFolder('iothub-service', args),
    device: (...args) => inFolder('iothub-device', args),
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}

function json(out: string): Record<string, string> {
  return JSON.parse(out) as Record<string, string>;
}

async function modes(folder: string): Promise<Record<string, string>> {
  const names = (await readdir(folder)).sort();
  const entries = names.map(async (name) => [
    name,
    ((await stat(join(folder, name))).mode & 0o777).toString(8),
  ]);
  return Object.fromEntries(await Promise.all(entries)) as Record<string, string>;
}

test('an authority, an intermediate and a device: keys are private, chains lead to the root, nothing is overwritten unasked', async () => {
  await using it = await setUp();
  const dir = join(it.folder.path, 'certs');
  expect(await it.service('ca', '--name', 'Acme Root', '--dir', dir)).toMatchObject({ code: 0, err: '' });
  expect(await it.service('intermediate', '--name', 'Acme Line 1', '--dir', dir)).toMatchObject({ code: 0 });
  const issued = await it.service('device', 'dev1', '--dir', dir, '--days', '60');
  expect(json(issued.out)).toMatchObject({
    subject: 'CN=dev1',
    issuer: 'CN=Acme Line 1',
    key: 'certs/dev1.key',
  });
  expect(await modes(it.folder.path)).toEqual({ certs: '700' });
  expect(await modes(dir)).toEqual({
    ...{ 'ca.key': '600', 'ca.pem': '644', 'intermediate.key': '600', 'intermediate.pem': '644' },
    ...{ 'dev1.key': '600', 'dev1.pem': '644' },
  });
  const verified = await it.service(
    'verify',
    join(dir, 'dev1.pem'),
    '--ca',
    join(dir, 'ca.pem'),
    '--key',
    join(dir, 'dev1.key'),
    '--device',
    'dev1',
  );
  expect(json(verified.out)).toMatchObject({ level: 'ok' });
  if (hasOpenssl) {
    const [ca, pem] = [join(dir, 'ca.pem'), join(dir, 'dev1.pem')];
    expect(
      openssl(['verify', '-x509_strict', '-purpose', 'sslclient', '-CAfile', ca, '-untrusted', pem, pem])
        .text,
    ).toMatch(/: OK\n$/);
  }

  const before = await readFile(join(dir, 'dev1.key'), 'utf8');
  const again = await it.service('device', 'dev1', '--dir', dir);
  expect([again.code, again.err]).toEqual([
    73,
    expect.stringMatching(/dev1\.key is there already\n.*--force/),
  ]);
  expect(await readFile(join(dir, 'dev1.key'), 'utf8')).toBe(before);
  await chmod(join(dir, 'dev1.key'), 0o644);
  expect(await it.service('device', 'dev1', '--dir', dir, '--force')).toMatchObject({ code: 0 });
  expect(await readFile(join(dir, 'dev1.key'), 'utf8')).not.toBe(before);
  expect((await modes(dir))['dev1.key']).toBe('600');
});

test('what may not sign does not: no authority, no further authority below pathlen:0, a key of another, an expired one', async () => {
  await using it = await setUp();
  expect(await it.service('device', 'dev1')).toMatchObject({
    code: 66,
    err: expect.stringMatching(/cert ca --name/) as string,
  });
  await it.service('ca', '--name', 'Root', '--rsa');
  await it.service('intermediate', '--name', 'Line');
  const below = await it.service(
    'intermediate',
    '--name',
    'Below',
    '--issuer',
    'intermediate',
    '--as',
    'below',
  );
  expect([below.code, below.err]).toEqual([
    65,
    expect.stringMatching(/intermediate\.pem may sign no further authority \(pathlen:0\)/),
  ]);
  await it.service('device', 'dev1');
  expect(await it.service('device', 'dev2', '--issuer', 'dev1')).toMatchObject({
    code: 65,
    err: expect.stringMatching(/dev1\.pem is no authority/) as string,
  });
  await it.folder.write('ca.key', await readFile(join(it.folder.path, 'dev1.key')));
  expect(await it.service('device', 'dev2', '--issuer', 'ca')).toMatchObject({
    code: 65,
    err: expect.stringMatching(/ca\.key is not the key of ca\.pem/) as string,
  });
});

test('nothing outlives what it stands on', async () => {
  await using it = await setUp();
  const root = json((await it.service('ca', '--name', 'Root', '--days', '10')).out);
  const { out, err } = await it.service('device', 'dev1', '--days', '365');
  expect([json(out)['expires'], err]).toEqual([root['expires'], 'it ends with ca.pem, which signed it\n']);
});

test('keys with a passphrase: made, used to sign, put into a PFX', async () => {
  await using it = await setUp();
  const phrase = await it.folder.write('phrase', 'correct horse\nand a second line\n');
  await it.service('ca', '--name', 'Root', '--passphrase-file', phrase);
  expect(await readFile(join(it.folder.path, 'ca.key'), 'utf8')).toMatch(/ENCRYPTED/);
  expect(await it.service('device', 'dev1')).toMatchObject({
    code: 78,
    err: expect.stringMatching(/ca\.key: the key is encrypted/) as string,
  });
  expect(
    await it.service('device', 'dev1', '--issuer-passphrase-file', phrase, '--passphrase-file', phrase),
  ).toMatchObject({ code: 0 });
  expect(
    await it.service('bundle', 'dev1', '--format', 'pfx', '--key-passphrase-file', phrase),
  ).toMatchObject({ code: 64 });
  const options = ['--key-passphrase-file', phrase, '--passphrase-file', phrase];
  const { out } = await it.service('bundle', 'dev1', '--format', 'pfx', ...options);
  expect(json(out)).toEqual({ file: 'dev1.pfx' });
  await it.service('bundle', 'dev1', ...options);
  await it.service('bundle', 'dev1', '--format', 'der', '--key-passphrase-file', phrase);
  expect(await modes(it.folder.path)).toMatchObject({
    'dev1.pfx': '600',
    'dev1.bundle.pem': '600',
    'dev1.key.der': '600',
    'dev1.der': '644',
  });
  if (!hasOpenssl) return;
  const read = (...args: string[]) => openssl([...args]).ok;
  const file = (name: string) => join(it.folder.path, name);
  expect(read('pkcs12', '-in', file('dev1.pfx'), '-passin', 'pass:correct horse', '-noout')).toBe(true);
  expect(read('pkey', '-in', file('dev1.bundle.pem'), '-passin', 'pass:correct horse', '-noout')).toBe(true);
  expect(read('pkey', '-inform', 'der', '-in', file('dev1.key.der'), '-noout')).toBe(true);
  expect(read('x509', '-inform', 'der', '-in', file('dev1.der'), '-noout')).toBe(true);
});

test('the key never leaves the device: it makes a request, the authority signs that for this device alone', async () => {
  await using it = await setUp();
  await it.service('ca', '--name', 'Root');
  const csr = await it.device('csr', 'dev1', '--key', 'own.key');
  expect([csr.code, csr.err]).toEqual([0, '']);
  await it.folder.write('dev1.csr', csr.out);
  const key = await readFile(join(it.folder.path, 'own.key'), 'utf8');
  expect((await modes(it.folder.path))['own.key']).toBe('600');
  expect(await it.service('device', 'dev2', '--csr', 'dev1.csr')).toMatchObject({
    code: 65,
    err: expect.stringMatching(/is for "dev1", not for "dev2"/) as string,
  });
  expect(json((await it.service('device', 'dev1', '--csr', 'dev1.csr')).out)).not.toHaveProperty('key');
  expect(
    (await it.service('verify', 'dev1.pem', '--ca', 'ca.pem', '--key', 'own.key', '--device', 'dev1')).code,
  ).toBe(0);
  // The next one is for the same key.
  await it.device('csr', 'dev1', '--key', 'own.key', '--out', 'next.csr');
  expect(await readFile(join(it.folder.path, 'own.key'), 'utf8')).toBe(key);
  expect(await it.device('csr', 'dev1', '--key', 'own.key', '--out', 'next.csr')).toMatchObject({ code: 73 });
});

test('a server has its names; a module of a device its own; a device may sign for itself', async () => {
  await using it = await setUp();
  await it.service('ca', '--name', 'Root');
  await it.service('server', 'hub.local', '--san', 'DNS:hub,IP:127.0.0.1,::1');
  const server = new X509Certificate(await readFile(join(it.folder.path, 'hub.local.pem')));
  expect(server.subjectAltName).toBe(
    'DNS:hub.local, DNS:hub, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1',
  );
  expect((await it.service('verify', 'hub.local.pem', '--ca', 'ca.pem', '--host', '127.0.0.1')).code).toBe(0);
  expect((await it.service('verify', 'hub.local.pem', '--ca', 'ca.pem', '--host', 'else.local')).code).toBe(
    65,
  );
  const module = json((await it.service('device', 'dev1', '--module', 'm1')).out);
  expect(module).toMatchObject({ subject: 'CN=dev1/m1', certificate: 'dev1_m1.pem' });
  const own = json((await it.service('device', 'dev2', '--self-signed', '--rsa', '3072')).out);
  expect(own).toMatchObject({ subject: 'CN=dev2', issuer: 'CN=dev2' });
  const sha256 = await it.service('thumbprint', 'dev2.pem', '--sha256');
  expect(sha256.out).toBe(`${own['sha256']!}\n`);
  expect(json((await it.service('thumbprint', 'dev2.pem')).out)).toEqual({
    sha1: own['sha1'],
    sha256: own['sha256'],
  });
});

test('verify names file, line and what is wrong', async () => {
  await using it = await setUp();
  await it.service('ca', '--name', 'Root');
  await it.service('device', 'dev1');
  const lines = (await readFile(join(it.folder.path, 'dev1.pem'), 'utf8')).split('\n');
  await it.folder.write('rogue.pem', lines.toSpliced(4, 0, '').join('\n'));
  const rogue = await it.service('verify', 'rogue.pem', '--ca', 'ca.pem', '-o', 'text');
  expect([rogue.code, rogue.out]).toEqual([
    65,
    'rogue.pem:5: wrong: a blank line inside of the CERTIFICATE\n',
  ]);
  const later = await it.service(
    'verify',
    'dev1.pem',
    '--ca',
    'ca.pem',
    '--at',
    '2099-01-01T00:00:00Z',
    '-o',
    'text',
  );
  expect([later.code, later.out]).toEqual([
    65,
    expect.stringMatching(/^dev1\.pem:1: wrong: CN=dev1 has expired/),
  ]);
  expect(await it.service('thumbprint', 'rogue.pem')).toMatchObject({
    code: 65,
    err: expect.stringMatching(/rogue\.pem:5: a blank line/) as string,
  });
  expect(await it.service('verify', 'nothing.pem')).toMatchObject({ code: 66 });
});

test('show prints what is in it; expires exits by how near the end is', async () => {
  await using it = await setUp();
  await it.service('ca', '--name', 'Root');
  await it.service('intermediate', '--name', 'Line', '--days', '20');
  await it.service('device', 'dev1', '--days', '100');
  const shown = (await it.device('show', 'dev1.pem')).out.trimEnd().split('\n').map(json);
  expect(shown).toMatchObject([
    { subject: 'CN=dev1', issuer: 'CN=Line', key: 'ec prime256v1', for: 'client' },
    { subject: 'CN=Line', authority: 'pathlen:0' },
  ]);
  // The intermediate ends first, and with it what it signed.
  expect(await it.device('expires', 'dev1.pem', '--warn', '30d', '-o', 'text')).toMatchObject({
    code: 75,
    out: expect.stringMatching(/expires in 19d/) as string,
  });
  expect(await it.device('expires', 'dev1.pem', '--warn', '10d')).toMatchObject({ code: 0 });
  expect(await it.device('expires')).toMatchObject({ code: 64 });
});

const hasMosquitto = ['mosquitto', 'mosquitto_pub', 'mosquitto_sub'].every(
  (name) => spawnSync(name, ['--help']).error === undefined,
);

describe.skipIf(!hasMosquitto)('mosquitto', () => {
  test.for(['ec', 'rsa'])(
    'takes a server certificate and device certificates (%s), and refuses those of others',
    async (kind) => {
      await using it = await setUp();
      const rsa = kind === 'rsa' ? ['--rsa'] : [];
      await it.service('ca', '--name', 'Root', ...rsa);
      await it.service('intermediate', '--name', 'Line', ...rsa);
      await it.service('server', 'localhost', ...rsa);
      await it.service('device', 'dev1', ...rsa);
      await it.service('device', 'stranger', '--self-signed', ...rsa);
      const port = await freePort();
      const settings = [
        'allow_anonymous true',
        'user root',
        `listener ${port} 127.0.0.1`,
        'require_certificate true',
        'cafile ca.pem',
        'certfile localhost.pem',
        'keyfile localhost.key',
        'use_identity_as_username true',
      ];
      await it.folder.write('mosquitto.conf', `${settings.join('\n')}\n`);
      const broker = spawn('mosquitto', ['-c', 'mosquitto.conf'], {
        cwd: it.folder.path,
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      try {
        await running(broker.stderr);
        const client = (device: string) => [
          '-h',
          'localhost',
          '-p',
          String(port),
          '--cafile',
          'ca.pem',
          '--cert',
          `${device}.pem`,
          '--key',
          `${device}.key`,
          '-t',
          't',
          '-q',
          '1',
        ];
        const use = (program: string, ...args: string[]) =>
          spawnSync(program, args, { cwd: it.folder.path, timeout: 10_000, encoding: 'utf8' });
        expect(use('mosquitto_pub', ...client('dev1'), '-m', 'hello', '-r')).toMatchObject({
          status: 0,
          stderr: '',
        });
        expect(use('mosquitto_sub', ...client('dev1'), '-C', '1', '-W', '5')).toMatchObject({
          status: 0,
          stdout: 'hello\n',
        });
        expect(use('mosquitto_pub', ...client('stranger'), '-m', 'no').status).not.toBe(0);
      } finally {
        broker.kill();
        await once(broker, 'close');
      }
    },
  );
});

/** Mosquitto wants to be told a port. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

async function running(log: NodeJS.ReadableStream): Promise<void> {
  let text = '';
  for await (const chunk of log) {
    text += String(chunk);
    if (/mosquitto version \S+ running/.test(text)) break;
    if (text.includes('Error')) throw new Error(text);
  }
}
