import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { describe, expect, test, vi } from 'vitest';

import { createNotifier, feedWatchdog } from '../../src/daemon/notify.js';
import type { Part } from '../../src/daemon/progress.js';
import { silentLog, type Log } from '../../src/log.js';
import { Folder, ToolProcess } from '../cli/tool.js';
import { listenAsSystemd } from './notify-listener.js';

const hasNotify = existsSync('/usr/bin/systemd-notify') || existsSync('/bin/systemd-notify');
const hasAnalyze = existsSync('/usr/bin/systemd-analyze') || existsSync('/bin/systemd-analyze');

describe.skipIf(!hasNotify)('systemd-notify', () => {
  test('carries assignments in order, each on one line', async () => {
    await using folder = await Folder.make();
    await using systemd = await listenAsSystemd(folder);
    const notifier = createNotifier({ NOTIFY_SOCKET: systemd.path }, silentLog);
    void notifier.notify('READY=1', 'STATUS=online');
    await notifier.notify('STATUS=offline\nREADY=0');
    await vi.waitFor(() => {
      expect(systemd.heard()).toEqual(['READY=1|STATUS=online', 'STATUS=offline READY=0']);
    });
  });

  test('feeds the watchdog while work progresses, and only then', async () => {
    await using folder = await Folder.make();
    await using systemd = await listenAsSystemd(folder);
    const env = { NOTIFY_SOCKET: systemd.path, WATCHDOG_USEC: '150000' };
    const notifier = createNotifier(env, silentLog);
    expect(notifier.watchdogMs).toBe(150);
    const progress: { stuck: Part[] } = { stuck: [] };
    using _watchdog = feedWatchdog(notifier, progress, silentLog);
    await vi.waitFor(() => {
      expect(systemd.heard().length).toBeGreaterThanOrEqual(2);
    });
    progress.stuck = ['store'];
    await notifier.notify('STATUS=stuck');
    const heardThen = systemd.heard().length;
    await notifier.notify('STATUS=still stuck');
    await vi.waitFor(() => {
      expect(systemd.heard().slice(heardThen)).toContain('STATUS=still stuck');
    });
    expect(systemd.heard().slice(heardThen)).not.toContain('WATCHDOG=1');
  });
});

test('the variables are taken away, so that no handler inherits them', () => {
  const env = { NOTIFY_SOCKET: '/nowhere', WATCHDOG_USEC: '1', WATCHDOG_PID: '1', PATH: '/bin' };
  expect(createNotifier(env, silentLog).watchdogMs).toBeUndefined();
  expect(env).toEqual({ PATH: '/bin' });
});

test('without systemd it does nothing, and without its binary it says so once', async () => {
  await createNotifier({}, silentLog).notify('READY=1');
  const said: string[] = [];
  const log: Log = { ...silentLog, warn: (message) => said.push(message) };
  const path = process.env['PATH'];
  vi.stubEnv('PATH', '/nonexistent');
  try {
    const notifier = createNotifier({ NOTIFY_SOCKET: '/nowhere' }, log);
    await notifier.notify('READY=1');
    await notifier.notify('READY=1');
  } finally {
    vi.unstubAllEnvs();
  }
  expect(process.env['PATH']).toBe(path);
  expect(said).toEqual(['systemd-notify is not there: no readiness, no status, no watchdog']);
});

test.skipIf(!hasAnalyze)('the unit is exposed no more than 1.5 of 10', async () => {
  const unit = join(import.meta.dirname, '../../config/systemd/iothub-device.service');
  const args = ['security', '--offline=true', '--threshold=15', '--no-pager', unit];
  const { stdout } = await promisify(execFile)('systemd-analyze', args);
  expect(Number(/Overall exposure level.*: ([\d.]+)/.exec(stdout)?.[1])).toBeLessThanOrEqual(1.5);
});

test.skipIf(!hasNotify)(
  'an agent as a unit is ready before the hub answers, says how it fares, and that it stops',
  async () => {
    await using folder = await Folder.make();
    await using systemd = await listenAsSystemd(folder);
    const script = await folder.script('handler', 'cat >/dev/null; env > environment');
    await using agent = new ToolProcess('iothub-device', ['run', '--exec', script], {
      cwd: folder.path,
      env: {
        IOTHUB_DEVICE_CONNECTION_STRING: 'HostName=127.0.0.1:1;DeviceId=dev1;SharedAccessKey=AAAA',
        XDG_STATE_HOME: folder.path,
        NOTIFY_SOCKET: systemd.path,
        WATCHDOG_USEC: '600000',
      },
    });
    await vi.waitFor(
      () => {
        expect(systemd.heard().join('\n')).toMatch(
          /offline: 127\.0\.0\.1:1 refused the connection .*; 0 messages kept/,
        );
        expect(systemd.heard()).toContain('WATCHDOG=1');
      },
      { timeout: 20_000 },
    );
    expect(systemd.heard()[0]).toBe('READY=1|STATUS=starting');
    agent.kill('SIGTERM');
    expect((await agent.ended()).code).toBe(0);
    await vi.waitFor(() => {
      expect(systemd.heard().at(-1)).toBe(
        'STOPPING=1|STATUS=stopping: finishing what was begun; 0 messages kept',
      );
    });
  },
);
