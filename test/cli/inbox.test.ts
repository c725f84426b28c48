import { expect, onTestFinished, test } from 'vitest';

import { run } from '../../src/cli/main.js';
import { openStore, type Store } from '../../src/store/store.js';
import { device, startHub } from '../amqp/hub.js';
import { command } from '../handlers/kit.js';
import { fakeIo } from './fake-io.js';
import { environmentOf, Folder, runTool, ToolProcess } from './tool.js';

/** A store whose inbox has a command that waits, one that was put back, and two dead ones. */
async function filledStore(): Promise<{ directory: string; ids: number[] }> {
  const folder = await Folder.make();
  onTestFinished(() => folder[Symbol.asyncDispose]());
  const directory = `${folder.path}/store`;
  await using store = await open(directory);
  const ids: number[] = [];
  for (const [messageId, handler] of [
    ['a', 'update'],
    ['b', 'update'],
    ['c', 'reboot'],
    ['d', 'update'],
  ] as const) {
    const properties = { command: handler };
    const one = command({
      messageId,
      properties,
      contentType: 'application/json',
      body: Buffer.from('{"n":1.0}'),
    });
    await store.ledger.received(messageId);
    await store.inbox.take(messageId, one, handler);
    ids.push([...store.inbox.entries()].at(-1)!.id);
  }
  const [, b = 0, c = 0, d = 0] = ids;
  await store.inbox.began(b);
  await store.inbox.postponed(b, { by: 'attempt', reason: 'no space left' });
  for (const id of [c, d]) {
    await store.inbox.began(id);
    await store.inbox.finished(id, { outcome: 'reject', reason: 'no such \u001b[31mthing' }, undefined);
  }
  return { directory, ids };
}

function open(directory: string): Promise<Store> {
  return openStore({ directory, ledger: { replyMessage: () => undefined } });
}

async function inbox(args: string[]): Promise<{ code: number; out: string; err: string }> {
  const io = fakeIo();
  const code = await run('iothub-device', ['inbox', ...args], io);
  return { code, out: io.out, err: io.err };
}

const lines = (out: string): unknown[] =>
  out
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as unknown);

test('list has a line for each command, with why it is not done', async () => {
  const { directory, ids } = await filledStore();
  const all = await inbox(['list', '--directory', directory]);
  expect(all).toMatchObject({ code: 0, err: '' });
  expect(lines(all.out)).toMatchObject([
    {
      number: ids[0],
      state: 'waiting',
      handler: 'update',
      messageId: 'a',
      attempts: 0,
      bytes: 9,
      dueInMs: 0,
    },
    { number: ids[1], state: 'waiting', attempts: 1, failures: 1, reason: 'no space left' },
    { number: ids[2], state: 'dead', handler: 'reboot', reason: 'no such \u001b[31mthing' },
    { number: ids[3], state: 'dead', messageId: 'd' },
  ]);
  const dead = await inbox(['list', '--directory', directory, '--state', 'dead', '--handler', 'update']);
  expect(lines(dead.out)).toMatchObject([{ messageId: 'd' }]);
  const text = await inbox(['list', '--directory', directory, '-o', 'text']);
  expect(text.out).not.toContain('\u001b');
  expect(text.out.split('\n')).toHaveLength(5);
});

test('show has the command as a whole, as it came', async () => {
  const { directory, ids } = await filledStore();
  const id = String(ids[1]);
  const shown = await inbox(['show', id, '--directory', directory]);
  expect(shown.out).toContain('"body":{"n":1.0}');
  expect(lines(shown.out)).toMatchObject([
    {
      number: ids[1],
      command: { messageId: 'b', properties: { command: 'update' }, hub: { deviceId: 'dev1' } },
    },
  ]);
  const text = await inbox(['show', id, '--directory', directory, '-o', 'text']);
  expect(text.out).toMatch(/^why {9}no space left$/m);
  expect(text.out).toMatch(/^body {8}\{"n":1\.0\}$/m);
  expect(await inbox(['show', '9999', '--directory', directory])).toMatchObject({
    code: 66,
    err: expect.stringContaining('the inbox has no command 9999'),
  });
});

test('retry and drop take numbers, or all dead ones when that is said', async () => {
  const { directory, ids } = await filledStore();
  const [a, , c] = ids;
  expect(await inbox(['retry', String(c), '--directory', directory])).toMatchObject({
    code: 0,
    out: '{"retried":1}\n',
  });
  expect(await inbox(['drop', '--directory', directory])).toMatchObject({
    code: 64,
    err: expect.stringContaining('this would throw away 1 command for good'),
  });
  expect((await inbox(['drop', '--yes', '--directory', directory])).out).toBe('{"dropped":1}\n');
  expect((await inbox(['drop', String(a), '--directory', directory])).out).toBe('{"dropped":1}\n');
  const left = await inbox(['list', '--directory', directory]);
  expect(lines(left.out)).toMatchObject([
    { messageId: 'b', state: 'waiting' },
    { messageId: 'c', state: 'waiting', failures: 0 },
  ]);
});

test('beside an agent it says who has the inbox', async () => {
  const { directory } = await filledStore();
  await using _owner = await open(directory);
  const tried = await runTool('iothub-device', ['inbox', 'list', '--directory', directory]);
  expect(tried).toMatchObject({ code: 75, err: expect.stringContaining(String(process.pid)) });
});

test('a command that was given up runs again after retry, and what comes of it is told', async () => {
  await using hub = await startHub();
  await using folder = await Folder.make();
  const env = await environmentOf(hub, device, folder);
  const script = await folder.script('job', 'cat; [ -e fixed ] || { echo "not yet" >&2; exit 65; }');
  const config = await folder.write('agent.toml', `[[handlers]]\nexec = ["${script}"]\nsettle = "inbox"\n`);
  const options = { env, cwd: folder.path };
  const agentUntil = async (outcome: string): Promise<void> => {
    await using _agent = new ToolProcess('iothub-device', ['run', '--config', config], options);
    const reply = await hub.waitFor(
      (record) =>
        record.of('telemetry').find(({ properties }) => properties['iothub-command-outcome'] === outcome),
      { timeoutMs: 20_000 },
    );
    expect(reply).toMatchObject({ correlationId: 'c1', body: Buffer.from('go') });
  };
  hub.sendCommand({ deviceId: device, messageId: 'c1', body: 'go' });
  await agentUntil('reject');
  const listed = await runTool('iothub-device', ['inbox', 'list', '--config', config], options);
  const [entry] = lines(listed.out) as { number: number }[];
  expect(entry).toMatchObject({ state: 'dead', reason: 'not yet', messageId: 'c1' });
  await folder.write('fixed', '');
  const args = ['inbox', 'retry', String(entry!.number), '--config', config];
  expect(await runTool('iothub-device', args, options)).toMatchObject({ code: 0 });
  await agentUntil('accept');
});
