import { describe, expect, test } from 'vitest';

import { device, startHub } from '../amqp/hub.js';
import { environmentOf, Folder, runTool, ToolProcess } from './tool.js';

async function setUp() {
  const hub = await startHub();
  const folder = await Folder.make();
  const env = await environmentOf(hub, device, folder);
  const started: ToolProcess[] = [];
  const { twin } = hub.device(device);
  return {
    hub,
    folder,
    env,
    desire: (desired: object) => twin.patch({ desired }, hub.now()),
    reported: () => twin.reported.properties,
    twin: (args: readonly string[], input?: string) =>
      runTool('iothub-device', ['twin', ...args], {
        env,
        cwd: folder.path,
        ...(input !== undefined && { input }),
      }),
    watch: (...args: string[]) => {
      const tool = new ToolProcess('iothub-device', ['twin', 'watch', '-o', 'json', ...args], {
        env,
        cwd: folder.path,
      });
      started.push(tool);
      return tool;
    },
    subscribed: () =>
      hub.waitFor((record) => record.of('twin').some(({ operation }) => operation === 'GET'), {
        timeoutMs: 20_000,
      }),
    async [Symbol.asyncDispose]() {
      for (const tool of started) await tool[Symbol.asyncDispose]();
      await hub[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

const lines = (out: string): unknown[] =>
  out
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as unknown);

describe('get', () => {
  test('prints the whole twin, as one line or for people', async () => {
    await using it = await setUp();
    it.desire({ interval: 5 });
    const { code, out, err } = await it.twin(['get']);
    expect([code, err]).toEqual([0, '']);
    expect(out).toBe('{"desired":{"interval":5,"$version":2},"reported":{"$version":1}}\n');
    expect((await it.twin(['get', '-o', 'text'])).out).toBe(
      `${JSON.stringify({ desired: { interval: 5, $version: 2 }, reported: { $version: 1 } }, null, 2)}\n`,
    );
  });

  test('prints one property, and nothing when it is not there', async () => {
    await using it = await setUp();
    it.desire({ fan: { speed: 2, mode: 'au\u0007to' } });
    expect((await it.twin(['get', '--path', 'desired.fan.speed'])).out).toBe('2\n');
    expect((await it.twin(['get', '--path', 'desired.$version'])).out).toBe('2\n');
    expect((await it.twin(['get', '--path', 'desired.fan.mode'])).out).toBe('"au\\u0007to"\n');
    expect((await it.twin(['get', '--path', 'desired.fan.mode', '-o', 'text'])).out).toBe('au\\x07to\n');
    for (const path of [
      'desired.fun',
      'reported.fan.speed',
      'desired.constructor',
      'desired.fan.speed.more',
    ]) {
      expect(await it.twin(['get', '--path', path])).toMatchObject({ code: 0, out: '', err: '' });
    }
    expect(await it.twin(['get', '--path', 'fan'])).toMatchObject({
      code: 64,
      err: expect.stringContaining('--path desired.fan') as unknown,
    });
  });

  test('gives up in time, and ends by the reason when the hub refuses', async () => {
    await using it = await setUp();
    it.hub.faults.add({ at: 'transfer', link: 'twin', do: { act: 'say-nothing' } });
    expect(await it.twin(['get', '--timeout', '500ms'])).toMatchObject({ code: 69, out: '' });
    it.hub.faults.add({ at: 'transfer', link: 'twin', do: { act: 'refuse', status: 429 } });
    expect(await it.twin(['get'])).toMatchObject({
      code: 75,
      err: expect.stringContaining('throttles') as unknown,
    });
    it.hub.setDeviceStatus(device, 'disabled');
    expect((await it.twin(['get'])).code).toBe(77);
  });
});

describe('report', () => {
  test.each<[string, string[], unknown]>([
    ['an object', ['{"fw":"1.2","n":{"a":1}}'], { fw: '1.2', n: { a: 1 } }],
    [
      'names and values',
      ['fw="1.2"', 'fan.speed=3', 'fan.mode=null', 'on=true'],
      { fw: '1.2', fan: { speed: 3 }, on: true },
    ],
    ['under a name', ['{"speed":3}', '--path', 'fan.front'], { fan: { front: { speed: 3 } } }],
    ['names under a name', ['speed=3', '--path', 'fan'], { fan: { speed: 3 } }],
  ])('%s', async (_title, args, wanted) => {
    await using it = await setUp();
    const { code, out, err } = await it.twin(['report', '-o', 'json', ...args]);
    expect([code, err]).toEqual([0, '']);
    expect(lines(out)).toEqual([{ outcome: 'reported', version: 2, ms: expect.any(Number) as unknown }]);
    expect(it.reported()).toEqual(wanted);
  });

  test('from a file, and from standard input behind the connection string', async () => {
    await using it = await setUp();
    await it.folder.write('patch.json', '{"a":1}\n');
    expect((await it.twin(['report', '--file', 'patch.json'])).code).toBe(0);
    const { IOTHUB_DEVICE_CONNECTION_STRING: string = '', ...env } = it.env;
    const { code } = await runTool(
      'iothub-device',
      ['twin', 'report', '--file', '-', '--connection-string', '-'],
      { env, input: `${string}\n{"b":2}` },
    );
    expect(code).toBe(0);
    expect(it.reported()).toEqual({ a: 1, b: 2 });
  });

  test('only if the version is still the same', async () => {
    await using it = await setUp();
    expect((await it.twin(['report', 'a=1', '--if-version', '1'])).code).toBe(0);
    expect(await it.twin(['report', 'a=2', '--if-version', '1'])).toMatchObject({
      code: 65,
      err: expect.stringContaining('version 2, not 1') as unknown,
    });
    expect(it.reported()).toEqual({ a: 1 });
  });

  test.each<[string, string[], number, RegExp]>([
    ['nothing', [], 64, /the patch is missing/],
    ['an object and a file', ['{"a":1}', '--file', 'x'], 64, /there twice/],
    ['neither object nor name', ['fw'], 64, /neither a JSON object nor NAME=JSON/],
    ['an empty name', ['a..b=1'], 64, /empty name/],
    ['a text without quotes', ['fw=abc'], 65, /the value of fw is not JSON: abc\n.*fw='"abc"'/],
    ['half an object', ['{"a":'], 65, /the patch is not JSON/],
    ['a file that is missing', ['--file', 'missing.json'], 66, /there is no such file/],
  ])('%s is refused before it connects', async (_title, args, code, why) => {
    await using it = await setUp();
    const result = await it.twin(['report', ...args]);
    expect(result.code).toBe(code);
    expect(result.err).toMatch(why);
    expect(it.hub.record.of('connected')).toEqual([]);
  });

  test('a list in a file is no patch, and what the hub refuses is 65 with its words', async () => {
    await using it = await setUp();
    expect((await it.twin(['report', '--file', '-'], '[1]')).code).toBe(65);
    expect(await it.twin(['report', '{"a b":1}'])).toMatchObject({
      code: 65,
      err: expect.stringContaining('the key "a b"') as unknown,
    });
  });
});

describe('watch', () => {
  test('prints what is desired already, and then each change', async () => {
    await using it = await setUp();
    it.desire({ interval: 5, fan: { speed: 1 } });
    const tool = it.watch('-n', '4');
    await tool.says(/"fan"/);
    it.desire({ fan: { mode: 'x' } });
    await tool.says(/"mode"/);
    it.desire({ interval: null });
    const { code, out, err } = await tool.ended();
    expect([code, err]).toEqual([0, '']);
    expect(lines(out)).toEqual([
      { path: 'interval', value: 5, version: 2 },
      { path: 'fan', value: { speed: 1 }, version: 2 },
      { path: 'fan', value: { speed: 1, mode: 'x' }, version: 3 },
      { path: 'interval', value: null, version: 4 },
    ]);
    expect(it.reported()).toEqual({});
  });

  test('prints one property alone, and only changes, when it is told to', async () => {
    await using it = await setUp();
    it.desire({ fan: { speed: 1 } });
    const tool = it.watch('--path', 'desired.fan.speed', '--changes', '-n', '1');
    await it.subscribed();
    it.desire({ fan: { mode: 'x' }, other: 1 });
    it.desire({ fan: { speed: 2 } });
    expect(lines((await tool.ended()).out)).toEqual([{ path: 'fan.speed', value: 2, version: 4 }]);
  });

  test('with a program hands it each value and reports how it ended', async () => {
    await using it = await setUp();
    const script = await it.folder.script(
      'set',
      `value=$(cat); [ "$value" -le "$1" ] || { echo "at most $1" >&2; exit 65; }; printf '{"applied":%s}' "$value"`,
    );
    it.desire({ interval: 5, other: 1 });
    const tool = it.watch('--path', 'interval', '--exec', script, '-n', '2', '--', '10');
    await tool.says(/"ac":200/);
    it.desire({ interval: 50 });
    const { code, out } = await tool.ended();
    expect(code).toBe(0);
    expect(lines(out)).toEqual([
      { path: 'interval', value: 5, version: 2, ac: 200 },
      { path: 'interval', value: 50, version: 3, ac: 400, ad: 'at most 10' },
    ]);
    expect(it.reported()).toEqual({
      interval: { value: 5, ac: 400, av: 3, ad: 'at most 10' },
      applied: 5,
    });
  });

  test('misses nothing and repeats nothing when the connection is lost', async () => {
    await using it = await setUp();
    it.desire({ a: 1, b: 1 });
    const tool = it.watch('-n', '4');
    await tool.says(/"b"/);
    it.hub.faults.now({ act: 'drop' });
    it.desire({ b: 2 });
    await tool.says(/"value":2/);
    it.desire({ a: 3 });
    expect(lines((await tool.ended()).out)).toEqual([
      { path: 'a', value: 1, version: 2 },
      { path: 'b', value: 1, version: 2 },
      { path: 'b', value: 2, version: 3 },
      { path: 'a', value: 3, version: 4 },
    ]);
  });

  test('ends after the idle time and by Ctrl-C', async () => {
    await using it = await setUp();
    expect(await it.watch('--idle', '200ms').ended()).toMatchObject({ code: 0, out: '' });
    it.desire({ a: 1 });
    const tool = it.watch();
    await tool.says(/"a"/);
    tool.kill('SIGINT');
    expect((await tool.ended()).code).toBe(130);
  });

  test('arguments without a program are a usage error', async () => {
    await using it = await setUp();
    expect((await it.twin(['watch', 'x'])).code).toBe(64);
  });
});
