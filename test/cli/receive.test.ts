import { readdir, readFile, rm } from 'node:fs/promises';

import { expect, test } from 'vitest';

import { device, startHub } from '../amqp/hub.js';
import { environmentOf, Folder, runTool, ToolProcess } from './tool.js';

async function setUp() {
  const hub = await startHub();
  const folder = await Folder.make();
  const env = await environmentOf(hub, device, folder);
  return {
    hub,
    folder,
    env,
    send: (id: string, body: string | Buffer = 'go', properties: Record<string, string> = {}) => {
      hub.sendCommand({ deviceId: device, messageId: id, body, properties });
    },
    receive: (...args: string[]) => runTool('iothub-device', ['receive', ...args], { env, cwd: folder.path }),
    start: (...args: string[]) =>
      new ToolProcess('iothub-device', ['receive', ...args], { env, cwd: folder.path }),
    outcomes: () => hub.record.of('outcome').map(({ messageId, outcome }) => [messageId, outcome.outcome]),
    async [Symbol.asyncDispose]() {
      await hub[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

test('prints each command as a line of JSON that send --ndjson takes, and accepts it', async () => {
  await using it = await setUp();
  it.send('c1', '{"x":1.50}', { room: 'a' });
  it.send('c2', Buffer.from([0, 0xff]));
  const { code, out, err } = await it.receive('-n', '2', '-o', 'json');
  expect([code, err]).toEqual([0, '']);
  const [first, second] = out
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(first).toMatchObject({
    messageId: 'c1',
    properties: { room: 'a' },
    hub: { deviceId: device, deliveryCount: 0 },
  });
  expect(second).toMatchObject({ messageId: 'c2', bodyBase64: 'AP8=' });
  expect(it.outcomes()).toEqual([
    ['c1', 'accepted'],
    ['c2', 'accepted'],
  ]);
  const again = await runTool('iothub-device', ['send', '--ndjson'], { env: it.env, input: out });
  expect(again.code).toBe(0);
  expect(it.hub.record.of('telemetry').map(({ messageId }) => messageId)).toEqual(['c1', 'c2']);
});

test('takes no more than it was asked for', async () => {
  await using it = await setUp();
  for (const id of ['a', 'b', 'c']) it.send(id);
  expect((await it.receive('-n', '2')).code).toBe(0);
  expect(it.hub.record.of('delivery').map(({ messageId }) => messageId)).toEqual(['a', 'b']);
  expect(it.hub.queueDepth(device)).toBe(1);
});

test('rejects with the reason it is given', async () => {
  await using it = await setUp();
  it.send('c1');
  expect((await it.receive('-n', '1', '--settle', 'reject', '--reject-reason', 'in maintenance')).code).toBe(
    0,
  );
  expect(it.hub.record.of('outcome')[0]?.outcome).toMatchObject({
    outcome: 'rejected',
    description: 'in maintenance',
  });
});

test('a program decides, with the arguments it is given', async () => {
  await using it = await setUp();
  const script = await it.folder.script('decide', `[ "$(cat)" = "$1" ] || { echo no >&2; exit 65; }`);
  it.send('c1', 'good');
  it.send('c2', 'bad');
  const { code, out } = await it.receive('-n', '2', '-o', 'json', '--exec', script, '--', 'good');
  expect(code).toBe(0);
  expect(out.split('\n')).toHaveLength(3);
  expect(it.outcomes()).toEqual([
    ['c1', 'accepted'],
    ['c2', 'rejected'],
  ]);
});

test('ends when none came for the idle time, and after the whole time', async () => {
  await using it = await setUp();
  it.send('c1');
  expect(await it.receive('--idle', '300ms', '-o', 'json')).toMatchObject({ code: 0, err: '' });
  expect(await it.receive('--for', '300ms')).toMatchObject({ code: 0, out: '' });
  expect(it.outcomes()).toEqual([['c1', 'accepted']]);
});

test('prints by a template, NUL-separated, and dumps bodies into files of their own', async () => {
  await using it = await setUp();
  it.send('../c/1', 'one', { room: 'a' });
  it.send('c2', 'two');
  const { code, out } = await it.receive(
    '-n',
    '2',
    '-0',
    '--dump',
    'bodies',
    '--format',
    '{messageId}\\t{prop.room}\\t{body}{{}}',
  );
  expect(code).toBe(0);
  expect(out).toBe('../c/1\ta\tone{}\0c2\t\ttwo{}\0');
  expect((await readdir(`${it.folder.path}/bodies`)).sort()).toEqual(['0001-_c_1.bin', '0002-c2.bin']);
  expect(await readFile(`${it.folder.path}/bodies/0001-_c_1.bin`, 'utf8')).toBe('one');
});

test('a template with a name it does not have is a usage error', async () => {
  await using it = await setUp();
  expect(await it.receive('-n', '1', '--format', '{mesageId}')).toMatchObject({ code: 64 });
  expect(it.hub.record.of('connected')).toEqual([]);
});

test('a command whose line could not be printed goes back to the hub', async () => {
  await using it = await setUp();
  const receiving = it.start('-o', 'json');
  await it.hub.waitFor((record) => record.of('attached').some(({ link }) => link === 'commands'));
  receiving.stdout.destroy();
  it.send('c1', 'x'.repeat(60_000));
  it.send('c2', 'x'.repeat(60_000));
  await receiving.ended();
  await it.hub.waitFor(() => it.hub.queueDepth(device) >= 1);
  expect(it.outcomes()).not.toContainEqual(['c2', 'accepted']);
});

test('a command whose body could not be written goes back to the hub, and that is the end', async () => {
  await using it = await setUp();
  const receiving = it.start('--dump', 'bodies');
  await it.hub.waitFor((record) => record.of('attached').some(({ link }) => link === 'commands'));
  await rm(`${it.folder.path}/bodies`, { recursive: true });
  it.send('c1', 'one');
  expect(await receiving.ended()).toMatchObject({
    code: 73,
    err: expect.stringMatching(/cannot write .*bodies.*ENOENT/) as string,
  });
  expect(it.outcomes()).toEqual([['c1', 'released']]);
});

test('Ctrl-C ends it with 130, and what was printed was settled', async () => {
  await using it = await setUp();
  await using receiving = it.start('-o', 'json');
  it.send('c1');
  await receiving.says(/"messageId":"c1"/);
  await it.hub.waitFor((record) => record.of('outcome').length === 1);
  receiving.kill('SIGINT');
  expect((await receiving.ended()).code).toBe(130);
});
