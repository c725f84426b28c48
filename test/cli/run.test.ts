import { readFile } from 'node:fs/promises';

import { describe, expect, test } from 'vitest';

import { device, startHub } from '../amqp/hub.js';
import { environmentOf, Folder, runTool, ToolProcess } from './tool.js';

/** A hub, a folder, and an agent to start in it. */
async function setUp(options: Parameters<typeof startHub>[0] = {}) {
  const hub = await startHub(options);
  const folder = await Folder.make();
  const env = await environmentOf(hub, device, folder);
  const agents: ToolProcess[] = [];
  return {
    hub,
    folder,
    env,
    run(args: readonly string[], more: Record<string, string> = {}) {
      const agent = new ToolProcess('iothub-device', ['run', ...args], {
        env: { ...env, ...more },
        cwd: folder.path,
      });
      agents.push(agent);
      return agent;
    },
    /** Sends commands and resolves with the word of the feedback for each, in order. */
    async command(id: string, body: string, properties: Record<string, string> = {}) {
      await hub.waitFor(() => hub.queueDepth(device) < 50);
      hub.sendCommand({ deviceId: device, messageId: id, body, ack: 'full', properties });
    },
    feedback: (id: string) =>
      hub.waitFor(
        (record) =>
          record
            .of('feedback')
            .flatMap(({ records }) => records)
            .find(({ originalMessageId }) => originalMessageId === id)?.statusCode,
        { timeoutMs: 20_000 },
      ),
    async [Symbol.asyncDispose]() {
      for (const agent of agents) await agent[Symbol.asyncDispose]();
      await hub[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

describe('a program for every command', () => {
  test('gets the body and what is known of the command, and its exit code is the outcome', async () => {
    await using it = await setUp();
    const script = await it.folder.script(
      'handler',
      `cat > body; env | sort > environment; [ "$IOTHUB_PROP_ROOM" = kitchen ] || { echo "wrong room" >&2; exit 65; }`,
    );
    const agent = it.run(['--exec', script]);
    await it.command('good', 'Ada Löv', { room: 'kitchen' });
    await it.command('bad', 'x', { room: 'cellar' });
    expect(await it.feedback('good')).toBe('Success');
    expect(await it.feedback('bad')).toBe('Rejected');
    expect(it.hub.record.of('outcome').find(({ messageId }) => messageId === 'bad')?.outcome).toMatchObject({
      description: 'wrong room',
    });
    agent.kill('SIGTERM');
    expect(await agent.ended()).toMatchObject({ code: 0, out: '' });
    expect(agent.err).toMatch(/info +online device=dev-01/);
    expect(agent.err).toMatch(/info +stopped device=dev-01/);
    const environment = await readFile(`${it.folder.path}/environment`, 'utf8');
    expect(environment).toMatch(/^IOTHUB_MESSAGE_ID=bad$/m);
    expect(environment).not.toMatch(/SharedAccessKey|CONNECTION_STRING/);
  });

  test('that asks for later gets the command again, and may accept it then', async () => {
    await using it = await setUp();
    const script = await it.folder.script(
      'handler',
      'cat >/dev/null; [ "$IOTHUB_ATTEMPT" -gt 1 ] || exit 75',
    );
    it.run(['--exec', script]);
    await it.command('c1', 'go');
    expect(await it.feedback('c1')).toBe('Success');
    expect(it.hub.record.of('outcome').map(({ outcome }) => outcome.outcome)).toEqual([
      'released',
      'accepted',
    ]);
  });

  test('gets its arguments as they were written', async () => {
    await using it = await setUp();
    const script = await it.folder.script('handler', 'cat >/dev/null; printf "%s|" "$@" > arguments');
    it.run(['--exec', script, '--', '--loud', 'two words', '$HOME;x']);
    await it.command('c1', 'go');
    expect(await it.feedback('c1')).toBe('Success');
    expect(await readFile(`${it.folder.path}/arguments`, 'utf8')).toBe('--loud|two words|$HOME;x|');
  });
});

test('ninety-nine commands, a third each accepted, rejected, and released once and then accepted, end as they should', async () => {
  await using it = await setUp();
  const kinds = ['accept', 'reject', 'later'] as const;
  const script = await it.folder.script(
    'handler',
    `case $(cat) in accept) exit 0;; reject) exit 1;; later) [ "$IOTHUB_ATTEMPT" -gt 1 ] || exit 75;; esac`,
  );
  const config = await it.folder.write(
    'agent.toml',
    `[commands]\norder = "none"\nconcurrency = 8\n[[handlers]]\nexec = ["${script}"]\n`,
  );
  it.run(['--config', config]);
  for (let n = 0; n < 99; n++) await it.command(String(n), kinds[n % 3]!);
  const wanted = { accept: ['accepted'], reject: ['rejected'], later: ['released', 'accepted'] };
  for (let n = 0; n < 99; n++) {
    const kind = kinds[n % 3]!;
    expect([n, await it.feedback(String(n))]).toEqual([n, kind === 'reject' ? 'Rejected' : 'Success']);
    const outcomes = it.hub.record.of('outcome').filter(({ messageId }) => messageId === String(n));
    expect([n, outcomes.map(({ outcome }) => outcome.outcome)]).toEqual([n, wanted[kind]]);
    expect(outcomes.some(({ lockLost }) => lockLost)).toBe(false);
  }
}, 90_000);

describe('a configuration file', () => {
  test('names the hub, the handlers and what they match', async () => {
    await using it = await setUp();
    await it.folder.script('restart', 'cat >/dev/null');
    await it.folder.script('other', 'cat >/dev/null; exit 65');
    await it.folder.write('secret', it.env['IOTHUB_DEVICE_CONNECTION_STRING']!);
    const config = await it.folder.write(
      'agent.toml',
      `[hub]
       connection_string = { file = "secret" }
       ca = "ca.pem"
       [[handlers]]
       exec = ["./restart"]
       match = { property = { command = "restart" } }
       [[handlers]]
       exec = ["./other"]
       match = { property = { command = "other" } }`,
    );
    it.run(['--config', config], { IOTHUB_DEVICE_CONNECTION_STRING: '', IOTHUB_DEVICE_CA: '' });
    await it.command('c1', 'go', { command: 'restart' });
    await it.command('c2', 'go', { command: 'other' });
    await it.command('c3', 'go', { command: 'nobody' });
    expect(await Promise.all(['c1', 'c2', 'c3'].map(it.feedback))).toEqual([
      'Success',
      'Rejected',
      'Rejected',
    ]);
    expect(it.hub.record.of('outcome').find(({ messageId }) => messageId === 'c3')?.outcome).toMatchObject({
      description: 'no handler',
    });
  });

  test('that is wrong ends it with 78, and every mistake has its place', async () => {
    await using folder = await Folder.make();
    const config = await folder.write('agent.toml', '[commands]\nconcurency = 4\ntimeout = 30\n');
    const { code, err } = await runTool('iothub-device', ['run', '--config', config]);
    expect(code).toBe(78);
    expect(err).toMatch(/agent\.toml:2:1: commands\.concurency: unknown key; did you mean "concurrency"\?/);
    expect(err).toMatch(/agent\.toml:3:1: commands\.timeout: write a duration/);
  });
});

test('without any handler named it is a usage error', async () => {
  expect(await runTool('iothub-device', ['run'])).toMatchObject({ code: 64 });
});

describe('SIGTERM', () => {
  test('lets a running handler finish and tells the hub its outcome', async () => {
    await using it = await setUp();
    const script = await it.folder.script('handler', `cat >/dev/null; trap '' TERM; : > started; sleep 1`);
    const agent = it.run(['--exec', script]);
    await it.command('c1', 'go');
    await it.hub.waitFor((record) => record.of('delivery').length === 1);
    while ((await readFile(`${it.folder.path}/started`).catch(() => undefined)) === undefined) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    agent.kill('SIGTERM');
    expect(await agent.ended()).toMatchObject({ code: 0 });
    expect(it.hub.record.of('outcome').map(({ outcome }) => outcome.outcome)).toEqual(['accepted']);
  });

  test('a second time means now', async () => {
    await using it = await setUp();
    const script = await it.folder.script('handler', `cat >/dev/null; trap '' TERM; : > started; sleep 60`);
    const agent = it.run(['--exec', script]);
    await it.command('c1', 'go');
    while ((await readFile(`${it.folder.path}/started`).catch(() => undefined)) === undefined) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const startedAt = Date.now();
    agent.kill('SIGTERM');
    await agent.says(/stopping/);
    agent.kill('SIGTERM');
    await agent.ended();
    expect(Date.now() - startedAt).toBeLessThan(15_000);
    expect(it.hub.queueDepth(device)).toBe(1);
  });
});

describe('a hub that misbehaves never ends it', () => {
  test.each([
    [
      'refuses the token',
      { at: 'put-token', do: { act: 'refuse', status: 500 } },
      /could not take the token/,
    ],
    [
      'drops every connection at the open',
      { at: 'open', do: { act: 'drop' } },
      /dropped the connection|closed/,
    ],
    [
      'refuses the command link',
      { at: 'attach', link: 'commands', do: { act: 'refuse', condition: 'amqp:internal-error' } },
      /amqp:internal-error/,
    ],
  ] as const)('one that %s: it stays, says why, and comes back', async (_title, fault, why) => {
    await using it = await setUp();
    it.hub.faults.add({ ...fault, times: 2 });
    const script = await it.folder.script('handler', 'cat >/dev/null');
    const agent = it.run(['--exec', script]);
    await agent.says(/warn +offline/);
    expect(agent.err).toMatch(why);
    await agent.says(/info +online/);
    await it.command('c1', 'go');
    expect(await it.feedback('c1')).toBe('Success');
    expect(agent.exited).toBe(false);
  });

  test('one that refuses the key says credentials, and it waits in minutes', async () => {
    await using it = await setUp();
    it.hub.setDeviceStatus(device, 'disabled');
    const script = await it.folder.script('handler', 'cat >/dev/null');
    const agent = it.run(['--exec', script]);
    await agent.says(/warn +offline/);
    expect(agent.err).toMatch(/the hub refused/);
    expect(Number(/nextTryInSeconds=([\d.]+)/.exec(agent.err)?.[1])).toBeGreaterThanOrEqual(30);
    agent.kill('SIGINT');
    expect(await agent.ended()).toMatchObject({ code: 0 });
  });
});

test('no secret is in what it prints at -vv, with DEBUG, whatever happens', async () => {
  await using it = await setUp();
  const script = await it.folder.script(
    'handler',
    'cat >/dev/null; env >&2; tr "\\0" "\\n" < /proc/$PPID/environ >&2; true',
  );
  const agent = it.run(['--exec', script, '-vv'], { DEBUG: '*' });
  await it.command('c1', 'go');
  expect(await it.feedback('c1')).toBe('Success');
  it.hub.faults.now({ act: 'drop' });
  await it.hub.waitFor((record) => record.of('connected').length === 2);
  agent.kill('SIGTERM');
  await agent.ended();
  const key = /SharedAccessKey=(.*)$/.exec(it.env['IOTHUB_DEVICE_CONNECTION_STRING']!)![1]!;
  for (const form of [
    key,
    encodeURIComponent(key),
    Buffer.from(key).toString('hex'),
    Buffer.from(key).toString('base64'),
  ]) {
    expect(agent.err).not.toContain(form);
  }
  expect(agent.err).not.toMatch(/sig=(?!\[secret\])/);
  expect(agent.err).toMatch(/trace/);
});
