import { readFile } from 'node:fs/promises';

import { expect, test, vi } from 'vitest';

import { device, startHub } from '../amqp/hub.js';
import { environmentOf, Folder, ToolProcess } from './tool.js';

/** A hub that gives a command back soon, and an agent that can be started again and again over one store. */
async function setUp(lockMs: number) {
  const hub = await startHub({ commands: { lockMs } });
  const folder = await Folder.make();
  const env = await environmentOf(hub, device, folder);
  return {
    hub,
    folder,
    start: (config: string) =>
      new ToolProcess('iothub-device', ['run', '--config', config], { env, cwd: folder.path }),
    runs: async () =>
      (await readFile(`${folder.path}/runs`, 'utf8').catch(() => ''))
        .split('\n')
        .filter((line) => line !== ''),
    async [Symbol.asyncDispose]() {
      await hub[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

const handlerConfig = (script: string, more = '') =>
  `[commands]\norder = "none"\n[[handlers]]\nexec = ["${script}"]\n${more}`;

/** Kills the agent when it has settled its command, of which a frozen hub has heard nothing. */
async function killSettled({ hub }: Awaited<ReturnType<typeof setUp>>, agent: ToolProcess): Promise<void> {
  await agent.says(/command settled/);
  agent.kill('SIGKILL');
  await agent.ended();
  expect(hub.record.of('outcome')).toEqual([]);
  hub.faults.now({ act: 'drop' });
}

test('a command whose outcome was recorded is answered after a kill -9 without running again', async () => {
  await using it = await setUp(60_000);
  const script = await it.folder.script(
    'handler',
    'cat >/dev/null; echo "$IOTHUB_MESSAGE_ID" >> runs; sleep 0.5; exit 65',
  );
  const config = await it.folder.write('agent.toml', `${handlerConfig(script)}[log]\nlevel = "debug"\n`);
  {
    await using agent = it.start(config);
    it.hub.sendCommand({ deviceId: device, messageId: 'c1', body: 'go', ack: 'full' });
    await vi.waitUntil(async () => (await it.runs()).length === 1, { timeout: 20_000 });
    // From here on the hub hears nothing, so that it does not know what was decided.
    it.hub.faults.now({ act: 'freeze' });
    await killSettled(it, agent);
  }
  await using _again = it.start(config);
  await it.hub.waitFor((record) => record.of('feedback').length > 0, { timeoutMs: 20_000 });
  expect(it.hub.record.of('feedback')[0]?.records).toMatchObject([
    { originalMessageId: 'c1', statusCode: 'Rejected' },
  ]);
  expect(await it.runs()).toEqual(['c1']);
});

test('lock lost, link lost between outcome and settlement, agent killed there: one run, and the hub ends with completed', async () => {
  await using it = await setUp(500);
  const script = await it.folder.script(
    'handler',
    'cat >/dev/null; echo "$IOTHUB_MESSAGE_ID" >> runs; while [ ! -e over ]; do sleep 0.05; done',
  );
  const config = await it.folder.write('agent.toml', `${handlerConfig(script)}[log]\nlevel = "debug"\n`);
  it.hub.sendCommand({ deviceId: device, messageId: 'c1', body: 'go', ack: 'full' });
  {
    await using agent = it.start(config);
    await it.hub.waitFor((record) => record.of('delivery').length > 2, { timeoutMs: 20_000 });
    it.hub.faults.now({ act: 'freeze' });
    await it.folder.write('over', '');
    await killSettled(it, agent);
  }
  await using _again = it.start(config);
  await it.hub.waitFor((record) => record.of('feedback').length > 0, { timeoutMs: 20_000 });
  expect(it.hub.record.of('feedback').flatMap(({ records }) => records)).toMatchObject([
    { originalMessageId: 'c1', statusCode: 'Success' },
  ]);
  expect(await it.runs()).toEqual(['c1']);
});

test('a command that was running when the agent was killed is run again, or not, as its handler says', async () => {
  for (const [policy, wanted] of [
    ['run', { runs: 2, feedback: 'Success' }],
    ['reject', { runs: 1, feedback: 'Rejected' }],
  ] as const) {
    await using it = await setUp(60_000);
    const script = await it.folder.script(
      'handler',
      'cat >/dev/null; echo x >> runs; [ "$(wc -l < runs)" -gt 1 ] || exec sleep 60',
    );
    const config = await it.folder.write('agent.toml', handlerConfig(script, `after_crash = "${policy}"\n`));
    {
      await using agent = it.start(config);
      it.hub.sendCommand({ deviceId: device, messageId: 'c1', body: 'go', ack: 'full' });
      await vi.waitFor(
        async () => {
          expect(await it.runs()).toHaveLength(1);
        },
        { timeout: 20_000 },
      );
      agent.kill('SIGKILL');
      await agent.ended();
    }
    await using _again = it.start(config);
    await it.hub.waitFor((record) => record.of('feedback').length > 0, { timeoutMs: 20_000 });
    expect(it.hub.record.of('feedback')[0]?.records[0]?.statusCode).toBe(wanted.feedback);
    expect(await it.runs()).toHaveLength(wanted.runs);
  }
});

test("a handler's reply goes out as telemetry that points at its command", async () => {
  await using it = await setUp(60_000);
  const script = await it.folder.script('handler', 'printf "hello %s" "$(cat)"');
  const config = await it.folder.write('agent.toml', handlerConfig(script, 'reply = true\n'));
  await using _agent = it.start(config);
  it.hub.sendCommand({ deviceId: device, messageId: 'c1', body: 'Ada' });
  const reply = await it.hub.waitFor((record) => record.of('telemetry')[0], { timeoutMs: 20_000 });
  expect(reply).toMatchObject({ correlationId: 'c1', body: Buffer.from('hello Ada') });
  expect(it.hub.record.of('outcome')[0]?.outcome).toEqual({ outcome: 'accepted' });
});

test('a second agent for the same device is told who has the store, and leaves', async () => {
  await using it = await setUp(60_000);
  const script = await it.folder.script('handler', 'cat >/dev/null');
  const config = await it.folder.write('agent.toml', handlerConfig(script));
  await using first = it.start(config);
  await first.says(/online/);
  await using second = it.start(config);
  const { code, err } = await second.ended();
  expect(code).toBe(75);
  expect(err).toContain(String(first.pid));
  expect(it.hub.record.of('connected')).toHaveLength(1);
});
