import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { readConfig } from '../../src/cli/config-options.js';
import { fakeIo } from './fake-io.js';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'config-options-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function file(name: string, text: string, mode = 0o600): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, text);
  await chmod(path, mode);
  return path;
}

test('without a file the defaults hold', async () => {
  expect(await readConfig(fakeIo(), {})).toMatchObject({ commands: { concurrency: 4 }, handlers: [] });
});

test('a file is read as TOML, or as JSON when it is called so', async () => {
  const toml = await file('a.toml', 'commands.concurrency = 2');
  const json = await file('a.json', '{"commands":{"concurrency":3}}');
  expect((await readConfig(fakeIo(), { config: toml })).commands.concurrency).toBe(2);
  expect((await readConfig(fakeIo(), { config: json })).commands.concurrency).toBe(3);
});

test('a file that is missing or wrong is named', async () => {
  await expect(readConfig(fakeIo(), { config: join(folder, 'none') })).rejects.toMatchObject({
    code: 'no-input',
  });
  const path = await file('b.toml', 'x = 1\ny = 2');
  await expect(readConfig(fakeIo(), { config: path })).rejects.toMatchObject({
    code: 'config',
    message: `${path} has 2 problems`,
    hint: `${path}:1:1: x: unknown key\n${path}:2:1: y: unknown key`,
  });
});

test('a key in a file that others may read is warned about', async () => {
  const text = 'hub.connection_string = "HostName=h;DeviceId=d;SharedAccessKey=AAAA"';
  const quiet = fakeIo();
  await readConfig(quiet, { config: await file('c.toml', text) });
  expect(quiet.err).toBe('');
  const warned = fakeIo();
  const path = await file('d.toml', text, 0o644);
  await readConfig(warned, { config: path });
  expect(warned.err).toBe(
    `warning: ${path} holds a key, and its permissions are open to others (644); chmod 600 ${path}\n`,
  );
});
