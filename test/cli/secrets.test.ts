import { expect, test } from 'vitest';

import { device, startHub } from '../amqp/hub.js';
import { environmentOf, Folder, runTool, secretsIn, ToolProcess } from './tool.js';

const key = 'c2VjcmV0LWtleS1vZi1hLWRldmljZS0xMjM0NTY3ODk=';
const given = [`HostName=h;DeviceId=d;SharedAccessKey=${key}`];

test.each([
  ['plain', `x ${key} y`],
  ['for a URL', encodeURIComponent(key)],
  ['in hex', Buffer.from(key).toString('hex')],
  ['in base64', Buffer.from(key).toString('base64')],
  ['as its bytes in hex', Buffer.from(key, 'base64').toString('hex')],
  ['as a signature', 'SharedAccessSignature sr=h&sig=abcdefghijklmnopqrstuvwx%3D&se=1'],
])('what the suite looks for in all that its processes print: a key %s', (_how, text) => {
  expect(secretsIn(text, given)).toHaveLength(1);
  expect(secretsIn('sr=h&sig=[secret]&se=1 SharedAccessKey=[secret]', given)).toEqual([]);
});

test('a process that prints a key fails its test', async () => {
  await using hub = await startHub();
  await using folder = await Folder.make();
  const env = await environmentOf(hub, device, folder);
  const script = await folder.script('tell', `cat >/dev/null; tr '\\0' '\\n' < /proc/$PPID/environ >&2`);
  await using agent = new ToolProcess('iothub-device', ['run', '--exec', script, '-vv'], {
    env,
    cwd: folder.path,
  });
  hub.sendCommand({ deviceId: device, messageId: 'c1', body: 'go' });
  await hub.waitFor((record) => record.of('outcome').length === 1, { timeoutMs: 20_000 });
  agent.err += env['IOTHUB_DEVICE_CONNECTION_STRING']!;
  agent.kill('SIGTERM');
  await expect(agent.ended()).rejects.toThrow('printed the key');
  expect((await runTool('iothub-device', ['sas'], { env })).out).toMatch(/sig=/);
});
