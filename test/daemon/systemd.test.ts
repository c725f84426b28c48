import { execFile, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { expect, test } from 'vitest';

import { device, startHub } from '../amqp/hub.js';
import { Folder, runTool } from '../cli/tool.js';

const run = promisify(execFile);

/** What of the unit only the manager of the system can do: other users, credentials, file systems of its own. */
const systemOnly = `DynamicUser=no
LoadCredential=
PrivateUsers=no
PrivateTmp=no
PrivateDevices=no
PrivateMounts=no
ProtectSystem=no
ProtectHome=no
ProtectHostname=no
ProtectProc=default
ProcSubset=all
ProtectKernelTunables=no
ProtectKernelModules=no
ProtectKernelLogs=no`;

const dropIn = (environment: readonly string[]) => `[Service]
${systemOnly}
WatchdogSec=3s
${environment.map((line) => `Environment=${line}`).join('\n')}
`;

/** A real systemd with our unit in it. */
async function startManager(folder: Folder) {
  const units = join(folder.path, 'units');
  const group = `iothub-test-${process.pid}`;
  const script = join(import.meta.dirname, '../fixtures/user-manager.sh');
  const manager = spawn(script, [units, group], { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = once(manager, 'close');
  await once(manager.stdout, 'data');
  return {
    systemctl: async (...args: string[]): Promise<string> => {
      const inside = ['--target', firstChild(manager), '--mount', '--pid', '--cgroup'];
      const command = ['env', 'XDG_RUNTIME_DIR=/run/user/0', 'systemctl', '--user', ...args];
      return (await run('nsenter', [...inside, ...command])).stdout.trim();
    },
    async [Symbol.asyncDispose]() {
      manager.stdin.end();
      await ended;
      for (const root of ['systemd', 'unified', '.']) {
        const path = `/sys/fs/cgroup/${root}/${group}`;
        await run('find', [path, '-depth', '-type', 'd', '-exec', 'rmdir', '{}', ';']).catch(() => undefined);
      }
    },
  };
}

function firstChild({ pid }: ChildProcess): string {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ')[0]!;
}

async function underSystemd() {
  await using folder = await Folder.make();
  await using hub = await startHub();
  const ca = await folder.write('ca.pem', hub.ca);
  const module = `export default { on: 'command', handle({ body }) {
    const until = Date.now() + Number(body); while (Date.now() < until); } };`;
  await folder.write('freeze.mjs', module);
  const handlers = '[[handlers]]\nmodule = "./freeze.mjs"\n';
  const config = await folder.write('config.toml', handlers);
  await mkdir(join(folder.path, 'units/iothub-device.service.d'), { recursive: true });
  const { out } = await runTool('iothub-device', ['unit', '--config', config]);
  const log = join(folder.path, 'log');
  await folder.write('units/iothub-device.service', out);
  await folder.write(
    'units/iothub-device.service.d/test.conf',
    `${dropIn([
      `IOTHUB_DEVICE_CONNECTION_STRING=${hub.deviceConnectionString(device)}`,
      `IOTHUB_DEVICE_CA=${ca}`,
    ])}StandardError=append:${log}\n`,
  );
  await using systemd = await startManager(folder);
  const show = async () =>
    Object.fromEntries(
      (
        await systemd.systemctl(
          'show',
          'iothub-device',
          '-p',
          'ActiveState,StatusText,Result,NRestarts,MainPID',
        )
      )
        .split('\n')
        .map((line) => line.split(/=(.*)/s).slice(0, 2) as [string, string]),
    );

  await systemd.systemctl('start', 'iothub-device').catch(async (error: unknown) => {
    throw new Error(`${String(error)}\n${await readFile(log, 'utf8').catch(String)}`);
  });
  expect(await show()).toMatchObject({ ActiveState: 'active', NRestarts: '0' });
  await expect.poll(show, { timeout: 20_000 }).toMatchObject({
    StatusText: expect.stringMatching(/^online as dev-01 since .*; 0 messages kept$/) as string,
  });

  // Ten seconds and more than three watchdogs later it is still there.
  await new Promise((resolve) => setTimeout(resolve, 10_000));
  expect(await show()).toMatchObject({ ActiveState: 'active', NRestarts: '0' });

  await folder.write('config.toml', `[log]\nlevel = "debug"\n${handlers}`);
  await systemd.systemctl('reload', 'iothub-device');
  await expect.poll(() => readFile(log, 'utf8')).toMatch(/configuration read again changed=log\.level/);

  // What does not get on is started anew.
  hub.sendCommand({ deviceId: device, messageId: 'c1', body: '20000' });
  await expect.poll(show, { timeout: 30_000 }).toMatchObject({ NRestarts: '1', ActiveState: 'active' });
  expect(hub.record.of('outcome')).toHaveLength(0);
  await systemd.systemctl('stop', 'iothub-device');
  expect(await show()).toMatchObject({ ActiveState: 'inactive' });
}

test('the unit as it is tried under a real systemd lacks only what ours has', () => {
  const unit = readFileSync(join(import.meta.dirname, '../../config/systemd/iothub-device.service'), 'utf8');
  const keys = systemOnly.split('\n').map((line) => line.split('=')[0]!);
  expect(keys.filter((key) => !unit.includes(`\n${key}=`))).toEqual([]);
});

// Root, and systemd to start: `IOTHUB_FAULTS=long`.
if (process.env['IOTHUB_FAULTS'] === 'long') {
  test(
    'under a real systemd the unit starts, tells its status, is watched, reloads and stops',
    underSystemd,
    120_000,
  );
}
