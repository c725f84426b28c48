/** Rows P1 to P6 and N25 of the fault matrix: the installed agent as a process that is killed, stopped, frozen. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { device, startHub } from '../amqp/hub.js';
import { environmentOf, Folder, runTool, ToolProcess } from '../cli/tool.js';
import { killAgain } from './kill.js';
import { Proxy } from './proxy.js';

test.each([1])(
  'P1: killed again and again it loses nothing and does nothing twice: seed %i',
  async (seed) => {
    const killed = await killAgain({ seed, kills: 5 });
    expect(killed.telemetry).toMatchObject({ lost: [], unexplained: [] });
    const nothing = { unfinished: [], rerun: [], misreported: [], neverRan: [] };
    expect(killed.commands).toMatchObject(nothing);
    expect(killed.wrongReplies).toEqual([]);
    expect(killed.exitCode).toBe(0);
    expect(killed.acknowledged).toBeGreaterThan(300);
  },
);

const configured = (file?: string) => (file === undefined ? [] : ['--config', file]);

/** A hub behind a network, and a device whose agent can be started. */
async function setUp() {
  const hub = await startHub();
  const proxy = await Proxy.start(hub.port);
  const folder = await Folder.make();
  const env = await environmentOf(hub, device, folder);
  const through = hub.deviceConnectionString(device).replace(hub.hostName, `localhost:${proxy.port}`);
  const handler = await folder.script('handler', 'sleep 0.1');
  const agents: ToolProcess[] = [];
  let commands = 0;
  return {
    hub,
    proxy,
    folder,
    start(more: { env?: Record<string, string>; config?: string } = {}): ToolProcess {
      const agent = new ToolProcess('iothub-device', ['run', '--exec', handler, ...configured(more.config)], {
        env: { ...env, IOTHUB_DEVICE_CONNECTION_STRING: through, ...more.env },
        cwd: folder.path,
      });
      agents.push(agent);
      return agent;
    },
    /** `send --queue`, a message for each line. */
    queue: (lines: readonly string[]) =>
      runTool('iothub-device', ['send', '--queue', '--lines', '-o', 'none'], {
        env: { ...env, IOTHUB_DEVICE_CONNECTION_STRING: through },
        cwd: folder.path,
        input: lines.join('\n'),
      }),
    send(count: number) {
      for (let n = 0; n < count; n++) {
        hub.sendCommand({ deviceId: device, messageId: `c${++commands}`, body: 'go' });
      }
    },
    /** Resolves when the hub has an outcome for so many commands. */
    done: (count: number) =>
      hub.waitFor((record) => record.of('outcome').length >= count, { timeoutMs: 20_000 }),
    async [Symbol.asyncDispose]() {
      for (const agent of agents) await agent[Symbol.asyncDispose]();
      await proxy[Symbol.asyncDispose]();
      await hub[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

/** SIGTERM, and how long it took to end. */
async function stop(agent: ToolProcess): Promise<{ code: number | null; ms: number }> {
  const startedAt = performance.now();
  agent.kill('SIGTERM');
  const { code } = await agent.ended();
  return { code, ms: performance.now() - startedAt };
}

describe('P2: told to stop, it ends with 0 within five seconds', () => {
  test('while it is offline', async () => {
    await using it = await setUp();
    await it.proxy.door('refuse');
    const agent = it.start();
    await agent.says(/offline/);
    const { code, ms } = await stop(agent);
    expect(code).toBe(0);
    expect(ms).toBeLessThan(5_000);
  });

  test('while it connects to a hub that says nothing', async () => {
    await using it = await setUp();
    await it.proxy.door('mute');
    const agent = it.start();
    while (it.proxy.accepted === 0) await new Promise((resolve) => setTimeout(resolve, 20));
    const { code, ms } = await stop(agent);
    expect(code).toBe(0);
    expect(ms).toBeLessThan(5_000);
  });

  test('while its hub has fallen silent', async () => {
    await using it = await setUp();
    const agent = it.start();
    await agent.says(/online/);
    it.proxy.stall();
    const { code, ms } = await stop(agent);
    expect(code).toBe(0);
    expect(ms).toBeLessThan(5_000);
  });

  test('under load: what had begun is done and told, the rest is left to the next', async () => {
    await using it = await setUp();
    const first = it.start();
    it.send(12);
    await it.done(3);
    const { code, ms } = await stop(first);
    expect(code).toBe(0);
    expect(ms).toBeLessThan(5_000);
    const told = it.hub.record.of('outcome').filter(({ outcome }) => outcome.outcome === 'accepted').length;
    expect(told).toBeLessThan(12);
    const second = it.start();
    await it.hub.waitFor(() => it.hub.queueDepth(device) === 0, { timeoutMs: 20_000 });
    const accepted = it.hub.record.of('outcome').flatMap(({ messageId, outcome }) => {
      return outcome.outcome === 'accepted' ? [messageId] : [];
    });
    expect(new Set(accepted).size).toBe(12);
    expect(accepted).toHaveLength(12);
    expect((await stop(second)).code).toBe(0);
  });
});

test('P3: frozen while its hub hangs up, it is back when it goes on', async () => {
  await using it = await setUp();
  const agent = it.start();
  await agent.says(/online/);
  it.send(3);
  await it.done(3);
  agent.kill('SIGSTOP');
  it.hub.faults.now({ act: 'drop' });
  it.send(5);
  await new Promise((resolve) => setTimeout(resolve, 500));
  agent.kill('SIGCONT');
  await it.done(8);
  expect(it.hub.queueDepth(device)).toBe(0);
});

test('N25: a second agent for the same store is told who has it, and ends with 75', async () => {
  await using it = await setUp();
  const first = it.start();
  await first.says(/online/);
  const second = it.start();
  const { code, err } = await second.ended();
  expect(code).toBe(75);
  expect(err).toContain(String(first.pid));
  it.send(1);
  await it.done(1);
});

test('P5: a heap that is full ends it, and the next one sends what waits', async () => {
  await using it = await setUp();
  const lines = Array.from({ length: 50 }, (_, n) => `line ${n}`);
  expect((await it.queue(lines)).code).toBe(0);
  await it.proxy.door('mute');
  const eats = `process.on('SIGUSR2', () => { for (const all = []; ; ) all.push(new Array(100_000).fill({})); })`;
  const NODE_OPTIONS = `--max-old-space-size=60 --import "data:text/javascript,${encodeURIComponent(eats)}"`;
  const first = it.start({ env: { NODE_OPTIONS } });
  while (it.proxy.accepted === 0) await new Promise((resolve) => setTimeout(resolve, 20));
  first.kill('SIGUSR2');
  const { code, err } = await first.ended();
  expect(code).not.toBe(0);
  expect(err).toMatch(/heap out of memory/);
  await it.proxy.heal();
  it.start();
  const arrived = await it.hub.waitFor(
    (record) => record.of('telemetry').length >= lines.length && record.of('telemetry'),
    { timeoutMs: 20_000 },
  );
  expect(arrived.map(({ body }) => body.toString())).toEqual(lines);
});

test('P6: a configuration that is wrong ends it with 78 each time, and the spool is not touched', async () => {
  await using it = await setUp();
  expect((await it.queue(['one', 'two'])).code).toBe(0);
  const state = join(it.folder.path, 'state');
  const before = await filesIn(state);
  expect(Object.keys(before).length).toBeGreaterThan(0);
  const config = await it.folder.write('wrong.toml', '[spool]\nmax_size = "much"\n');
  for (let start = 0; start < 3; start++) {
    const { code, err } = await it.start({ config }).ended();
    expect(code).toBe(78);
    expect(err).toMatch(/max_size/);
  }
  expect(await filesIn(state)).toEqual(before);
});

/** Every file below a directory, with its bytes. */
async function filesIn(directory: string): Promise<Record<string, string>> {
  const files: Record<string, string> = {};
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile()) files[path] = (await readFile(path)).toString('base64');
  }
  return files;
}
