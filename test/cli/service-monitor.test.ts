import { readdir, readFile } from 'node:fs/promises';

import { expect, test } from 'vitest';

import { startHub } from '../amqp/hub.js';
import { devices, sendAs } from '../service/kit.js';
import { environmentOf, Folder, runTool, ToolProcess } from './tool.js';

async function setUp() {
  const hub = await startHub({ devices });
  const folder = await Folder.make();
  const env: Record<string, string> = await environmentOf(hub, 'd0', folder);
  return {
    hub,
    folder,
    env,
    send: (deviceId: string, ...ids: string[]) => sendAs(hub, deviceId, ids),
    monitor: (...args: string[]) =>
      runTool('iothub-service', ['monitor', ...args], { env, cwd: folder.path }),
    start: (...args: string[]) =>
      new ToolProcess('iothub-service', ['monitor', ...args], { env, cwd: folder.path }),
    async [Symbol.asyncDispose]() {
      await hub[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

interface Line {
  messageId?: string;
  properties: Record<string, string>;
  hub: { deviceId: string; partition: string; annotations?: Record<string, string> };
}

function linesOf(out: string): Line[] {
  return out
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Line);
}

test('prints telemetry of the devices that match as lines of JSON that send --ndjson takes', async () => {
  await using it = await setUp();
  await Promise.all(devices.map((id) => it.send(id, `${id}-1`)));
  const { code, out, err } = await it.monitor('d[0-3]?', '--from', 'start', '--idle', '500ms', '-o', 'json');
  expect([code, out, err]).toEqual([0, '', '']);
  const some = await it.monitor('d?', '--from', 'start', '-n', '10', '-o', 'json');
  expect(some.code).toBe(0);
  expect(
    linesOf(some.out)
      .map(({ messageId }) => messageId)
      .sort(),
  ).toEqual(devices.map((id) => `${id}-1`));
  const one = await it.monitor('d3', '--from', '-1m', '-n', '1', '-o', 'json', '--properties', 'app,ann');
  const [line] = linesOf(one.out);
  expect(line).toMatchObject({
    body: { t: 21.5 },
    properties: { k: 'v' },
    hub: { deviceId: 'd3', source: 'Telemetry' },
  });
  expect(line?.messageId).toBeUndefined();
  expect(line?.hub.annotations).toMatchObject({ 'iothub-message-source': 'Telemetry' });

  const again = await runTool('iothub-device', ['send', '--ndjson'], { env: it.env, input: some.out });
  expect(again.code).toBe(0);
  expect(it.hub.record.of('telemetry').filter(({ deviceId }) => deviceId === 'd0')).toHaveLength(11);
});

test('for people: time, device, properties and body, and what the hub itself wrote is marked', async () => {
  await using it = await setUp();
  await it.send('d0', 'm1');
  const { out } = await it.monitor('--from', 'start', '-n', '1', '-o', 'text', '--utc');
  expect(out).toMatch(
    /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z {2}d0 +messageId=m1 contentType=application\/json k=v {2}\{"t":21\.5\}\n$/,
  );
});

test('an Event Hubs connection string is used without asking the hub; a flag for the hub wins over the variable', async () => {
  await using it = await setUp();
  await it.send('d0', 'm1');
  const file = await it.folder.write('events', it.hub.eventHubConnectionString);
  delete it.env['IOTHUB_SERVICE_CONNECTION_STRING'];
  const args = ['--from', 'start', '-n', '1'];
  expect(await it.monitor(...args)).toMatchObject({ code: 78 });
  expect(await it.monitor(...args, '--event-hub-connection-string-file', file)).toMatchObject({ code: 0 });
  it.env['IOTHUB_EVENTHUB_CONNECTION_STRING'] = it.hub.eventHubConnectionString;
  expect(await it.monitor(...args)).toMatchObject({ code: 0 });
  const hubFile = await it.folder.write('hub', it.hub.serviceConnectionString('registryRead'));
  expect(await it.monitor(...args, '--connection-string-file', hubFile)).toMatchObject({ code: 77 });
});

test('ends after the idle time, after the whole time, and says so when nothing is there', async () => {
  await using it = await setUp();
  expect(await it.monitor('--idle', '300ms')).toMatchObject({ code: 0, out: '' });
  expect(await it.monitor('--for', '300ms')).toMatchObject({ code: 0, out: '' });
  const gone = it.hub.serviceConnectionString().replace(/:\d+;/, ':1;');
  it.env['IOTHUB_SERVICE_CONNECTION_STRING'] = gone;
  expect(await it.monitor()).toMatchObject({ code: 69 });
});

test('Ctrl-C ends it with 130, and counts are printed then', async () => {
  await using it = await setUp();
  await it.send('d0', 'a', 'b', 'c');
  await it.send('d1', 'd');
  await using counting = it.start('--from', 'start', '--count-only', '-o', 'json', '--dump', 'bodies');
  await expect.poll(() => filesIn(`${it.folder.path}/bodies`), { timeout: 10_000 }).toHaveLength(4);
  counting.kill('SIGINT');
  const { code, out } = await counting.ended();
  expect(code).toBe(130);
  expect(linesOf(out)).toMatchObject([
    { deviceId: 'd0', events: 3, bytes: 30 },
    { deviceId: 'd1', events: 1, bytes: 10 },
  ]);
});

test('a program gets each body, is asked again when it says later, and what it rejects makes the exit code', async () => {
  await using it = await setUp();
  await it.send('d0', 'a', 'b', 'c');
  const script = await it.folder.script(
    'store',
    `cat >> ${it.folder.path}/stored; echo " $IOTHUB_MESSAGE_ID $IOTHUB_DEVICE_ID" >> ${it.folder.path}/stored
     case $IOTHUB_MESSAGE_ID in
       a) [ -e ${it.folder.path}/tried ] || { touch ${it.folder.path}/tried; exit 75; };;
       b) exit 65;;
     esac`,
  );
  const { code } = await it.monitor('--from', 'start', '-n', '3', '--exec', script, '-o', 'none');
  expect(code).toBe(65);
  const stored = await readFile(`${it.folder.path}/stored`, 'utf8');
  expect(stored.trimEnd().split('\n')).toEqual(['a', 'a', 'b', 'c'].map((id) => `{"t":21.5} ${id} d0`));
});

test('goes on where the checkpoint file says', async () => {
  await using it = await setUp();
  const args = ['--checkpoint', 'seen.json', '-o', 'json', '--idle', '2s'];
  await it.send('d0', 'a', 'b', 'c');
  const first = await it.monitor(...args, '-n', '2');
  expect(first).toMatchObject({ code: 0, err: '' });
  expect(linesOf(first.out).map(({ messageId }) => messageId)).toEqual(['a', 'b']);
  await it.send('d0', 'd');
  const second = await it.monitor(...args, '--from', 'now');
  expect(linesOf(second.out).map(({ messageId }) => messageId)).toEqual(['c', 'd']);
  expect(await it.monitor(...args, '--group', 'other')).toMatchObject({ code: 78 });
  expect(await it.monitor('--from', 'checkpoint')).toMatchObject({ code: 64 });
});

async function filesIn(directory: string): Promise<string[]> {
  return readdir(directory).catch(() => []);
}

test('prints by a template, and only what a condition wants', async () => {
  await using it = await setUp();
  await it.send('d0', 'a', 'b');
  await it.send('d1', 'c');
  const only = (...args: string[]) => it.monitor('--from', 'start', '--idle', '1s', ...args);
  const printed = await only(
    '--where',
    'messageId!=a',
    '--format',
    '{deviceId}\\t{messageId} {prop.k} {body}',
  );
  expect(printed.out.trimEnd().split('\n').sort()).toEqual(['d0\tb v {"t":21.5}', 'd1\tc v {"t":21.5}']);
  const both = ['--where', 'deviceId=d0', '--where', 'body.t>21', '--format', '{messageId}'];
  expect((await only(...both)).out).toBe('a\nb\n');
  expect(await only('--where', 'body.t<21')).toMatchObject({ code: 0, out: '' });
  expect(await only('--where', 'nonsense')).toMatchObject({ code: 64 });
  expect(await only('--format', '{nonsense}')).toMatchObject({ code: 64 });
});
