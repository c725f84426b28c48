import { execFile } from 'node:child_process';
import { cp, mkdtemp, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { expect, test } from 'vitest';

const root = join(import.meta.dirname, '../..');

test('a code cache that is missing, damaged or of another Node.js is not missed', async () => {
  await using it = await installation();
  await expect(stat(it.cache)).rejects.toThrow('ENOENT');
  expect(await it.run('bin/iothub-device.js', 'sas', '--help')).toContain('Usage: iothub-device sas');
  await writeFile(it.cache, 'nonsense');
  expect(await it.run('bin/iothub-device.js', 'sas', '--help')).toContain('Usage: iothub-device sas');
});

test('the code caches are made by a send, and changed by nothing else', async () => {
  await using it = await installation();
  await it.run('config/code-cache.js');
  const made = await stat(it.cache);
  expect(made.size).toBeGreaterThan(100_000);
  const ofSend = await stat(it.cacheOfSend);
  expect(ofSend.size).toBeGreaterThan(100_000);
  await it.run('bin/iothub-device.js', 'send', '--queue', '--data', 'x');
  await it.run('bin/iothub-device.js', 'sas');
  expect((await stat(it.cache)).mtimeMs).toBe(made.mtimeMs);
  expect((await stat(it.cacheOfSend)).mtimeMs).toBe(ofSend.mtimeMs);
});

test.each(['send', 'run'])(
  '%s, which has a bundle of its own, says what it says in the other',
  async (name) => {
    await using it = await installation();
    const page = await it.run('bin/iothub-device.js', name, '--help');
    expect(page).toContain(`Usage: iothub-device ${name}`);
    expect(await it.run('bin/iothub-device.js', 'help', name)).toBe(page);
  },
);

/** A copy of this installation, for the other tests use this one. */
async function installation() {
  const path = await mkdtemp(join(tmpdir(), 'installation-'));
  for (const part of ['bin', 'config', 'dist', 'package.json']) {
    await cp(join(root, part), join(path, part), {
      recursive: true,
      filter: (file) => !file.endsWith('.cache'),
    });
  }
  await symlink(join(root, 'node_modules'), join(path, 'node_modules'));
  const env = {
    HOME: path,
    IOTHUB_DEVICE_CONNECTION_STRING: 'HostName=hub.test;DeviceId=dev1;SharedAccessKey=a2V5',
  };
  return {
    cache: join(path, 'dist/cli/iothub-device.cjs.cache'),
    cacheOfSend: join(path, 'dist/cli/iothub-device-send.cjs.cache'),
    run: async (file: string, ...args: string[]) =>
      (await promisify(execFile)(process.execPath, [join(path, file), ...args], { env })).stdout,
    [Symbol.asyncDispose]: () => rm(path, { recursive: true }),
  };
}
