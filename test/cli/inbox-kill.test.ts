import { readFile } from 'node:fs/promises';
import { expect, test, vi } from 'vitest';

import type { Emulator } from '../../src/emulator/emulator.js';
import { device, startHub } from '../amqp/hub.js';
import { environmentOf, Folder, ToolProcess } from './tool.js';

const started = async (folder: Folder): Promise<string[]> =>
  (await readFile(`${folder.path}/started`, 'utf8').catch(() => ''))
    .split('\n')
    .filter((line) => line !== '');

/** What came back about each command, once for each message that the device made. */
function repliesOf({ record }: Emulator): Map<string, string[]> {
  const replies = new Map<string, Map<string, string>>();
  for (const { messageId = '', correlationId = '', properties } of record.of('telemetry')) {
    const about = replies.get(correlationId) ?? new Map<string, string>();
    replies.set(correlationId, about.set(messageId, String(properties['iothub-command-outcome'])));
  }
  return new Map([...replies].map(([about, each]) => [about, [...each.values()]]));
}

test.each(['run', 'reject'] as const)(
  'wherever kill -9 hits, each command of the inbox has one outcome, and runs as its handler wants it: %s',
  async (afterCrash) => {
    await using hub = await startHub();
    await using folder = await Folder.make();
    const env = await environmentOf(hub, device, folder);
    const script = await folder.script(
      'job',
      'cat >/dev/null; echo "$IOTHUB_MESSAGE_ID" >> started; sleep 0.3; echo "$IOTHUB_MESSAGE_ID" >> ended',
    );
    const config = await folder.write(
      'agent.toml',
      `[commands]
order = "none"
concurrency = 2
[inbox]
retry_delay = "100ms..200ms"
max_attempts = 1000
[[handlers]]
exec = ["${script}"]
settle = "inbox"
after_crash = "${afterCrash}"
`,
    );
    // About two seconds of work, of which most lives get less.
    const ids = Array.from({ length: 12 }, (_, index) => `c${String(index)}`);
    for (const messageId of ids) hub.sendCommand({ deviceId: device, messageId, body: 'go', ack: 'full' });

    const isOver = () => ids.every((id) => repliesOf(hub).has(id));
    let kills = 0;
    for (; !isOver() && kills < 8; kills++) {
      await using agent = new ToolProcess('iothub-device', ['run', '--config', config], {
        env,
        cwd: folder.path,
      });
      await agent.says(/online/);
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 600));
      agent.kill('SIGKILL');
      await agent.ended();
    }
    await using _last = new ToolProcess('iothub-device', ['run', '--config', config], {
      env,
      cwd: folder.path,
    });
    await vi.waitUntil(isOver, { timeout: 30_000 });
    await hub.waitFor(
      (record) => record.of('feedback').flatMap(({ records }) => records).length >= ids.length,
    );

    const feedback = hub.record.of('feedback').flatMap(({ records }) => records);
    expect(feedback.map(({ statusCode }) => statusCode)).toEqual(ids.map(() => 'Success'));
    const replies = repliesOf(hub);
    const runs = await started(folder);
    for (const id of ids) {
      const outcomes = replies.get(id);
      expect(outcomes).toHaveLength(1);
      const count = runs.filter((run) => run === id).length;
      if (afterCrash === 'run') {
        expect(outcomes).toEqual(['accept']);
        expect(count).toBeGreaterThan(0);
      } else {
        expect(count).toBeLessThanOrEqual(1);
      }
    }
  },
  120_000,
);

/** With `IOTHUB_FAULTS=long` as long as such jobs are; else in the same proportions. */
const [jobSeconds, lockMs] = process.env['IOTHUB_FAULTS'] === 'long' ? [90, 60_000] : [1.5, 1_000];

test.each([
  ['run', 2, 'accept'],
  ['reject', 1, 'reject'],
] as const)(
  `a job of ${jobSeconds} s whose agent is killed half-way, with after_crash = "%s", begins %i times; its sender hears once that it is completed, and once what came of it`,
  async (afterCrash, begins, outcome) => {
    await using hub = await startHub({ commands: { lockMs } });
    await using folder = await Folder.make();
    const env = await environmentOf(hub, device, folder);
    const script = await folder.script(
      'job',
      `cat >/dev/null; echo "$IOTHUB_MESSAGE_ID" >> started; sleep ${jobSeconds}; echo done`,
    );
    const config = await folder.write(
      'agent.toml',
      `[[handlers]]\nexec = ["${script}"]\nsettle = "inbox"\ntimeout = "10m"\nafter_crash = "${afterCrash}"\n`,
    );
    const start = () =>
      new ToolProcess('iothub-device', ['run', '--config', config], { env, cwd: folder.path });
    hub.sendCommand({ deviceId: device, messageId: 'c1', body: 'go', ack: 'full' });
    {
      await using agent = start();
      await vi.waitUntil(async () => (await started(folder)).length === 1, { timeout: 20_000 });
      await new Promise((resolve) => setTimeout(resolve, (jobSeconds * 1_000) / 2));
      agent.kill('SIGKILL');
      await agent.ended();
    }
    await using again = start();
    await vi.waitUntil(() => repliesOf(hub).has('c1'), { timeout: jobSeconds * 1_000 + 20_000 });
    again.kill('SIGTERM');
    expect((await again.ended()).code).toBe(0);

    expect(await started(folder)).toHaveLength(begins);
    expect(repliesOf(hub).get('c1')).toEqual([outcome]);
    expect(hub.record.of('telemetry')).toHaveLength(1);
    const feedback = hub.record.of('feedback').flatMap(({ records }) => records);
    expect(feedback).toMatchObject([{ originalMessageId: 'c1', statusCode: 'Success' }]);
    expect(hub.record.of('delivery')).toHaveLength(1);
  },
  240_000,
);

test('a job that takes longer than the lock: the hub hears of it at once, and of its result when it is done', async () => {
  await using hub = await startHub({ commands: { lockMs: 300 } });
  await using folder = await Folder.make();
  const env = await environmentOf(hub, device, folder);
  const script = await folder.script(
    'job',
    'cat >/dev/null; echo "$IOTHUB_MESSAGE_ID" >> started; sleep 1; echo "{\\"done\\":true}"',
  );
  const config = await folder.write('agent.toml', `[[handlers]]\nexec = ["${script}"]\nsettle = "inbox"\n`);
  await using _agent = new ToolProcess('iothub-device', ['run', '--config', config], {
    env,
    cwd: folder.path,
  });
  hub.sendCommand({ deviceId: device, messageId: 'c1', body: 'go', ack: 'full' });
  const first = await hub.waitFor(
    (record) => record.of('feedback')[0]?.records[0] ?? record.of('telemetry')[0],
    { timeoutMs: 20_000 },
  );
  expect(first).toMatchObject({ originalMessageId: 'c1', statusCode: 'Success' });
  const reply = await hub.waitFor((record) => record.of('telemetry')[0], { timeoutMs: 20_000 });
  expect(reply).toMatchObject({
    correlationId: 'c1',
    contentType: 'application/json',
    properties: { 'iothub-command-outcome': 'accept' },
    body: Buffer.from('{"done":true}\n'),
  });
  expect(await started(folder)).toEqual(['c1']);
  expect(hub.record.of('delivery')).toHaveLength(1);
});
