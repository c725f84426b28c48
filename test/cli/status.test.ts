import { expect, test } from 'vitest';

import { jsonLines, startAgent } from '../daemon/agent-kit.js';
import { Folder, runTool, ToolProcess } from './tool.js';

test('online: exit 0, and what there is to know on a page', async () => {
  await using it = await startAgent({ config: '[[handlers]]\nname = "restart"\nexec = ["/bin/true"]\n' });
  const { code, out, err } = await it.tool(['status', '-o', 'text', '--utc']);
  expect([code, err]).toEqual([0, '']);
  expect(out).toMatch(/^state {7}online since \d{4}-/);
  for (const line of [
    /^device {6}dev-01 on localhost/m,
    new RegExp(`^agent {7}process ${String(it.agent.pid)}, version \\d`, 'm'),
    /^token {7}until .*Z, renewed before$/m,
    /^telemetry {3}flows$/m,
    /^spool {7}0 waiting, 0 B, 0 rejected, 0 dropped$/m,
    /^inbox {7}0 waiting, 0 given up$/m,
    /^handler {5}restart \(command\): ok$/m,
  ]) {
    expect(out).toMatch(line);
  }
  const json = await it.tool(['status', '-o', 'json']);
  expect(jsonLines(json.out)).toMatchObject([{ state: 'online', deviceId: 'dev-01', pid: it.agent.pid }]);
});

test('refused by the hub: exit 75, why, and when it tries again', async () => {
  await using it = await startAgent({ online: false });
  await it.tool(['send', '--queue', '--data', 'x']);
  const { code, out } = await it.tool(['status', '-o', 'text']);
  expect(code).toBe(75);
  expect(out).toMatch(/^state {7}waiting since .*, attempt 1, next try /);
  expect(out).toMatch(/^last error {2}.*: the hub refused/m);
  expect(out).toMatch(/^spool {7}1 waiting, \d+ B, the oldest for \d+s/m);
});

test('a handler that fails is degraded, with its reason', async () => {
  await using it = await startAgent({
    config: '[[handlers]]\nname = "broken"\nexec = ["/nowhere/at/all"]\n',
  });
  it.hub.sendCommand({ deviceId: 'dev-01', messageId: 'c1', body: 'go' });
  await it.agent.says(/broken/);
  const { out } = await it.tool(['status', '-o', 'text']);
  expect(out).toMatch(/^handler {5}broken \(command\): degraded since .*nowhere/m);
});

test('no agent: exit 69, and where it was looked for', async () => {
  await using folder = await Folder.make();
  const env = { XDG_RUNTIME_DIR: folder.path };
  const { code, out, err } = await runTool('iothub-device', ['status'], { env });
  expect([code, out]).toEqual([69, '']);
  expect(err).toMatch(/^error: no agent is running here/);
});

test('finds the agent of a user without knowing its key, in the runtime directory', async () => {
  await using it = await startAgent();
  it.agent.kill('SIGTERM');
  await it.agent.ended();
  await it.folder.write('agent.toml', 'log.level = "info"');
  const env = { XDG_RUNTIME_DIR: it.folder.path };
  await using agent = new ToolProcess('iothub-device', ['run'], { env: { ...it.env, ...env } });
  await agent.says(/info +online/);
  expect(await runTool('iothub-device', ['status', '-o', 'json'], { env })).toMatchObject({ code: 0 });
});

test('--watch says what changes, until it is interrupted', async () => {
  await using it = await startAgent();
  await using watch = new ToolProcess('iothub-device', ['status', '--watch', '-o', 'text'], { env: it.env });
  await watch.says(/^online; dev-01; 0 waiting$/m);
  it.agent.kill('SIGTERM');
  await watch.says(/^not running$/m);
  watch.kill('SIGINT');
  expect(await watch.ended()).toMatchObject({ code: 0 });
});

test('an agent that is stopped (SIGSTOP) keeps nobody waiting for ever', async () => {
  await using it = await startAgent();
  it.agent.kill('SIGSTOP');
  const { code } = await it.tool(['status']);
  it.agent.kill('SIGCONT');
  expect(code).toBe(69);
});
