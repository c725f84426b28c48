import { chmod, cp, mkdir, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';

import type { EmulatorOptions } from '../../src/emulator/emulator.js';
import { device, startHub } from '../amqp/hub.js';
import { testPython } from '../handlers/kit.js';
import { environmentOf, Folder, ToolProcess } from './tool.js';

async function setUp(options: EmulatorOptions = {}) {
  const hub = await startHub(options);
  const folder = await Folder.make();
  const env = await environmentOf(hub, device, folder);
  return {
    hub,
    folder,
    start: async (config: string) => {
      const file = await folder.write('agent.toml', config);
      const agent = new ToolProcess('iothub-device', ['run', '--config', file], { env, cwd: folder.path });
      await agent.says(/online/);
      return agent;
    },
    /** What came back about a command, once it has. */
    reply: (to: string) =>
      hub.waitFor((record) => record.of('telemetry').find(({ correlationId }) => correlationId === to), {
        timeoutMs: 20_000,
      }),
    outcomesOf: (id: string) =>
      hub.record
        .of('outcome')
        .filter(({ messageId }) => messageId === id)
        .map(({ outcome }) => outcome.outcome),
    async [Symbol.asyncDispose]() {
      await hub[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

test('a module replies, sends telemetry of its own, and runs in the agent', async () => {
  await using it = await setUp();
  await it.folder.write(
    'module.mjs',
    `export default {
  on: 'command',
  async handle(command, { send }) {
    await send({ body: { seen: command.text() }, properties: { from: 'module' }, messageId: 'sent' });
    if (command.text() === 'big') return command.accept({ reply: 'x'.repeat(300_000) });
    return command.accept({ reply: { pid: process.pid } });
  },
};`,
  );
  await using agent = await it.start('[[handlers]]\nmodule = "./module.mjs"\n');
  it.hub.sendCommand({ deviceId: device, messageId: 'c1', body: 'hello' });
  expect(await it.reply('c1')).toMatchObject({
    contentType: 'application/json',
    properties: { 'iothub-command-outcome': 'accept' },
    body: Buffer.from(`{"pid":${agent.pid}}`),
  });
  expect(it.hub.record.of('telemetry').find(({ messageId }) => messageId === 'sent')).toMatchObject({
    properties: { from: 'module' },
    body: Buffer.from('{"seen":"hello"}'),
  });
  // Larger than a message may be: it goes out cut, and says so here and there.
  it.hub.sendCommand({ deviceId: device, messageId: 'c2', body: 'big' });
  const cut = await it.reply('c2');
  expect(cut.properties).toEqual({
    'iothub-command-outcome': 'accept',
    'iothub-command-reply-bytes': '300000',
  });
  expect(cut.body).toHaveLength(192 * 1024);
  await agent.says(/the reply is too large/);
});

test('a program that prints more than is kept has its reply marked, and one that rejects says why in it', async () => {
  await using it = await setUp();
  const much = await it.folder.script('much', 'cat >/dev/null; yes | head -c 100000');
  const no = await it.folder.script('no', 'cat >/dev/null; echo "not today" >&2; exit 65');
  const silent = await it.folder.script('silent', 'cat >/dev/null');
  await using _agent = await it.start(
    [
      ['much', much],
      ['no', no],
      ['silent', silent],
    ]
      .map(
        ([id, file]) => `[[handlers]]\nexec = ["${file}"]\nreply = true\nmatch = { message_id = "${id}" }\n`,
      )
      .join(''),
  );
  for (const messageId of ['much', 'no', 'silent']) {
    it.hub.sendCommand({ deviceId: device, messageId, body: 'go' });
  }
  const cut = await it.reply('much');
  expect(cut.body).toHaveLength(64 * 1024);
  expect(cut.properties['iothub-command-reply-bytes']).toBe('100000');
  expect(await it.reply('no')).toMatchObject({
    properties: { 'iothub-command-outcome': 'reject', 'iothub-command-reason': 'not today' },
    body: Buffer.alloc(0),
  });
  expect((await it.reply('silent')).properties).toEqual({ 'iothub-command-outcome': 'accept' });
});

testPython(
  'a stream counts across commands, and handlers are found in directories by their names',
  async () => {
    await using it = await setUp();
    const handlers = join(it.folder.path, 'handlers');
    await cp(join(import.meta.dirname, '../../config/handlers'), handlers, { recursive: true });
    for (const entry of ['.', ...(await readdir(handlers, { recursive: true }))]) {
      const path = join(handlers, entry);
      await chmod(path, (await stat(path)).mode & 0o755);
    }
    await mkdir(join(handlers, 'command.d'), { recursive: true });
    await writeFile(join(handlers, 'command.d/broken'), '#!/bin/sh\n', { mode: 0o600 });
    await using agent = await it.start(
      `commands.handlers_dir = "handlers"
commands.release_delay = "100ms"
[[handlers]]
exec = ["./handlers/counter-stream.py"]
mode = "stream"
match = { property = { command = "count" } }
`,
    );
    const send = (messageId: string, command: string, body: string): void => {
      const contentType = 'application/json';
      it.hub.sendCommand({ deviceId: device, messageId, properties: { command }, body, contentType });
    };
    send('n1', 'count', '2');
    expect((await it.reply('n1')).body.toString()).toBe('{"total":2}');
    send('n2', 'count', '40');
    expect((await it.reply('n2')).body.toString()).toBe('{"total":42}');
    send('limit', 'set-limit', '80');
    send('other', '../../../bin/sh', '80');
    // A handler that is refused gives its commands back; it is not there for nobody.
    send('broken', 'broken', '80');
    await vi.waitFor(() => {
      expect([it.outcomesOf('limit'), it.outcomesOf('other')]).toEqual([['accepted'], ['rejected']]);
      expect(new Set(it.outcomesOf('broken'))).toEqual(new Set(['released']));
    });
    expect(agent.err).toMatch(/a handler is refused.*command\.d\/broken.*not executable/);
  },
);

test('a handler that is put right works without a restart', async () => {
  await using it = await setUp();
  const file = await it.folder.write('h', '#!/bin/sh\ncat >/dev/null\n', 0o600);
  await using agent = await it.start(`commands.release_delay = "100ms"\n[[handlers]]\nexec = ["./h"]\n`);
  it.hub.sendCommand({ deviceId: device, messageId: 'c1', body: 'go' });
  await vi.waitUntil(() => it.outcomesOf('c1').includes('released'));
  await chmod(file, 0o700);
  await vi.waitUntil(() => it.outcomesOf('c1').includes('accepted'), { timeout: 10_000 });
  await agent.says(/a handler works again/);
});
