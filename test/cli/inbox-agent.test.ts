import { readdir } from 'node:fs/promises';

import { expect, test, vi } from 'vitest';

import { inboxChangeRoute, inboxRoute } from '../../src/daemon/control-inbox.js';
import { openControl } from '../../src/daemon/control.js';
import { answer, type Routes } from '../../src/daemon/http-server.js';
import { silentLog } from '../../src/log.js';
import { openStore } from '../../src/store/store.js';
import { device } from '../amqp/hub.js';
import { jsonLines, startAgent, type ControlledAgent } from '../daemon/agent-kit.js';
import { command } from '../handlers/kit.js';
import { Folder, runTool } from './tool.js';

/** An agent that has given up one command, runs another until there is a file, and keeps a third behind it. */
async function agentAtWork(): Promise<ControlledAgent> {
  const it = await startAgent({
    config: `[[handlers]]
name = "fails"
exec = ["./fails"]
match = { property = { command = "fails" } }
settle = "inbox"
[[handlers]]
name = "lasts"
exec = ["./lasts"]
match = { property = { command = "lasts" } }
settle = "inbox"
`,
  });
  await it.folder.script('fails', 'cat >/dev/null; [ -e mended ] || { echo "not yet" >&2; exit 65; }');
  await it.folder.script('lasts', 'cat >/dev/null; while [ ! -e over ] && [ -e lasts ]; do sleep 0.05; done');
  for (const [messageId, name] of [
    ['a', 'fails'],
    ['b', 'lasts'],
    ['c', 'lasts'],
  ] as const) {
    it.hub.sendCommand({
      deviceId: device,
      messageId,
      properties: { command: name },
      contentType: 'application/json',
      body: '{"n":1.0}',
    });
  }
  await vi.waitUntil(async () => (await states(it)).join() === 'a dead,b running,c waiting', {
    timeout: 20_000,
  });
  return it;
}

async function states(it: ControlledAgent): Promise<string[]> {
  const { out } = await it.tool(['inbox', 'list']);
  return jsonLines(out).map(({ messageId, state }) => `${String(messageId)} ${String(state)}`);
}

test('beside a running agent, list, show, retry and drop go through it', async () => {
  await using it = await agentAtWork();
  const numbers = jsonLines((await it.tool(['inbox', 'list'])).out).map(({ number }) => String(number));
  const [a = '', b = '', c = ''] = numbers;

  const shown = await it.tool(['inbox', 'show', a]);
  expect(shown).toMatchObject({ code: 0, err: '' });
  expect(shown.out).toContain('"body":{"n":1.0}');
  expect(jsonLines(shown.out)).toMatchObject([
    { state: 'dead', reason: 'not yet', command: { messageId: 'a', properties: { command: 'fails' } } },
  ]);
  expect(await it.tool(['inbox', 'show', '9999'])).toMatchObject({ code: 66 });

  // What runs is left alone; what waits for its turn can be taken away.
  expect(await it.tool(['inbox', 'drop', b])).toMatchObject({
    code: 75,
    err: expect.stringContaining(`the command ${b} is running`) as unknown,
  });
  expect((await it.tool(['inbox', 'drop', c])).out).toBe('{"dropped":1}\n');

  await it.folder.write('mended', '');
  expect(await it.tool(['inbox', 'retry', '--yes'])).toMatchObject({ code: 0, out: '{"retried":1}\n' });
  await it.folder.write('over', '');
  await vi.waitUntil(async () => (await states(it)).length === 0, { timeout: 20_000 });
  const told = it.hub.record
    .of('telemetry')
    .map(
      ({ correlationId, properties }) => `${correlationId!} ${String(properties['iothub-command-outcome'])}`,
    );
  expect(told.toSorted()).toEqual(['a accept', 'a reject', 'b accept']);
});

test('the agent that has a store is found by the name of its directory, and when nobody says who the device is', async () => {
  await using it = await agentAtWork();
  const { IOTHUB_DEVICE_CONFIG: config = '', XDG_STATE_HOME: state = '' } = it.env;
  const [host = ''] = await readdir(`${state}/iothub-device`);
  const directory = `${state}/iothub-device/${host}`;
  const named = await it.tool(['inbox', 'list', '--directory', directory]);
  expect([named.code, jsonLines(named.out).length]).toEqual([0, 3]);
  delete it.env['IOTHUB_DEVICE_CONNECTION_STRING'];
  const unnamed = await it.tool(['inbox', 'list', '--config', config]);
  expect([unnamed.code, jsonLines(unnamed.out).length]).toEqual([0, 3]);
});

test('requests that make no sense are refused', async () => {
  await using it = await agentAtWork();
  for (const path of ['/v1/inbox?after=x', '/v1/inbox/command', '/v1/inbox/command?id=one']) {
    expect((await it.curl(path)).status).toBe(400);
  }
  expect((await it.curl('/v1/inbox/command?id=9999')).status).toBe(404);
  expect((await it.curl('/v1/inbox/drop?id=9999', '-X', 'POST')).json).toMatchObject({ code: 'no-input' });
});

test('an inbox of more than a page is listed and emptied whole', async () => {
  await using folder = await Folder.make();
  const directory = `${folder.path}/store`;
  const ledger = { replyMessage: () => undefined };
  await using store = await openStore({ directory, ledger, inbox: { maximumWaiting: 2_000 } });
  const { inbox } = store;
  const take = async (key: string): Promise<void> => {
    const one = command({ messageId: key });
    await store.ledger.received(key);
    await inbox.take(key, one, 'h');
  };
  await Promise.all(Array.from({ length: 1_100 }, (_, n) => take(`c${n}`)));
  const routes: Routes = {
    '/v1/status': {
      GET: ({ response }) => {
        answer(response, 200, { pid: process.pid });
        return Promise.resolve();
      },
    },
    '/v1/inbox': { GET: inboxRoute(inbox) },
    '/v1/inbox/drop': { POST: inboxChangeRoute(inbox, 'drop') },
  };
  const socket = { from: 'path', path: `${folder.path}/iothub-device/any.sock` } as const;
  await using _control = await openControl(socket, routes, silentLog);
  const env = { XDG_RUNTIME_DIR: folder.path };
  const ask = (...args: string[]) =>
    runTool('iothub-device', ['inbox', ...args, '--directory', directory], { env });

  const listed = jsonLines((await ask('list')).out);
  expect(listed.map(({ messageId }) => messageId)).toEqual(
    [...inbox.entries()].map((entry) => entry.command.messageId),
  );
  expect(listed).toHaveLength(1_100);
  expect((await ask('drop', '--state', 'waiting', '--yes')).out).toBe('{"dropped":1100}\n');
  expect(inbox.size).toEqual({ waiting: 0, dead: 0 });
});
