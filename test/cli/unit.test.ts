import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { promisify } from 'node:util';

import { expect, test } from 'vitest';

import { Folder, runTool } from './tool.js';

const hasAnalyze = existsSync('/usr/bin/systemd-analyze') || existsSync('/bin/systemd-analyze');

test('the unit runs this installation with the configuration that is named', async () => {
  const { code, out } = await runTool('iothub-device', ['unit', '--config', '/srv/my agent/100%.toml']);
  expect(code).toBe(0);
  expect(out).toMatch(
    new RegExp(
      `^ExecStart=${process.execPath} --use-openssl-ca /.*/bin/iothub-device\\.js run --config "/srv/my agent/100%%\\.toml"$`,
      'm',
    ),
  );
  expect(out).toMatch(/^WatchdogSec=/m);
});

test.skipIf(!hasAnalyze)('systemd finds nothing wrong with it', async () => {
  await using folder = await Folder.make();
  const { out } = await runTool('iothub-device', ['unit']);
  const unit = await folder.write('iothub-device.service', out, 0o644);
  const { stdout, stderr } = await promisify(execFile)('systemd-analyze', ['verify', '--man=no', unit]);
  expect(stdout + stderr).toBe('');
});
