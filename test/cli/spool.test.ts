import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { run } from '../../src/cli/main.js';
import { device, startHub } from '../amqp/hub.js';
import { fakeIo } from './fake-io.js';
import { environmentOf, Folder, runTool, ToolProcess } from './tool.js';

/** A device whose spool nobody else has, and a hub that it knows. */
async function setUp() {
  const hub = await startHub();
  const folder = await Folder.make();
  const env = await environmentOf(hub, device, folder);
  const tool = (args: readonly string[], input?: string | Buffer) =>
    runTool('iothub-device', args, { env, ...(input === undefined ? {} : { input }) });
  return {
    hub,
    folder,
    env,
    tool,
    /** Queues a message `m1`, `m2` … for each text. */
    async queue(...texts: string[]) {
      const args = ['send', '--queue', '--lines', '--message-id', 'm', '-o', 'none'];
      expect(await tool(args, texts.map((text) => `${text}\n`).join(''))).toMatchObject({ code: 0, err: '' });
    },
    async list(...args: string[]) {
      return jsonLines((await tool(['spool', 'list', '-o', 'json', ...args])).out);
    },
    /** The hub says this to the next transfers. */
    answer(condition: string, times: number | 'always' = 1) {
      return hub.faults.add({
        at: 'transfer',
        link: 'telemetry',
        times,
        do: { act: 'answer', outcome: 'rejected', condition, description: 'no, sorry' },
      });
    },
    accepted: () =>
      hub.record
        .of('telemetry')
        .filter(({ outcome }) => outcome.outcome === 'accepted')
        .map(({ messageId }) => messageId),
    async [Symbol.asyncDispose]() {
      await hub[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

const jsonLines = (text: string): Record<string, unknown>[] =>
  text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);

describe('looking into the spool', () => {
  test('stats says where it is, how much waits and since when', async () => {
    await using it = await setUp();
    await it.queue('1', '2', '3');
    const [stats] = jsonLines((await it.tool(['spool', 'stats'])).out);
    expect(stats).toMatchObject({
      directory: expect.stringContaining(join(it.folder.path, 'state/iothub-device/localhost%3A')) as unknown,
      pending: { count: 3 },
      rejected: { count: 0 },
      dropped: { expired: { count: 0 } },
      limitBytes: 256 * 1024 * 1024,
    });
    expect(stats!['oldestAgeMs']).toBeGreaterThan(0);
    const { out } = await it.tool(['spool', 'stats', '-o', 'text']);
    expect(out).toMatch(/^pending +3 messages, \d+ B of 256 MiB, the oldest for \d+/m);
    expect(out).toMatch(/^dropped +none$/m);
  });

  test('list has a line for each message in the order in which they will be sent', async () => {
    await using it = await setUp();
    await it.queue('1', '2');
    expect(await it.list()).toMatchObject([
      { id: 1, state: 'pending', messageId: 'm-1', deviceId: device },
      { id: 2, state: 'pending', messageId: 'm-2' },
    ]);
    const { out } = await it.tool(['spool', 'list', '-o', 'text', '--utc']);
    expect(out).toMatch(/^1 +pending +\d{4}-\d\d-\d\d \S+Z +\d+ B +m-1\n2 +pending .*m-2\n$/);
    expect(await it.list('--state', 'rejected')).toEqual([]);
    expect(await it.list('--older-than', '1h')).toEqual([]);
    expect(await it.list('--older-than', '1ms')).toHaveLength(2);
  });

  test('show has all of a message, and nothing in it drives the terminal', async () => {
    await using it = await setUp();
    const send = ['send', '--queue', '--data', 'red \u001b[31m', '--prop', 'room=a', '--message-id', 'm1'];
    expect(await it.tool(send)).toMatchObject({ code: 0 });
    const { out } = await it.tool(['spool', 'show', '1', '-o', 'text']);
    expect(out).toMatch(/^message id +m1$/m);
    expect(out).toMatch(/^property +room=a$/m);
    expect(out).toMatch(/^body +red \\x1b\[31m$/m);
    const json = jsonLines((await it.tool(['spool', 'show', '1', '-o', 'json'])).out);
    expect(json).toMatchObject([
      { id: 1, message: { bodyText: 'red \u001b[31m', properties: { room: 'a' } } },
    ]);
  });

  test('a number that no message has exits 66', async () => {
    await using it = await setUp();
    await it.queue('1');
    const { code, err } = await it.tool(['spool', 'show', '1', '7']);
    expect([code, err]).toEqual([66, expect.stringContaining('no message 7')]);
  });

  test('needs no identity when the directory is named, and makes none that is not there', async () => {
    await using it = await setUp();
    await it.queue('1');
    const [{ directory } = {}] = jsonLines((await it.tool(['spool', 'stats'])).out);
    const args = ['spool', 'list', '--directory', String(directory)];
    expect(jsonLines((await runTool('iothub-device', args)).out)).toHaveLength(1);
    const missing = join(it.folder.path, 'typo');
    expect(await it.tool(['spool', 'stats', '--directory', missing])).toMatchObject({ code: 66 });
    expect(await readdir(it.folder.path)).not.toContain('typo');
  });

  test('verify finds a damaged byte, sets it aside, and exits 74; the other messages are sound', async () => {
    await using it = await setUp();
    await it.queue('1', '2', '3');
    expect(await it.tool(['spool', 'verify', '-o', 'text'])).toMatchObject({
      code: 0,
      out: 'sound: 3 items\n',
    });
    const [{ directory } = {}] = jsonLines((await it.tool(['spool', 'stats'])).out);
    const segment = (await readdir(String(directory))).find((name) => name.endsWith('.log'))!;
    await using file = await open(join(String(directory), segment), 'r+');
    const { buffer } = await file.read(Buffer.alloc(4096), 0, 4096, 0);
    await file.write(Buffer.from('!'), 0, 1, buffer.indexOf('m-2'));
    const { code, out } = await it.tool(['spool', 'verify', '-o', 'json']);
    expect(code).toBe(74);
    const [verdict] = jsonLines(out);
    expect(verdict).toMatchObject({ items: 2, damaged: 1 });
    expect(await readdir(String(verdict!['keptIn']))).toHaveLength(1);
    expect((await it.list()).map(({ messageId }) => messageId)).toEqual(['m-1', 'm-3']);
  });
});

describe('export', () => {
  const lines = [
    '{"messageId":"json","body":{"n":1763614800123456789, "a":[1]}}',
    '{"messageId":"pretty","contentType":"application/json","bodyText":"{\\n  \\"t\\": 21.50\\n}\\n"}',
    '{"messageId":"bare","contentType":null,"contentEncoding":null,"bodyText":"Ada Löv\\r\\n\\u2028"}',
    '{"messageId":"bytes","bodyBase64":"AAH/Cg0K"}',
    '{"messageId":"empty","bodyText":""}',
    '{"messageId":"full","correlationId":"c","userId":"ü","creationTime":"2026-11-20T05:00:00.1234567Z","expiresAt":"2099-01-01T00:00:00.001Z","component":"thermo","outputName":"out","contentType":"text/csv","contentEncoding":"utf-16","properties":{"room":"a b","__proto__":"x","ünï":"1"},"bodyText":"1;2"}',
  ].map((line) => `${line}\n`);

  test('comes back through send --ndjson as the same messages, byte for byte', async () => {
    await using it = await setUp();
    await it.tool(['send', '--queue', '--ndjson'], lines.join(''));
    const exported = await it.tool(['spool', 'export']);
    expect(exported).toMatchObject({ code: 0, err: '' });
    expect(jsonLines(exported.out)).toHaveLength(lines.length);

    // Through a second spool: what comes out is the same text.
    const second = ['--directory', join(it.folder.path, 'second')];
    expect(await it.tool(['send', '--queue', '--ndjson', ...second], exported.out)).toMatchObject({
      code: 0,
    });
    expect((await it.tool(['spool', 'export', ...second])).out).toBe(exported.out);

    // And through the hub: what was exported arrives as what was queued.
    expect(await it.tool(['send', '--ndjson'], exported.out)).toMatchObject({ code: 0 });
    expect(await it.tool(['spool', 'drain'])).toMatchObject({ code: 0 });
    const arrived = it.hub.record
      .of('telemetry')
      .map(({ messageId, correlationId, contentType, properties, annotations, body }) =>
        JSON.stringify({
          messageId,
          correlationId,
          contentType,
          properties,
          annotations,
          body: body.toString('hex'),
        }),
      );
    expect(arrived).toHaveLength(2 * lines.length);
    const sent = arrived.slice(0, lines.length).map(withoutTimes);
    expect(arrived.slice(lines.length).map(withoutTimes)).toEqual(sent);
  });

  test('takes some only, and nothing is changed by it', async () => {
    await using it = await setUp();
    await it.queue('1', '2', '3');
    const { out } = await it.tool(['spool', 'export', '3', '1']);
    expect(jsonLines(out).map(({ messageId }) => messageId)).toEqual(['m-3', 'm-1']);
    expect(await it.list()).toHaveLength(3);
  });
});

/** What the hub stamped on a message differs from one delivery to the next. */
function withoutTimes(text: string): string {
  return text.replace(/\d{4}-\d\d-\d\dT[\d:.]+Z|\d{13}/g, 'T');
}

describe('drain', () => {
  test('sends all that waits in order, says how much, and exits 0', async () => {
    await using it = await setUp();
    const texts = Array.from({ length: 500 }, (_, n) => String(n));
    await it.queue(...texts);
    const { code, out } = await it.tool(['spool', 'drain', '-o', 'json']);
    expect(code).toBe(0);
    expect(jsonLines(out)).toMatchObject([{ sent: 500, rejected: 0, expired: 0, left: 0 }]);
    expect(it.accepted()).toEqual(texts.map((_, n) => `m-${String(n + 1)}`));
    expect(await it.list()).toEqual([]);
  });

  test('with nothing to send needs no hub', async () => {
    await using it = await setUp();
    await it.hub[Symbol.asyncDispose]();
    expect(await it.tool(['spool', 'drain', '-o', 'text'])).toMatchObject({ code: 0, err: '' });
  });

  test('goes on over a new connection when one is lost', async () => {
    await using it = await setUp();
    await it.queue(...Array.from({ length: 300 }, (_, n) => String(n)));
    it.hub.faults.add({ at: 'disposition', link: 'telemetry', do: { act: 'drop' } });
    const { code, out } = await it.tool(['spool', 'drain', '-o', 'json']);
    expect([code, jsonLines(out)]).toEqual([0, [expect.objectContaining({ sent: 300, left: 0 })]]);
    expect(new Set(it.accepted()).size).toBe(300);
  });

  test('that cannot connect exits 69 and leaves everything', async () => {
    await using it = await setUp();
    await it.queue('1', '2');
    await it.hub[Symbol.asyncDispose]();
    expect(await it.tool(['spool', 'drain'])).toMatchObject({ code: 69 });
    expect(await it.list()).toHaveLength(2);
  });

  test('that the hub lets wait gives up after the time-out, and says why by its exit code', async () => {
    await using it = await setUp();
    await it.queue('1', '2');
    it.answer('com.microsoft:device-container-throttled', 'always');
    const { code, out, err } = await it.tool(['spool', 'drain', '--timeout', '1s', '-o', 'json']);
    expect(code).toBe(75);
    expect(jsonLines(out)).toMatchObject([{ sent: 0, left: 2 }]);
    expect(err).toMatch(/2 messages are left: the hub has taken nothing for 1 s/);
  });

  test('stops on SIGINT with 130, and what was not sent is still there', async () => {
    await using it = await setUp();
    await it.queue('1', '2');
    it.hub.faults.add({ at: 'credit', link: 'telemetry', times: 'always', do: { act: 'withhold' } });
    await using drain = new ToolProcess('iothub-device', ['spool', 'drain', '-o', 'json'], { env: it.env });
    await it.hub.waitFor((record) => record.of('attached').length > 0);
    drain.kill('SIGINT');
    expect(await drain.ended()).toMatchObject({ code: 130 });
    expect(await it.list()).toHaveLength(2);
  });

  test('shows on a terminal how far it is', async () => {
    await using it = await setUp();
    await it.queue('1', '2');
    const io = fakeIo({ env: it.env, isTTY: true });
    expect(await run('iothub-device', ['spool', 'drain', '--ca', it.env['IOTHUB_DEVICE_CA']!], io)).toBe(0);
    expect(io.err).toContain('drain');
    expect(io.out).toMatch(/^sent 2 messages in /);
  });
});

describe('what the hub rejects for good', () => {
  /** Of two messages that went out together the first is refused: with the other, then alone. */
  async function withRejected() {
    const it = await setUp();
    await it.queue('1', '2');
    it.answer('amqp:not-allowed', 2);
    const { code, out } = await it.tool(['spool', 'drain', '-o', 'json']);
    expect([code, jsonLines(out)]).toEqual([
      65,
      [expect.objectContaining({ sent: 1, rejected: 1, left: 0 })],
    ]);
    return it;
  }

  test('is listed with its condition, and exported with it', async () => {
    await using it = await withRejected();
    const rejected = {
      state: 'rejected',
      messageId: 'm-1',
      condition: 'amqp:not-allowed',
      error: 'no, sorry',
    };
    expect(await it.list('--state', 'rejected')).toMatchObject([rejected]);
    const { out } = await it.tool(['spool', 'list', '--state', 'rejected', '-o', 'text']);
    expect(out).toContain('amqp:not-allowed: no, sorry');
    const exported = await it.tool(['spool', 'export']);
    expect(jsonLines(exported.out)).toMatchObject([
      { messageId: 'm-1', hub: { condition: 'amqp:not-allowed' } },
    ]);
    expect(await it.tool(['send', '--ndjson'], exported.out)).toMatchObject({ code: 0 });
  });

  test('comes back by requeue, and is sent by the next agent', async () => {
    await using it = await withRejected();
    const [{ id } = {}] = await it.list();
    const { code, out } = await it.tool(['spool', 'requeue', String(id), '-o', 'text']);
    expect([code, out]).toEqual([0, 'requeued 1 message\n']);
    expect(await it.list()).toMatchObject([{ state: 'pending', messageId: 'm-1' }]);
    const handler = await it.folder.script('handler', 'cat >/dev/null');
    await using agent = new ToolProcess('iothub-device', ['run', '--exec', handler], { env: it.env });
    await it.hub.waitFor(() => it.accepted().length === 2);
    expect(it.accepted()).toEqual(['m-2', 'm-1']);
    agent.kill('SIGTERM');
    await agent.ended();
  });

  test('requeue and drop of all want --yes, and say how many it would be', async () => {
    await using it = await withRejected();
    for (const verb of ['requeue', 'drop']) {
      const { code, err } = await it.tool(['spool', verb]);
      expect([code, err]).toEqual([64, expect.stringContaining('1 rejected message')]);
    }
    expect(await it.list()).toHaveLength(1);
    expect((await it.tool(['spool', 'drop', '--yes', '-o', 'json'])).out).toBe('{"dropped":1}\n');
    expect(await it.list()).toEqual([]);
    expect(await it.tool(['spool', 'requeue', '--yes', '-o', 'json'])).toMatchObject({
      code: 0,
      out: '{"requeued":0}\n',
    });
  });

  test('drop touches what is pending only when it is named, or by --state', async () => {
    await using it = await setUp();
    await it.queue('1', '2', '3');
    expect((await it.tool(['spool', 'drop', '--yes', '-o', 'json'])).out).toBe('{"dropped":0}\n');
    expect((await it.tool(['spool', 'drop', '2', '2', '-o', 'json'])).out).toBe('{"dropped":1}\n');
    expect((await it.list()).map(({ messageId }) => messageId)).toEqual(['m-1', 'm-3']);
    // One number that is wrong, and nothing happens.
    expect(await it.tool(['spool', 'drop', '1', '77'])).toMatchObject({ code: 66 });
    expect(await it.tool(['spool', 'requeue', '1'])).toMatchObject({ code: 66 });
    expect(await it.list()).toHaveLength(2);
    const all = ['spool', 'drop', '--state', 'pending', '--yes', '-o', 'json'];
    expect((await it.tool(all)).out).toBe('{"dropped":2}\n');
  });
});
