import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { expect, test } from 'vitest';

import { device, startHub } from './amqp/hub.js';
import { Folder } from './cli/tool.js';

const root = join(import.meta.dirname, '..');
const readme = readFileSync(join(root, 'README.md'), 'utf8');

test('the README installs a package from which the service runs', async () => {
  await using folder = await Folder.make();
  await using hub = await startHub();
  for (const name of ['bin', 'etc/systemd/system', 'prefix']) {
    await mkdir(join(folder.path, name), { recursive: true });
  }
  await folder.script('bin/sudo', 'exec "$@"');
  await folder.script('bin/systemctl', 'echo "$@" >> "$LOG"');
  await folder.write('connection-string.txt', hub.deviceConnectionString(device));
  const [, block] = /```bash\n(npm pack.*?)```/s.exec(readme)!;
  // Into a prefix of its own, and from what is built already.
  const script = block!.replaceAll('/etc/', `${folder.path}/etc/`).replace('npm pack', `npm pack ${root}`);
  const { PATH = '', HOME = '' } = process.env;
  const env = {
    PATH: `${folder.path}/bin:${folder.path}/prefix/bin:${PATH}`,
    HOME,
    LOG: join(folder.path, 'systemctl'),
    npm_config_prefix: join(folder.path, 'prefix'),
    npm_config_ignore_scripts: 'true',
    npm_config_prefer_offline: 'true',
    npm_config_audit: 'false',
    npm_config_fund: 'false',
  };
  await promisify(execFile)('bash', ['-eu', '-o', 'pipefail', '-c', script], { cwd: folder.path, env });

  expect(await readFile(env.LOG, 'utf8')).toBe('daemon-reload\nenable --now iothub-device\n');
  expect((await stat(join(folder.path, 'etc/iothub-device/connection-string'))).mode & 0o777).toBe(0o600);
  for (const tool of ['iothub-device', 'iothub-service', 'iothub-emulator']) {
    const { stdout } = await promisify(execFile)(tool, ['--version'], { env });
    expect(stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  }
  const unit = await readFile(join(folder.path, 'etc/systemd/system/iothub-device.service'), 'utf8');
  const [program = '', ...args] = /^ExecStart=(.*)$/m.exec(unit)![1]!.split(' ');
  expect(args[1]).toMatch(new RegExp(`^${folder.path}/prefix/lib/node_modules/iothub-device/bin/`));
  expect(existsSync(args[1]!)).toBe(true);

  // What systemd would start, with what it would give it.
  const config = args.map((arg) => arg.replace(/^\/etc\//, `${folder.path}/etc/`));
  const agent = spawn(program, config, {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: {
      PATH,
      CREDENTIALS_DIRECTORY: join(folder.path, 'etc/iothub-device'),
      STATE_DIRECTORY: join(folder.path, 'state'),
      RUNTIME_DIRECTORY: join(folder.path, 'run'),
      IOTHUB_DEVICE_CA: await folder.write('ca.pem', hub.ca),
    },
  });
  const ended = once(agent, 'close');
  let said = '';
  agent.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
  await expect.poll(() => said, { timeout: 20_000 }).toMatch(/info +online device=dev-01/);
  agent.kill('SIGTERM');
  expect(await ended).toEqual([0, null]);
}, 120_000);
