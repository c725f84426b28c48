import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { once } from 'node:events';

import { expect, test } from 'vitest';

import { createNotifier, feedWatchdog } from '../../src/daemon/notify.js';
import { Progress } from '../../src/daemon/progress.js';
import { silentLog } from '../../src/log.js';
import { device } from '../amqp/hub.js';
import { Folder } from '../cli/tool.js';
import { startAgent } from './agent-kit.js';
import { listenAsSystemd } from './notify-listener.js';

const has = (name: string) => ['/usr/bin', '/bin'].some((folder) => existsSync(`${folder}/${name}`));
const hasNotify = has('systemd-notify');
const intervalMs = 900;

/** A listener in systemd's place, and what the agent's environment then is. */
async function startSystemd() {
  const folder = await Folder.make();
  const systemd = await listenAsSystemd(folder);
  return {
    ...systemd,
    env: { NOTIFY_SOCKET: systemd.path, WATCHDOG_USEC: String(intervalMs * 1000) },
    async [Symbol.asyncDispose]() {
      await systemd[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

test.skipIf(!hasNotify)(
  'it is fed at a third of its interval, and not while the event loop stands still',
  async () => {
    await using systemd = await startSystemd();
    await using it = await startAgent({
      config: '[[handlers]]\nmodule = "./freeze.mjs"\n',
      env: systemd.env,
    });
    await it.folder.write(
      'freeze.mjs',
      `export default { on: 'command', handle() { const until = Date.now() + 4_000; while (Date.now() < until); } };`,
    );
    await it.curl('/v1/reload', '-X', 'POST');
    await expect.poll(() => systemd.gapsMs().length, { timeout: 20_000 }).toBeGreaterThan(3);
    const gaps = systemd.gapsMs().sort((a, b) => a - b);
    expect(gaps[Math.floor(gaps.length / 2)]).toBeGreaterThan(0.7 * (intervalMs / 3));
    expect(gaps[Math.floor(gaps.length / 2)]).toBeLessThan(intervalMs);
    it.hub.sendCommand({ deviceId: device, messageId: 'c1', body: 'go' });
    await it.hub.waitFor((record) => record.of('outcome').length === 1, { timeoutMs: 20_000 });
    await expect.poll(() => Math.max(...systemd.gapsMs()), { timeout: 20_000 }).toBeGreaterThan(3_500);
  },
);

test.skipIf(!hasNotify || !has('strace'))(
  'nor while the disk does not answer; systemd and the log are told why',
  async () => {
    await using systemd = await startSystemd();
    await using it = await startAgent({ env: systemd.env });
    await expect.poll(() => systemd.gapsMs().length, { timeout: 20_000 }).toBeGreaterThan(1);
    const slow = ['-e', 'trace=fdatasync', '-e', 'inject=fdatasync:delay_enter=4000000:when=1'];
    const strace = spawn('strace', ['-f', '-p', String(it.agent.pid), ...slow], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const left = once(strace, 'close');
    await once(strace.stderr, 'data');
    strace.stderr.resume();
    const stored = it.curl('/v1/telemetry', '-d', 'x');
    await it.agent.says(/error +the agent does not get on, and the watchdog is not fed stuck=store/);
    await expect.poll(() => systemd.heard()).toContain('STATUS=STUCK: store');
    expect((await stored).status).toBe(202);
    const before = systemd.gapsMs().length;
    await expect.poll(() => systemd.gapsMs().length, { timeout: 20_000 }).toBeGreaterThan(before);
    expect(Math.max(...systemd.gapsMs())).toBeGreaterThan(2_000);
    strace.kill('SIGINT');
    await left;
  },
  60_000,
);

test.skipIf(!hasNotify)('nor while an attempt to connect never ends', async () => {
  await using systemd = await startSystemd();
  const clock = { ms: 0, now: () => clock.ms, monotonic: () => clock.ms };
  const progress = new Progress(clock, { storeStuckAfterMs: 60_000, onSynced: () => undefined });
  progress.moved({ state: 'connecting', since: 0, attempt: 1 });
  const notifier = createNotifier({ ...systemd.env }, silentLog);
  using _watchdog = feedWatchdog(notifier, progress, silentLog);
  await expect.poll(() => systemd.heard()).toContain('WATCHDOG=1');
  clock.ms = 200_000;
  await expect.poll(() => systemd.heard()).toContain('STATUS=STUCK: connection');
  const heard = systemd.heard().length;
  await new Promise((resolve) => setTimeout(resolve, intervalMs));
  expect(systemd.heard()).toHaveLength(heard);
  progress.moved({ state: 'online', since: clock.ms });
  await expect.poll(() => systemd.heard().slice(heard)).toContain('WATCHDOG=1');
});
