import { describe, expect, test } from 'vitest';

import { device, startHub } from '../amqp/hub.js';
import { environmentOf, Folder, runTool, ToolProcess } from './tool.js';

async function setUp() {
  const hub = await startHub();
  const folder = await Folder.make();
  const env = await environmentOf(hub, device, folder);
  const started: ToolProcess[] = [];
  return {
    hub,
    folder,
    env,
    /** Serves methods until the test is over. */
    serve: (...args: string[]) => {
      const tool = new ToolProcess('iothub-device', ['method', 'serve', ...args], { env, cwd: folder.path });
      started.push(tool);
      return tool;
    },
    /** Invokes a method as a service would, once the device listens. */
    async invoke(name: string, payload: unknown = null, responseTimeoutMs = 10_000) {
      const call = { name, payload: JSON.stringify(payload), responseTimeoutMs, connectTimeoutMs: 20_000 };
      const result = await hub.device(device).methods.call(call);
      if (result.result !== 'answered') return result.result;
      return [result.status, JSON.parse(result.payload)] as unknown;
    },
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

test('answers the methods that are named, prints each call, and ends after so many', async () => {
  await using it = await setUp();
  const tool = it.serve(
    'reboot',
    'ha*',
    '--status',
    '202',
    '--payload',
    '{"accepted":true}',
    '-n',
    '2',
    '-o',
    'json',
  );
  expect(await it.invoke('reboot', { in: 5 })).toEqual([202, { accepted: true }]);
  expect(await it.invoke('halt')).toEqual([202, { accepted: true }]);
  const { code, out, err } = await tool.ended();
  expect([code, err]).toEqual([0, '']);
  const uuid = expect.stringMatching(/^[0-9a-f-]{36}$/) as unknown;
  const ms = expect.any(Number) as unknown;
  expect(lines(out)).toEqual([
    { requestId: uuid, method: 'reboot', payload: { in: 5 }, status: 202, answer: { accepted: true }, ms },
    { requestId: uuid, method: 'halt', payload: null, status: 202, answer: { accepted: true }, ms },
  ]);
});

test('without a word on how, the answer is 200 and null; other names get 501', async () => {
  await using it = await setUp();
  const tool = it.serve('ping');
  expect(await it.invoke('ping')).toEqual([200, null]);
  expect(await it.invoke('pong')).toEqual([501, { message: 'this device has no method "pong"' }]);
  await tool.says(/"method":"pong".*"status":501/);
  expect(tool.err).toMatch(/no handler for a method/);
});

test('a program answers by what it prints and how it ends', async () => {
  await using it = await setUp();
  const script = await it.folder.script(
    'power',
    `[ "$IOTHUB_METHOD" = reboot ] || { echo "only reboot" >&2; exit 65; }; printf '{"got":%s}' "$(cat)"`,
  );
  it.serve('*', '--exec', script);
  expect(await it.invoke('reboot', [1])).toEqual([200, { got: [1] }]);
  expect(await it.invoke('halt')).toEqual([400, { message: 'only reboot' }]);
});

describe('with --stdin', () => {
  test('each line answers the oldest call, and answers may stand ready', async () => {
    await using it = await setUp();
    const tool = it.serve('ask', '--stdin', '-o', 'json');
    tool.stdin.write('{"payload":{"n":1}}\n\n{"payload":2,"status":404}\n');
    expect(await it.invoke('ask', 'first')).toEqual([200, { n: 1 }]);
    expect(await it.invoke('ask', 'second')).toEqual([404, 2]);
    await expect
      .poll(() => lines(tool.out))
      .toMatchObject([
        { method: 'ask', payload: 'first' },
        { method: 'ask', payload: 'second' },
      ]);
  });

  test('a line may name the call that it answers', async () => {
    await using it = await setUp();
    const tool = it.serve('ask', '--stdin', '-o', 'json');
    const first = it.invoke('ask', 1);
    const second = it.invoke('ask', 2);
    await tool.says(/"payload":1[^]*"payload":2|"payload":2[^]*"payload":1/);
    const calls = lines(tool.out) as { requestId: string; payload: number }[];
    for (const { requestId, payload } of calls.reverse()) {
      tool.stdin.write(`${JSON.stringify({ requestId, payload: payload * 10 })}\n`);
    }
    expect(await Promise.all([first, second])).toEqual([
      [200, 10],
      [200, 20],
    ]);
  });

  test('a line that is no answer is complained about, and the next one counts', async () => {
    await using it = await setUp();
    const tool = it.serve('ask', '--stdin');
    tool.stdin.write(
      'nonsense\n{"payloda":1}\n{"requestId":"nobody","payload":1}\n{"status":"ok"}\n{"payload":7}\n',
    );
    expect(await it.invoke('ask')).toEqual([200, 7]);
    expect(tool.err).toMatch(/a line is no answer.*line=1.*not JSON/);
    expect(tool.err).toMatch(/a line is no answer.*line=2.*payloda/);
    expect(tool.err).toMatch(/a line answers no call that is open.*line=3/);
    expect(tool.err).toMatch(/a line is no answer.*line=4.*status/);
  });

  test('the end of the input ends it; a call that is open then gets 503', async () => {
    await using it = await setUp();
    const tool = it.serve('ask', '--stdin', '-o', 'json');
    const answer = it.invoke('ask');
    await tool.says(/"method":"ask"/);
    tool.stdin.end();
    expect(await answer).toEqual([503, { message: 'standard input has ended' }]);
    expect((await tool.ended()).code).toBe(0);
  });
});

test('goes on over lost links and connections', async () => {
  await using it = await setUp();
  it.serve('ping');
  expect(await it.invoke('ping')).toEqual([200, null]);
  it.hub.faults.now({ act: 'detach' }, { link: 'methods' });
  await it.hub.waitFor(
    (record) => record.of('attached').filter((link) => link.link === 'methods').length === 4,
  );
  expect(await it.invoke('ping')).toEqual([200, null]);
  it.hub.faults.now({ act: 'drop' });
  await it.hub.waitFor(
    (record) => record.of('attached').filter((link) => link.link === 'methods').length === 6,
  );
  expect(await it.invoke('ping')).toEqual([200, null]);
});

describe('ends', () => {
  test('when nobody called for the idle time, and after the whole time', async () => {
    await using it = await setUp();
    expect(await it.serve('x', '--idle', '200ms').ended()).toMatchObject({ code: 0, out: '' });
    expect(await it.serve('x', '--for', '200ms').ended()).toMatchObject({ code: 0, out: '' });
  });

  test('with 130 at Ctrl-C, once the running program has had its say', async () => {
    await using it = await setUp();
    const script = await it.folder.script('slow', `trap 'echo 1; exit 0' TERM; : > started; sleep 60 & wait`);
    const tool = it.serve('slow', '--exec', script);
    const answer = it.invoke('slow');
    await it.folder.has('started');
    tool.kill('SIGINT');
    expect(await answer).toEqual([200, 1]);
    expect((await tool.ended()).code).toBe(130);
  });

  test('with 64 for a payload that is not JSON, before it connects', async () => {
    await using it = await setUp();
    const { code, err } = await runTool('iothub-device', ['method', 'serve', 'x', '--payload', 'text'], {
      env: it.env,
    });
    expect([code, err]).toEqual([64, expect.stringContaining('--payload is not JSON') as unknown]);
    expect(it.hub.record.of('connected')).toEqual([]);
  });

  test('with 65 or the code of the reason when the hub refuses methods at first', async () => {
    await using it = await setUp();
    it.hub.faults.add({
      at: 'attach',
      link: 'methods',
      do: { act: 'refuse', condition: 'amqp:not-allowed' },
    });
    const { code, err } = await it.serve('x').ended();
    expect(code).toBe(65);
    expect(err).toMatch(/amqp:not-allowed/);
  });

  test('with 69 when there is no hub', async () => {
    await using it = await setUp();
    await it.hub[Symbol.asyncDispose]();
    expect((await it.serve('x').ended()).code).toBe(69);
  });
});

test('the agent serves methods and twins where its configuration has handlers for them', async () => {
  await using it = await setUp();
  await it.folder.script('reboot', `printf '{"in":%s}' "$(cat)"`);
  await it.folder.script('interval', 'cat > interval.txt');
  const config = await it.folder.write(
    'agent.toml',
    `[[handlers]]
     on = "method"
     match = { method = "reboot" }
     exec = ["./reboot"]
     [[handlers]]
     on = "twin"
     match = { path = "interval" }
     exec = ["./interval"]`,
  );
  it.hub.device(device).twin.patch({ desired: { interval: 5 } }, it.hub.now());
  await using agent = new ToolProcess('iothub-device', ['run', '--config', config], {
    env: it.env,
    cwd: it.folder.path,
  });
  expect(await it.invoke('reboot', 10)).toEqual([200, { in: 10 }]);
  expect(await it.invoke('other')).toEqual([501, { message: 'this device has no method "other"' }]);
  await it.hub.waitFor(() => 'interval' in it.hub.device(device).twin.reported.properties);
  expect(it.hub.device(device).twin.reported.properties).toEqual({ interval: { value: 5, ac: 200, av: 2 } });
  expect(it.hub.connections[0]!.sessions.map(({ links }) => links.map(({ link }) => link).join())).toEqual([
    'cbs,cbs',
    'telemetry,commands',
    'methods,methods',
    'twin,twin',
  ]);
  agent.kill('SIGTERM');
  expect((await agent.ended()).code).toBe(0);
});

test('a handler for a desired property that comes with a reload gets what is desired already', async () => {
  await using it = await setUp();
  const { twin } = it.hub.device(device);
  twin.patch({ desired: { a: 1, b: 2 } }, it.hub.now());
  await it.folder.script('apply', 'cat >/dev/null');
  const handler = (path: string) =>
    `[[handlers]]\nname = "${path}"\non = "twin"\nmatch = { path = "${path}" }\nexec = ["./apply"]\n`;
  const config = await it.folder.write('agent.toml', handler('a'));
  await using agent = new ToolProcess('iothub-device', ['run', '--config', config], {
    env: it.env,
    cwd: it.folder.path,
  });
  await it.hub.waitFor(() => 'a' in twin.reported.properties, { timeoutMs: 20_000 });
  await it.folder.write('agent.toml', handler('a') + handler('b'));
  agent.kill('SIGHUP');
  await it.hub.waitFor(() => 'b' in twin.reported.properties, { timeoutMs: 20_000 });
  expect(twin.reported.properties).toEqual({
    a: { value: 1, ac: 200, av: 2 },
    b: { value: 2, ac: 200, av: 2 },
  });
  // The one that was there before is not run again.
  expect(it.hub.record.of('twin').filter(({ operation }) => operation === 'PATCH')).toHaveLength(2);
});

test('the first handlers of methods and desired properties may come with a reload', async () => {
  await using it = await setUp();
  const { twin } = it.hub.device(device);
  twin.patch({ desired: { a: 1 } }, it.hub.now());
  await it.folder.script('answer', 'cat >/dev/null; echo 1');
  await it.folder.script('apply', 'cat >/dev/null');
  const config = await it.folder.write('agent.toml', '[log]\nlevel = "info"\n');
  await using agent = new ToolProcess('iothub-device', ['run', '--config', config], {
    env: it.env,
    cwd: it.folder.path,
  });
  await agent.says(/info +online/);
  await it.folder.write('agent.toml', '[[handlers]]\non = "method"\nexec = ["./answer"]\n');
  agent.kill('SIGHUP');
  expect(await it.invoke('any')).toEqual([200, 1]);
  await it.folder.write('agent.toml', '[[handlers]]\non = "twin"\nexec = ["./apply"]\n');
  agent.kill('SIGHUP');
  await it.hub.waitFor(() => 'a' in twin.reported.properties, { timeoutMs: 20_000 });
  // The links of methods stay: the caller of one that is gone is told so.
  expect(await it.invoke('any')).toEqual([501, { message: 'this device has no method "any"' }]);
  it.hub.faults.now({ act: 'drop' });
  await it.hub.waitFor((record) => record.of('attached').filter(({ link }) => link === 'twin').length === 4);
  expect(await it.invoke('any')).toEqual([501, { message: 'this device has no method "any"' }]);
  expect(agent.err).not.toContain('needsRestart');
  agent.kill('SIGTERM');
  expect((await agent.ended()).code).toBe(0);
});

test('an agent without such handlers opens neither, and stops', async () => {
  await using it = await setUp();
  const script = await it.folder.script('handler', 'cat >/dev/null');
  await using agent = new ToolProcess('iothub-device', ['run', '--exec', script], { env: it.env });
  await agent.says(/online/);
  expect(it.hub.connections[0]!.sessions).toHaveLength(2);
  agent.kill('SIGTERM');
  expect((await agent.ended()).code).toBe(0);
});
