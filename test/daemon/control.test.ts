import { execFile, spawn } from 'node:child_process';
import { readFile, stat } from 'node:fs/promises';
import { request } from 'node:http';
import { once } from 'node:events';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';

import { describe, expect, test } from 'vitest';

import { device } from '../amqp/hub.js';
import { ToolProcess } from '../cli/tool.js';
import { jsonLines, startAgent } from './agent-kit.js';

describe('GET /v1/status', () => {
  test('tells who and how the agent is', async () => {
    await using it = await startAgent({
      config: '[[handlers]]\nname = "restart"\nexec = ["/bin/true"]\n',
    });
    const { status, json } = await it.curl('/v1/status');
    expect([status, json]).toMatchObject([
      200,
      {
        deviceId: device,
        hub: it.hub.hostName,
        pid: it.agent.pid,
        state: 'online',
        telemetry: { flow: 'open' },
        spool: { waiting: { count: 0 } },
        inbox: { waiting: 0, dead: 0 },
        handlers: [{ name: 'restart', on: 'command', state: 'ok' }],
      },
    ]);
    const { since, tokenExpiresAt } = json as Record<string, string>;
    expect(Date.parse(since!)).toBeLessThanOrEqual(Date.now());
    expect(Date.parse(tokenExpiresAt!) - Date.now()).toBeGreaterThan(3_000_000);
  });

  test('tells why it is offline, and when it tries again', async () => {
    await using it = await startAgent({ online: false });
    expect((await it.curl('/v1/status')).json).toMatchObject({
      state: 'waiting',
      attempt: 1,
      nextTryAt: expect.stringMatching(/Z$/) as unknown,
      lastError: { code: 'refused' },
    });
  });
});

describe('POST /v1/telemetry', () => {
  test('takes what curl -d sends, and answers when it is on disk', async () => {
    await using it = await startAgent();
    const { status, json } = await it.curl('/v1/telemetry?prop.room=kitchen&messageId=m1', '-d', '{"t":21}');
    expect([status, json]).toMatchObject([202, { messageId: 'm1', outcome: 'queued' }]);
    const [sent] = await it.hub.waitFor(
      (record) => record.of('telemetry').length === 1 && record.of('telemetry'),
    );
    expect(sent).toMatchObject({
      messageId: 'm1',
      contentType: 'application/json',
      properties: { room: 'kitchen' },
      body: Buffer.from('{"t":21}'),
    });
  });

  test('keeps bytes as they are, with the content type that is given', async () => {
    await using it = await startAgent();
    const file = await it.folder.write('body', Buffer.from([0, 255, 10, 13]));
    const image = ['-H', 'content-type: image/x', '--data-binary', `@${file}`];
    expect((await it.curl('/v1/telemetry?wait=hub', ...image)).status).toBe(200);
    expect(it.hub.record.of('telemetry')).toMatchObject([
      { contentType: 'image/x', body: Buffer.from([0, 255, 10, 13]) },
    ]);
  });

  test('with wait=hub answers as the hub did, and what it rejects is a dead letter', async () => {
    await using it = await startAgent();
    it.hub.faults.add({
      at: 'transfer',
      link: 'telemetry',
      do: { act: 'answer', outcome: 'rejected', condition: 'amqp:link:message-size-exceeded' },
    });
    const { status, json } = await it.curl('/v1/telemetry?wait=hub', '-d', 'x');
    expect([status, json]).toMatchObject([
      422,
      { outcome: 'rejected', condition: 'amqp:link:message-size-exceeded', retryable: false },
    ]);
    expect((await it.curl('/v1/telemetry?wait=hub', '-d', 'x')).json).toMatchObject({ outcome: 'accepted' });
    expect((await it.curl('/v1/spool')).json).toMatchObject({ deadLetters: { count: 1 } });
  });

  test('with wait=hub and no hub it says after the time given that it is kept', async () => {
    await using it = await startAgent({ online: false });
    const { status, json } = await it.curl('/v1/telemetry?wait=hub&timeout=200ms', '-d', 'x');
    expect([status, json]).toMatchObject([504, { outcome: 'queued', code: 'unavailable' }]);
    expect((await it.curl('/v1/spool')).json).toMatchObject({ waiting: { count: 1 } });
    expect(await it.curl('/v1/drain?timeout=200ms', '-X', 'POST')).toMatchObject({ status: 504 });
  });

  test('what it said is queued survives kill -9, and the next agent sends it', async () => {
    await using it = await startAgent();
    it.hub.faults.add({ at: 'credit', link: 'telemetry', times: 'always', do: { act: 'withhold' } });
    await it.restart();
    for (let n = 0; n < 20; n++) {
      expect((await it.curl('/v1/telemetry', '-d', String(n))).status).toBe(202);
    }
    it.agent.kill('SIGKILL');
    await it.agent.ended();
    it.hub.faults.clear();
    await it.restart();
    await it.hub.waitFor((record) => record.of('telemetry').length >= 20, { timeoutMs: 20_000 });
    const bodies = it.hub.record.of('telemetry').map(({ body }) => Number(body));
    expect(bodies).toEqual(Array.from({ length: 20 }, (_, n) => n));
  });

  test.each([
    ['?wiat=hub', ['-d', 'x'], 400, /did you mean "wait"/],
    ['?wait=moon', ['-d', 'x'], 400, /"disk" or "hub"/],
    ['?timeout=30', ['-d', 'x'], 400, /needs a unit/],
  ])('says what is wrong with %s', async (query, args, status, what) => {
    await using it = await startAgent();
    const answered = await it.curl(`/v1/telemetry${query}`, ...args);
    expect(answered.status).toBe(status);
    expect(Object.values(answered.json as object).join(' ')).toMatch(what);
  });

  test('refuses what the hub would not take', async () => {
    await using it = await startAgent();
    const large = await it.folder.write('large', Buffer.alloc(300 * 1024, 'x'));
    const { status, json } = await it.curl('/v1/telemetry', '--data-binary', `@${large}`);
    expect([status, json]).toMatchObject([400, { code: 'data' }]);
  });
});

describe('POST /v1/telemetry as NDJSON', () => {
  const ndjson = ['-H', 'content-type: application/x-ndjson', '--data-binary'];

  test('answers each line in order, also those that it cannot read', async () => {
    await using it = await startAgent();
    const lines = '{"bodyText":"a","messageId":"m1"}\nnonsense\n\n{"body":{"t":1},"messageId":"m3"}\n';
    const { status, body } = await it.curl('/v1/telemetry?wait=hub', ...ndjson, lines);
    expect(status).toBe(200);
    expect(jsonLines(body)).toMatchObject([
      { line: 1, messageId: 'm1', outcome: 'accepted' },
      { line: 2, outcome: 'failed', error: 'it is not JSON', code: 'data' },
      { line: 4, messageId: 'm3', outcome: 'accepted' },
    ]);
    expect(it.hub.record.of('telemetry').map(({ messageId }) => messageId)).toEqual(['m1', 'm3']);
  });

  test('answers while the lines still come', async () => {
    await using it = await startAgent();
    const stream = request({
      socketPath: it.socket,
      path: '/v1/telemetry',
      method: 'POST',
      headers: { 'content-type': 'application/x-ndjson' },
    });
    stream.write('{"bodyText":"first"}\n');
    const [response] = (await once(stream, 'response')) as [NodeJS.ReadableStream];
    const answers = response[Symbol.asyncIterator]();
    expect(String((await answers.next()).value)).toMatch(/"line":1,.*"queued"/);
    stream.write('{"bodyText":"second"}\n');
    expect(String((await answers.next()).value)).toMatch(/"line":2,.*"queued"/);
    stream.end();
    expect((await answers.next()).done).toBe(true);
  });

  test('takes five thousand lines, all of them and in order', async () => {
    await using it = await startAgent();
    const text = Array.from({ length: 5_000 }, (_, n) => `{"body":${String(n)}}\n`).join('');
    const file = await it.folder.write('lines', text);
    const { body } = await it.curl('/v1/telemetry', ...ndjson, `@${file}`);
    const answers = jsonLines(body);
    expect(answers.map(({ line }) => line)).toEqual(Array.from({ length: 5_000 }, (_, n) => n + 1));
    expect(new Set(answers.map(({ outcome }) => outcome))).toEqual(new Set(['queued']));
    expect(await it.curl('/v1/drain', '-X', 'POST')).toMatchObject({ status: 200 });
    const bodies = it.hub.record.of('telemetry').map(({ body }) => Number(body));
    expect(bodies).toEqual(Array.from({ length: 5_000 }, (_, n) => n));
  }, 60_000);

  test('ends with an answer for all that came when the agent is told to stop', async () => {
    await using it = await startAgent();
    const stream = request({
      socketPath: it.socket,
      path: '/v1/telemetry?wait=hub',
      method: 'POST',
      headers: { 'content-type': 'application/x-ndjson' },
    });
    stream.on('error', () => undefined);
    stream.write('{"bodyText":"first"}\n');
    const [response] = (await once(stream, 'response')) as [NodeJS.ReadableStream];
    it.agent.kill('SIGTERM');
    let text = '';
    for await (const chunk of response) text += String(chunk);
    expect(jsonLines(text)).toMatchObject([{ line: 1 }]);
    expect(await it.agent.ended()).toMatchObject({ code: 0 });
  });
});

test('unknown paths and methods are told what there is', async () => {
  await using it = await startAgent();
  expect(await it.curl('/v2/status')).toMatchObject({
    status: 404,
    json: { paths: expect.any(Array) as unknown },
  });
  expect(await it.curl('/v1/telemetry')).toMatchObject({ status: 405, json: { error: 'it takes POST' } });
  expect((await it.curl('/__proto__')).status).toBe(404);
});

describe('the socket', () => {
  test('is for its owner and group, in a directory for its owner, and goes with the agent', async () => {
    await using it = await startAgent();
    expect((await stat(it.socket)).mode & 0o777).toBe(0o660);
    expect((await stat(dirname(it.socket))).mode & 0o777).toBe(0o700);
    it.agent.kill('SIGTERM');
    expect(await it.agent.ended()).toMatchObject({ code: 0 });
    await expect(stat(it.socket)).rejects.toThrow('ENOENT');
  });

  test('that a dead agent left is replaced', async () => {
    await using it = await startAgent();
    it.agent.kill('SIGKILL');
    await it.agent.ended();
    expect((await stat(it.socket)).isSocket()).toBe(true);
    await it.restart();
    expect((await it.curl('/v1/status')).json).toMatchObject({ pid: it.agent.pid });
  });

  test('on which another agent answers is left to it', async () => {
    await using it = await startAgent();
    const env = { ...it.env, XDG_STATE_HOME: `${it.folder.path}/other` };
    await using second = new ToolProcess('iothub-device', ['run'], { env, cwd: it.folder.path });
    const { code, err } = await second.ended();
    expect([code, err]).toEqual([75, expect.stringContaining('another agent answers on')]);
    expect((await it.curl('/v1/status')).json).toMatchObject({ pid: it.agent.pid });
  });

  test('that systemd made is taken from it, under descriptor 3, and left to it', async () => {
    await using it = await startAgent();
    it.agent.kill('SIGTERM');
    await it.agent.ended();
    const path = join(it.folder.path, 'passed.sock');
    // A handler prints its environment: nothing of the passing is left in it.
    await it.folder.script('handler', 'cat >/dev/null; env > environment; ls -l /proc/self/fd > descriptors');
    await it.folder.write('agent.toml', '[[handlers]]\nexec = ["./handler"]\n');
    // As systemd does it: nobody but the agent accepts on the socket.
    const passing = `import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); os.dup2(s.fileno(), 3); os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="control")
os.execv(sys.argv[2], sys.argv[2:])`;
    const tool = join(import.meta.dirname, '../../bin/iothub-device.js');
    const program = [process.execPath, '--use-openssl-ca', tool, 'run'];
    const { PATH = '' } = process.env;
    const agent = spawn('python3', ['-c', passing, path, ...program], {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { PATH, ...it.env },
      cwd: it.folder.path,
    });
    const ended = once(agent, 'close');
    try {
      it.hub.sendCommand({ deviceId: device, messageId: 'c1', body: 'go' });
      await it.hub.waitFor((record) => record.of('outcome').length === 1, { timeoutMs: 20_000 });
      const { stdout } = await promisify(execFile)('curl', [
        '-sS',
        '--max-time',
        '10',
        '--unix-socket',
        path,
        'http://agent/v1/status',
      ]);
      expect(JSON.parse(stdout)).toMatchObject({ pid: agent.pid, state: 'online' });
      expect(await readFile(join(it.folder.path, 'environment'), 'utf8')).not.toMatch(/LISTEN_/);
      expect(await readFile(join(it.folder.path, 'descriptors'), 'utf8')).not.toMatch(/socket/);
    } finally {
      agent.kill('SIGTERM');
      await ended;
    }
    expect(agent.exitCode).toBe(0);
    expect((await stat(path)).isSocket()).toBe(true);
  });

  test('never takes the place of a file, nor a place where anyone may write', async () => {
    await using it = await startAgent();
    it.agent.kill('SIGTERM');
    await it.agent.ended();
    const letter = await it.folder.write('letter', 'mine');
    for (const [socket, why] of [
      [letter, 'is no socket'],
      ['/tmp/iothub.sock', 'anyone may write'],
    ] as const) {
      await it.folder.write('agent.toml', `[control]\nsocket = "${socket}"\n`);
      const { code, err } = await it.tool(['run']);
      expect([code, err]).toEqual([78, expect.stringContaining(why)]);
    }
    expect(await stat(letter).then((found) => found.size)).toBe(4);
  });
});
