import { expect, test, vi } from 'vitest';

import { device, startHub } from '../amqp/hub.js';
import { environmentOf, Folder, runTool, ToolProcess } from './tool.js';

const module = `import { RetryLater } from 'REPLACED';
export default {
  on: 'command',
  async handle(command, { attempt, log, signal, deadline }) {
    switch (command.text()) {
      case 'text': return command.accept({ reply: 'plain ' + command.messageId });
      case 'bytes': return command.accept({ reply: Buffer.from([0, 255]) });
      case 'exact 1.0': return command.accept({ reply: command.body.toString('hex') });
      case 'no': return command.reject('not this');
      case 'later': if (attempt === 1) throw new RetryLater('busy'); return;
      case 'bug': return undefined.x;
      case 'heeds': await new Promise((_, no) => signal.addEventListener('abort', () => no(signal.reason)));
      case 'loops': if (attempt === 1) for (;;); return;
      case 'exits': if (attempt === 1) process.exit(3); return;
      case 'says': log.warn('look', { at: 'this' }); return;
      case 'peeks': return command.accept({ reply: { pid: process.pid, env: Object.keys(process.env), inTime: deadline - Date.now() <= 45000 } });
    }
  },
};
`;

async function setUp(rules = '') {
  const folder = await Folder.make();
  const contract = new URL('../../dist/handlers/contract.js', import.meta.url).href;
  await folder.write('module.mjs', module.replace('REPLACED', contract));
  const config = await folder.write(
    'agent.toml',
    `[commands]\nrelease_delay = "100ms..100ms"\n[[handlers]]\nmodule = "./module.mjs"\nisolate = true\norder = "none"\n${rules}`,
  );
  return Object.assign(folder, { config });
}

test.concurrent.each([
  ['text', { outcome: 'accept', output: 'plain m1' }],
  ['exact 1.0', { outcome: 'accept', output: Buffer.from('exact 1.0').toString('hex') }],
  ['no', { outcome: 'reject', reason: 'not this', decidedBy: 'handler' }],
  ['later', { outcome: 'release', reason: 'busy', decidedBy: 'handler' }],
  ['bug', { outcome: 'release', decidedBy: 'fault' }],
  ['heeds', { outcome: 'release', decidedBy: 'fault', reason: 'no end after so many s' }],
  ['loops', { outcome: 'release', decidedBy: 'fault', reason: 'no answer after so many s' }],
  ['exits', { outcome: 'release', decidedBy: 'fault', reason: 'its program ended: exit 3' }],
])('an isolated module, given "%s"', async (body, result) => {
  await using folder = await setUp('reply = true\ntimeout = "2s"\n');
  const args = ['handler', 'test', '-c', folder.config, '--data', body, '--message-id', 'm1', '-o', 'json'];
  const { out } = await runTool('iothub-device', args);
  const [line = ''] = out.split('\n');
  const { reason = '', ...got } = JSON.parse(line) as { reason?: string };
  expect({ ...got, reason: reason.replace(/[\d.]+ s$/, 'so many s') }).toMatchObject(result);
});

test('an isolated module that blocks stops nothing else, has no secret, and is replaced', async () => {
  await using hub = await startHub();
  await using folder = await setUp(
    `timeout = "2s"\nmatch = { property = { to = "module" } }\n[[handlers]]\nexec = ["tee"]\nreply = true\n`,
  );
  const env = await environmentOf(hub, device, folder);
  await using agent = new ToolProcess('iothub-device', ['run', '--config', folder.config], {
    env,
    cwd: folder.path,
  });
  await agent.says(/online/);
  const replies = new Map<string, string>();
  const send = (body: string, to: 'module' | 'tee') =>
    hub.sendCommand({ deviceId: device, messageId: body, body, properties: { to } });
  const replyTo = async (body: string, to: 'module' | 'tee'): Promise<string> => {
    send(body, to);
    await hub.waitFor(() => {
      for (const { correlationId = '', body: reply } of hub.record.of('telemetry')) {
        replies.set(correlationId, String(reply));
      }
      return replies.has(body);
    });
    return replies.get(body)!;
  };
  const peeked = JSON.parse(await replyTo('peeks', 'module')) as {
    pid: number;
    env: string[];
    inTime: boolean;
  };
  expect(peeked.pid).not.toBe(agent.pid);
  expect(peeked.env.filter((name) => name.startsWith('IOTHUB_')).toSorted()).toEqual([
    'IOTHUB_HANDLER',
    'IOTHUB_RUN_ID',
  ]);
  send('loops', 'module');
  const outcomesOf = (id: string) =>
    hub.record.of('outcome').flatMap(({ messageId, outcome }) => (messageId === id ? [outcome.outcome] : []));
  expect(await replyTo('hello', 'tee')).toBe('hello');
  expect(outcomesOf('loops')).toEqual([]);
  // It is killed, and there is another when the command comes again.
  await vi.waitUntil(() => outcomesOf('loops').length === 2, { timeout: 25_000 });
  expect(outcomesOf('loops')).toEqual(['released', 'accepted']);
  agent.kill('SIGTERM');
  expect((await agent.ended()).code).toBe(0);
  expect(() => process.kill(peeked.pid, 0)).toThrow('ESRCH');
});

test('a missing module is refused, and so is isolate without a module', async () => {
  await using folder = await Folder.make();
  const list = async (handler: string) => {
    const config = await folder.write('agent.toml', `[[handlers]]\n${handler}\nisolate = true\n`);
    const { code, out, err } = await runTool('iothub-device', [
      'handler',
      'list',
      '-c',
      config,
      '-o',
      'json',
    ]);
    return { code, said: out + err };
  };
  expect(await list('module = "./gone.mjs"')).toMatchObject({
    code: 78,
    said: expect.stringContaining('gone.mjs is missing') as unknown,
  });
  expect(await list('exec = ["true"]')).toMatchObject({
    code: 78,
    said: expect.stringContaining('only with module') as unknown,
  });
});
