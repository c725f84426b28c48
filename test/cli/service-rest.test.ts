import { expect, test } from 'vitest';

import { device, openSession, startHub } from '../amqp/hub.js';
import { environmentOf, Folder, runTool, ToolProcess } from './tool.js';

async function setUp() {
  const hub = await startHub({ httpsPort: 0 });
  const folder = await Folder.make();
  const env: Record<string, string> = {
    ...(await environmentOf(hub, device, folder)),
    IOTHUB_SERVICE_HTTPS_PORT: String(hub.httpsPort),
    IOTHUB_SERVICE_OUTPUT: 'json',
  };
  return {
    hub,
    env,
    folder,
    run: (...args: string[]) => runTool('iothub-service', args, { env, cwd: folder.path }),
    async [Symbol.asyncDispose]() {
      await hub[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

function json(out: string): Record<string, unknown> {
  return JSON.parse(out) as Record<string, unknown>;
}

test('device add, show, connection-string: the device can connect with what is printed', async () => {
  await using it = await setUp();
  const added = await it.run('device', 'add', 'new#1');
  expect(added.err).toBe('');
  expect(json(added.out)).toMatchObject({
    deviceId: 'new#1',
    status: 'enabled',
    authentication: { type: 'sas', symmetricKey: '[secret]' },
  });
  const { out } = await it.run('device', 'connection-string', 'new#1', '-o', 'text');
  await using session = await openSession(it.hub, { connectionString: out.trim(), links: ['telemetry'] });
  expect(session.over.aborted).toBe(false);
  const again = await it.run('device', 'add', 'new#1');
  expect(again).toMatchObject({ code: 65 });
  expect(again.err).toMatch(/DeviceAlreadyExists/);
});

test('device set, list and rm', async () => {
  await using it = await setUp();
  for (const id of ['boiler-1', 'boiler-2', 'pump']) it.hub.addDevice(id);
  const set = await it.run('device', 'set', 'pump', '--disable', '--reason', 'stolen');
  expect(json(set.out)).toMatchObject({ status: 'disabled', statusReason: 'stolen' });
  expect(it.hub.device('pump').status).toBe('disabled');
  await it.run('device', 'set', 'boiler-1', '--x509-thumbprint', 'aa:'.repeat(19) + 'aa');
  expect(it.hub.device('boiler-1').authentication).toMatchObject({
    type: 'selfSigned',
    primaryThumbprint: 'AA'.repeat(20),
  });
  const listed = await it.run('device', 'list', 'boiler-*', '-o', 'text');
  expect(listed.out).toMatch(/^boiler-1 +enabled +Disconnected +selfSigned +0\nboiler-2 .*\n$/);
  expect((await it.run('device', 'list', '--where', "status = 'disabled'")).out).toMatch(
    /^\{"deviceId":"pump".*\}\n$/,
  );
  expect(await it.run('device', 'rm', 'boiler-1', 'boiler-2')).toMatchObject({ code: 0, out: '' });
  expect(await it.run('device', 'show', 'boiler-1')).toMatchObject({ code: 67 });
  expect(await it.run('device', 'set', 'pump')).toMatchObject({ code: 64 });
});

test('a list has all the pages of the hub', async () => {
  await using it = await setUp();
  for (let n = 0; n < 250; n++) it.hub.addDevice(`d${String(n)}`);
  const { out } = await it.run('device', 'list', 'd*');
  const ids = out
    .trimEnd()
    .split('\n')
    .map((line) => json(line)['deviceId']);
  expect(new Set(ids)).toEqual(new Set([device, ...Array.from({ length: 250 }, (_, n) => `d${String(n)}`)]));
});

test('modules have identities of their own', async () => {
  await using it = await setUp();
  await it.run('device', 'add', device, '--module', 'm1');
  const { out } = await it.run('device', 'connection-string', device, '--module', 'm1', '-o', 'text');
  expect(out.trim()).toBe(it.hub.deviceConnectionString(device, 'm1'));
  expect(await it.run('device', 'rm', device, '--module', 'm1')).toMatchObject({ code: 0 });
  expect(await it.run('device', 'show', device, '--module', 'm1')).toMatchObject({ code: 67 });
});

test('twin set merges, deletes and replaces; tag leaves what is desired; an old etag is told', async () => {
  await using it = await setUp();
  const set = await it.run('twin', 'set', device, 'interval=5', 'fan.speed=3');
  expect(json(set.out)).toMatchObject({ properties: { desired: { interval: 5, fan: { speed: 3 } } } });
  await it.run('twin', 'tag', device, '{"site":"north","floor":2}');
  await it.run('twin', 'tag', device, '--null', 'floor');
  const replaced = await it.run('twin', 'set', device, '{"mode":"eco"}', '--replace');
  const twin = json(replaced.out) as { etag: string; tags: object; properties: { desired: object } };
  expect(twin).toMatchObject({ tags: { site: 'north' }, properties: { desired: { mode: 'eco' } } });
  expect(twin.tags).toEqual({ site: 'north' });
  expect(twin.properties.desired).not.toHaveProperty('interval');
  expect((await it.run('twin', 'get', device, '--path', 'properties.desired.mode', '-o', 'text')).out).toBe(
    'eco\n',
  );
  expect(await it.run('twin', 'set', device, 'a=1', '--etag', 'old')).toMatchObject({ code: 75 });
  expect(await it.run('twin', 'set', device, '{')).toMatchObject({ code: 65 });
  expect(await it.run('twin', 'get', 'nobody')).toMatchObject({ code: 67 });
});

test("method prints what the device answers and exits by the answer's status", async () => {
  await using it = await setUp();
  await using _agent = new ToolProcess(
    'iothub-device',
    ['method', 'serve', 'ok', '--status', '200', '--payload', '{"big":12345678901234567890}'],
    { env: it.env },
  );
  await it.hub.waitFor(
    (record) => record.of('attached').filter(({ link }) => link === 'methods').length >= 2,
  );
  const ok = await it.run('method', device, 'ok', '{"x":1}');
  expect(ok).toMatchObject({ code: 0, out: '{"status":200,"payload":{"big":12345678901234567890}}\n' });
  expect((await it.run('method', device, 'ok', '-o', 'text')).out).toBe('{"big":12345678901234567890}\n');
  expect(await it.run('method', device, 'ok', 'no json')).toMatchObject({ code: 65, out: '' });
  expect(await it.run('method', device, 'other', '--response-timeout', '1s')).toMatchObject({ code: 64 });
});

test('a device that is not there: 69; one that the hub does not know: 67', async () => {
  await using it = await setUp();
  const offline = await it.run('method', device, 'reboot');
  expect(offline).toMatchObject({ code: 69 });
  expect(offline.err).toMatch(/DeviceNotOnline/);
  expect(await it.run('method', 'nobody', 'reboot')).toMatchObject({ code: 67 });
});

test('send --purge takes off what waits, alone or before something is sent', async () => {
  await using it = await setUp();
  for (let n = 0; n < 3; n++) it.hub.sendCommand({ deviceId: device, messageId: String(n), body: 'x' });
  expect(await it.run('send', device, '--purge')).toMatchObject({ code: 0, out: '', err: 'purged: 3\n' });
  it.hub.sendCommand({ deviceId: device, messageId: 'old', body: 'x' });
  expect(await it.run('send', device, '--purge', '--data', 'new')).toMatchObject({ code: 0 });
  expect(it.hub.queueDepth(device)).toBe(1);
});

test('sas makes a token that the hub takes, for all of it or for one device', async () => {
  await using it = await setUp();
  const { out } = await it.run('sas', '--device', device, '--ttl', '5m');
  expect(out).toMatch(
    /^SharedAccessSignature sr=localhost%3A\d+%2Fdevices%2Fdev-01&sig=\S+&se=\d+&skn=iothubowner\n$/,
  );
  const host = it.hub.hostName;
  it.env['IOTHUB_SERVICE_CONNECTION_STRING'] =
    `HostName=${host};SharedAccessSignature=${(await it.run('sas')).out.trim()}`;
  expect(await it.run('twin', 'get', device)).toMatchObject({ code: 0 });
});

test('a policy without the right is refused, and so is a hub that is not there', async () => {
  await using it = await setUp();
  it.env['IOTHUB_SERVICE_CONNECTION_STRING'] = it.hub.serviceConnectionString('registryRead');
  expect(await it.run('device', 'add', 'x')).toMatchObject({ code: 77 });
  expect(await it.run('device', 'show', device, '--https-port', '1')).toMatchObject({ code: 69 });
});

test('check tries everything, and names what is wrong with what to do about it', async () => {
  await using it = await setUp();
  const fine = await it.run('check', '-o', 'text');
  expect([fine.code, fine.err]).toEqual([0, '']);
  const names = [
    ...['identity', 'dns', 'tcp', 'proxy', 'https', 'clock', 'tls'],
    ...['token', 'commands', 'feedback', 'event-hub', 'rest'],
  ];
  expect(
    fine.out
      .trimEnd()
      .split('\n')
      .map((line) => /^ok {4}([a-z-]+) /.exec(line)?.[1]),
  ).toEqual(names);
  expect(fine.out).toMatch(/event-hub +localhost:\d+\/iothub-events, 4 partitions/);

  const text = it.hub.serviceConnectionString().replace(/SharedAccessKey=..../, 'SharedAccessKey=AAAA');
  it.env['IOTHUB_SERVICE_CONNECTION_STRING'] = text;
  const wrong = await it.run('check');
  expect(wrong.code).toBe(77);
  const results = wrong.out.trimEnd().split('\n').map(json);
  const withResult = (wanted: string) =>
    results.filter(({ result }) => result === wanted).map((line) => line['check']);
  expect(withResult('failed')).toEqual(['token', 'rest']);
  expect(withResult('skipped')).toEqual(['commands', 'feedback', 'event-hub']);
  expect(results[names.indexOf('token')]).toMatchObject({
    condition: 'cbs:401',
    hint: expect.stringMatching(/key/) as string,
  });
});
