import { createPrivateKey, X509Certificate } from 'node:crypto';
import { chmod } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { makeCertificate, type CertificateAndKey } from '../../src/emulator/certificates.js';
import { startHub } from '../amqp/hub.js';
import { Folder, runTool, ToolProcess } from './tool.js';

const now = Date.now();

/** A hub that trusts an authority for its devices, and a folder with certificates of it. */
async function setUp() {
  const root = await makeCertificate({ commonName: 'Root', usage: 'authority', now });
  const plant = await makeCertificate({ commonName: 'Plant', usage: 'authority', issuer: root, now });
  const hub = await startHub({ deviceAuthorities: [root.certificate] });
  const folder = await Folder.make();
  const env = {
    IOTHUB_DEVICE_CA: await folder.write('hub-ca.pem', hub.ca),
    XDG_STATE_HOME: join(folder.path, 'state'),
  };
  return {
    ...{ hub, folder, env, root, plant },
    make: (commonName: string, issuer?: CertificateAndKey) =>
      makeCertificate({ commonName, usage: 'client', now, ...(issuer && { issuer }) }),
    send: (args: readonly string[], more: Record<string, string> = {}) =>
      runTool('iothub-device', ['send', '--data', 'x', '-o', 'json', ...args], { env: { ...env, ...more } }),
    async [Symbol.asyncDispose]() {
      await hub[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

const thumbprintOf = (pem: string): string => new X509Certificate(pem).fingerprint256.replaceAll(':', '');

test('a device that the hub knows by thumbprint logs in with it: no $cbs, no SASL, one session for both links', async () => {
  await using it = await setUp();
  const own = await it.make('anything');
  const thumbprint = thumbprintOf(own.certificate);
  it.hub.addDevice('by-hand', {
    type: 'selfSigned',
    primaryThumbprint: thumbprint,
    secondaryThumbprint: thumbprint,
  });
  const cert = await it.folder.write('dev.pem', own.certificate);
  const key = await it.folder.write('dev.key', own.key);
  const { code, err } = await it.send(['--cert', cert, '--key', key], {
    IOTHUB_DEVICE_CONNECTION_STRING: it.hub.deviceConnectionString('by-hand'),
  });
  expect([code, err]).toEqual([0, '']);
  expect(it.hub.record.of('telemetry')).toMatchObject([{ deviceId: 'by-hand' }]);
  expect(it.hub.record.of('attached').map(({ link }) => link)).toEqual(['telemetry']);
});

test('one whose chain leads to an authority needs a host and an id, and no connection string', async () => {
  await using it = await setUp();
  it.hub.addDevice('dev1', { type: 'certificateAuthority' });
  const own = await it.make('dev1', it.plant);
  // The wrong way round, and in one file with the key.
  const bundle = await it.folder.write(
    'bundle.pem',
    `${it.plant.certificate}\n${own.key}\n${own.certificate}`,
  );
  const who = ['--host', it.hub.hostName, '--device-id', 'dev1', '--cert', bundle];
  expect(await it.send(who)).toMatchObject({ code: 0, err: '' });

  const alone = await it.folder.write('alone.pem', `${own.certificate}${own.key}`);
  const refused = await it.send([...who.slice(0, -1), alone]);
  expect(refused.code).toBe(77);
  expect(refused.err).toContain('the hub refused the credentials (amqp:unauthorized-access)');
  expect(refused.err).toContain(thumbprintOf(own.certificate));
  expect(refused.err).toContain('the common name has to be "dev1"; this is CN=dev1');
});

test('a module has a certificate of its own', async () => {
  await using it = await setUp();
  it.hub.addDevice('dev1', { type: 'certificateAuthority' });
  it.hub.addDevice({ deviceId: 'dev1', moduleId: 'sensor' }, { type: 'certificateAuthority' });
  const own = await it.make('dev1/sensor', it.root);
  const bundle = await it.folder.write('module.pem', own.certificate + own.key);
  const { code, err } = await it.send([], {
    IOTHUB_DEVICE_HOST: it.hub.hostName,
    IOTHUB_DEVICE_DEVICE_ID: 'dev1',
    IOTHUB_DEVICE_MODULE_ID: 'sensor',
    IOTHUB_DEVICE_CERT: bundle,
  });
  expect([code, err]).toEqual([0, '']);
  expect(it.hub.record.of('telemetry')).toMatchObject([{ deviceId: 'dev1', moduleId: 'sensor' }]);
});

test('an encrypted key is opened by its passphrase, and files of keys are kept from others', async () => {
  await using it = await setUp();
  it.hub.addDevice('dev1', { type: 'certificateAuthority' });
  const own = await it.make('dev1', it.root);
  const encrypted = createPrivateKey(own.key)
    .export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'over the hills' })
    .toString();
  const cert = await it.folder.write('dev.pem', own.certificate, 0o644);
  const key = await it.folder.write('dev.key', encrypted);
  const passphrase = await it.folder.write('phrase', 'over the hills\n');
  const config = await it.folder.write(
    'agent.toml',
    `[hub]\nhost = "${it.hub.hostName}"\ndevice_id = "dev1"\n` +
      `x509 = { cert = "dev.pem", key = "dev.key", passphrase = { file = "phrase" } }\n`,
  );
  expect(await it.send(['--config', config])).toMatchObject({ code: 0, err: '' });

  const flags = ['--host', it.hub.hostName, '--device-id', 'dev1', '--cert', cert, '--key', key];
  expect(await it.send([...flags, '--key-passphrase-file', passphrase])).toMatchObject({ code: 0 });
  const without = await it.send(flags);
  expect(without.code).toBe(78);
  expect(without.err).toContain(`${cert} and ${key}: the key is encrypted, and no passphrase is given`);

  for (const [open, name] of [
    [key, 'dev.key'],
    [passphrase, 'phrase'],
  ] as const) {
    await chmod(open, 0o644);
    const refused = await it.send(['--config', config]);
    expect(refused.code).toBe(78);
    expect(refused.err).toMatch(
      new RegExp(`${name} holds a key, and its permissions are open to others \\(644\\)`),
    );
    expect(await it.send(['--config', config, '--insecure-permissions'])).toMatchObject({ code: 0 });
    await chmod(open, 0o600);
  }
});

test('what contradicts itself is refused before anything is opened', async () => {
  await using it = await setUp();
  const own = await it.make('dev-01');
  const cert = await it.folder.write('dev.pem', own.certificate + own.key);
  const withKey = { IOTHUB_DEVICE_CONNECTION_STRING: it.hub.deviceConnectionString('dev-01') };
  const x509 = { IOTHUB_DEVICE_CONNECTION_STRING: `HostName=${it.hub.hostName};DeviceId=dev-01;x509=true` };
  const said = async (args: string[], more?: Record<string, string>): Promise<[number | null, string]> => {
    const { code, err } = await it.send(args, more);
    return [code, err.split('\n')[0]!];
  };
  expect(await said(['--cert', cert], withKey)).toEqual([
    78,
    'error: a certificate is given, and the connection string has SharedAccessKey: it is one or the other',
  ]);
  expect(await said([], x509)).toEqual([
    78,
    'error: the device has a certificate (x509=true), and nobody says where it is',
  ]);
  expect(await said(['--key', cert], x509)).toEqual([
    64,
    'error: --key and --key-passphrase-file need --cert',
  ]);
  expect(await said(['--host', 'h.example'])).toEqual([64, 'error: --host and --device-id need each other']);
  expect(await said(['--host', 'h.example', '--device-id', 'd'], x509)).toEqual([
    64,
    'error: a connection string and --host or --device-id both say who the device is',
  ]);
  expect(it.hub.record.of('connected')).toHaveLength(0);
});

test('a certificate that ends soon works, with a word about it', async () => {
  await using it = await setUp();
  it.hub.addDevice('dev1', { type: 'certificateAuthority' });
  const own = await makeCertificate({ commonName: 'dev1', usage: 'client', issuer: it.root, now, days: 10 });
  const cert = await it.folder.write('dev.pem', own.certificate + own.key);
  const { code, err } = await it.send(['--host', it.hub.hostName, '--device-id', 'dev1', '--cert', cert]);
  expect(code).toBe(0);
  expect(err).toMatch(/the certificate expires soon; renew it subject="CN=dev1" .*within=9d23h/);
});

test('an agent connects anew before its certificate ends, when there is another on disk; status says until when', async () => {
  await using it = await setUp();
  it.hub.addDevice('dev1', { type: 'certificateAuthority' });
  // It began a hundred seconds ago and has ten more.
  const dayMs = 86_400_000;
  const old = await makeCertificate({
    commonName: 'dev1',
    usage: 'client',
    issuer: it.root,
    now: Date.now() + dayMs - 100_000,
    days: (110_000 - dayMs) / dayMs,
  });
  const cert = await it.folder.write('dev.pem', old.certificate + old.key);
  const env = {
    ...it.env,
    XDG_RUNTIME_DIR: it.folder.path,
    IOTHUB_DEVICE_HOST: it.hub.hostName,
    IOTHUB_DEVICE_DEVICE_ID: 'dev1',
    IOTHUB_DEVICE_CERT: cert,
  };
  await using agent = new ToolProcess('iothub-device', ['run', '--exec', 'true'], { env });
  await agent.says(/the certificate expires soon; renew it/);
  await agent.says(/online/);
  const renewed = await makeCertificate({
    commonName: 'dev1',
    usage: 'client',
    issuer: it.root,
    now: Date.now(),
  });
  await it.folder.write('dev.pem', renewed.certificate + renewed.key);
  await agent.says(/there is a new certificate[^]*online/);
  expect(agent.err).toContain('connecting anew, with the renewed certificate');
  const status = await runTool('iothub-device', ['status', '-o', 'json'], { env });
  expect(JSON.parse(status.out)).toMatchObject({
    state: 'online',
    certificateExpiresAt: new Date(new X509Certificate(renewed.certificate).validTo).toISOString(),
  });
  const text = await runTool('iothub-device', ['status', '-o', 'text', '--utc'], { env });
  expect(text.out).toMatch(/^credential {2}a certificate, until /m);
  agent.kill('SIGTERM');
  expect((await agent.ended()).code).toBe(0);
});
