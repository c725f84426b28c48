import { expect, test } from 'vitest';

import { device, startHub } from '../amqp/hub.js';
import { environmentOf, Folder, runTool, ToolProcess } from './tool.js';

async function setUp(handler?: string) {
  const hub = await startHub();
  const folder = await Folder.make();
  const env = await environmentOf(hub, device, folder);
  let agent: ToolProcess | undefined;
  if (handler !== undefined) {
    const script = await folder.script('handler', handler);
    agent = new ToolProcess('iothub-device', ['run', '--exec', script], { env });
  }
  return {
    hub,
    env,
    send: (args: readonly string[], input?: string) =>
      runTool('iothub-service', ['send', ...args], { env, ...(input === undefined ? {} : { input }) }),
    async [Symbol.asyncDispose]() {
      await agent?.[Symbol.asyncDispose]();
      await hub[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

test('a command that the hub has queued: exit 0, with what the hub was asked to tell', async () => {
  await using it = await setUp();
  const { code, out, err } = await it.send([
    device,
    '--data',
    '{"interval":5}',
    '--prop',
    'command=set',
    '--message-id',
    'c1',
    '--ack',
    'full',
    '-o',
    'json',
  ]);
  expect([code, err]).toEqual([0, '']);
  expect(JSON.parse(out)).toMatchObject({ messageId: 'c1', outcome: 'accepted' });
  expect(it.hub.record.of('command')).toMatchObject([
    { deviceId: device, messageId: 'c1', properties: { command: 'set', 'iothub-ack': 'full' } },
  ]);
});

test('with --wait it exits by the feedback: 0 completed, 65 rejected', async () => {
  await using it = await setUp('case $(cat) in no) echo "not today" >&2; exit 65;; esac');
  const completed = await it.send([device, '--data', 'Ada', '--wait', '-o', 'text']);
  expect(completed.code).toBe(0);
  expect(completed.out).toMatch(/^completed +dev-01 +[0-9A-Z]{26} +\d+ ms +Success\n$/);
  const rejected = await it.send([device, '--data', 'no', '--wait', '20s', '-o', 'json']);
  expect(rejected.code).toBe(65);
  expect(JSON.parse(rejected.out)).toMatchObject({
    deviceId: device,
    outcome: 'rejected',
    feedback: { statusCode: 'Rejected', deviceId: device },
  });
});

test('with --wait a command that expires first exits 75, and one without an answer in time 69', async () => {
  await using it = await setUp();
  const expired = await it.send([device, '--data', 'x', '--expires', '1s', '--wait', '20s', '-o', 'json']);
  expect(expired.code).toBe(75);
  expect(JSON.parse(expired.out)).toMatchObject({ outcome: 'expired' });
  const silent = await it.send([device, '--data', 'x', '--wait', '500ms', '-o', 'json']);
  expect(silent.code).toBe(69);
  expect(JSON.parse(silent.out)).toMatchObject({
    outcome: 'failed',
    error: expect.stringMatching(/no feedback within/) as string,
  });
});

test('an unknown device: 67; a full queue: 75; a policy without the right: 77', async () => {
  await using it = await setUp();
  expect(await it.send(['nobody', '--data', 'x'])).toMatchObject({ code: 67 });
  for (let n = 0; n < 50; n++) it.hub.sendCommand({ deviceId: device, body: 'x', messageId: String(n) });
  const full = await it.send([device, '--data', 'x', '-o', 'json']);
  expect(full.code).toBe(75);
  expect(JSON.parse(full.out)).toMatchObject({ condition: 'amqp:resource-limit-exceeded' });
  it.env['IOTHUB_SERVICE_CONNECTION_STRING'] = it.hub.serviceConnectionString('registryRead');
  expect(await it.send([device, '--data', 'x'])).toMatchObject({ code: 77 });
});

test("a device's connection string is refused with a word about which one is meant", async () => {
  await using it = await setUp();
  it.env['IOTHUB_SERVICE_CONNECTION_STRING'] = it.hub.deviceConnectionString(device);
  const { code, err } = await it.send([device, '--data', 'x']);
  expect(code).toBe(78);
  expect(err).toMatch(/device connection string/);
  expect(err).toMatch(/hub policy/);
});

test('many commands, one per line, go out in order and each has its line', async () => {
  await using it = await setUp('cat >/dev/null');
  const { code, out } = await it.send([device, '--lines', '--wait', '-o', 'json'], 'a\nb\nc\n');
  expect(code).toBe(0);
  const lines = out
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(lines.map(({ line, outcome }) => [line, outcome])).toEqual([
    [1, 'completed'],
    [2, 'completed'],
    [3, 'completed'],
  ]);
});

test('lines of JSON go to the devices that they name, and those that do not answer hold up nobody', async () => {
  await using it = await setUp('cat >/dev/null');
  it.hub.addDevice('silent');
  it.hub.addDevice({ deviceId: device, moduleId: 'm1' });
  const lines = [
    { deviceId: 'silent', bodyText: 'a', messageId: 'c1' },
    { deviceId: device, bodyText: 'b', messageId: 'c2' },
    { bodyText: 'c', messageId: 'c3' },
    { deviceId: 'nobody', bodyText: 'd', messageId: 'c4' },
    { deviceId: device, moduleId: 'm1', bodyText: 'e', messageId: 'c5', ack: 'none' },
  ];
  const input = lines.map((line) => `${JSON.stringify(line)}\n`).join('');
  const waited = await it.send(['--ndjson', '--wait', '4s', '-o', 'json'], input);
  const results = waited.out
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(results).toMatchObject([
    { line: 1, outcome: 'failed', error: expect.stringMatching(/no feedback/) as string },
    { line: 2, outcome: 'completed', deviceId: device },
    { line: 3, outcome: 'failed', error: 'it names no device' },
    { line: 4, outcome: 'rejected', deviceId: 'nobody', condition: 'amqp:not-found' },
    { line: 5, outcome: 'failed', error: expect.stringMatching(/no feedback/) as string },
  ]);
  const commands = it.hub.record.of('command');
  expect(commands.at(-1)).toMatchObject({ deviceId: device, moduleId: 'm1', messageId: 'c5' });
  // The last one left before the first one had been waited for.
  expect(commands.at(-1)!.at - commands[0]!.at).toBeLessThan(4_000);
  expect(await it.send(['--data', 'x'])).toMatchObject({
    code: 64,
    err: expect.stringMatching(/for which device/) as string,
  });
});
