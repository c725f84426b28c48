import { execFile } from 'node:child_process';
import { cp, mkdtemp, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { expect, test } from 'vitest';

const root = join(import.meta.dirname, '../..');

test('the first send keeps what was compiled, and later runs start with it', async () => {
  await using it = await installation();
  await it.run('--version');
  await expect(stat(it.cache)).rejects.toThrow('ENOENT');
  await it.send();
  const first = await stat(it.cache);
  expect(first.size).toBeGreaterThan(100_000);
  await it.send();
  expect((await stat(it.cache)).mtimeMs).toBe(first.mtimeMs);
});

test('what is kept is not used when it is damaged, or of another Node.js, and replaced by the next send', async () => {
  await using it = await installation();
  await writeFile(it.cache, 'nonsense');
  await it.run('--version');
  expect((await stat(it.cache)).size).toBe('nonsense'.length);
  await it.send();
  expect((await stat(it.cache)).size).toBeGreaterThan(100_000);
});

/** A copy of this installation, for the other tests use this one. */
async function installation() {
  const path = await mkdtemp(join(tmpdir(), 'installation-'));
  for (const part of ['bin', 'package.json', 'dist/cli/iothub-device.cjs']) {
    await cp(join(root, part), join(path, part), { recursive: true });
  }
  await symlink(join(root, 'node_modules'), join(path, 'node_modules'));
  const run = (...args: string[]) =>
    promisify(execFile)(process.execPath, [join(path, 'bin/iothub-device.js'), ...args], {
      env: {
        HOME: path,
        IOTHUB_DEVICE_CONNECTION_STRING: 'HostName=hub.test;DeviceId=dev1;SharedAccessKey=a2V5',
      },
    });
  return {
    cache: join(path, 'dist/cli/iothub-device.cjs.cache'),
    run,
    send: () => run('send', '--queue', '--data', 'x'),
    [Symbol.asyncDispose]: () => rm(path, { recursive: true }),
  };
}
