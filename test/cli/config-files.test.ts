import { mkdir, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, expect, test } from 'vitest';

import { configPlaces, findConfig, ownConfigPlace, untilQuiet } from '../../src/cli/config-files.js';
import { readConfig, readConfigFile } from '../../src/cli/config-options.js';
import { fakeIo } from './fake-io.js';
import { Folder } from './tool.js';

let folder: Folder;
beforeEach(async () => {
  folder = await Folder.make();
  return () => folder[Symbol.asyncDispose]();
});

/** Writes a file and the folders above it. */
async function write(path: string, text: string): Promise<string> {
  await mkdir(join(folder.path, path, '..'), { recursive: true });
  return folder.write(path, text);
}

test('the first configuration that is there wins: of the user, of the service, of the machine', async () => {
  const env = {
    HOME: join(folder.path, 'home'),
    XDG_CONFIG_HOME: join(folder.path, 'xdg'),
    CONFIGURATION_DIRECTORY: join(folder.path, 'systemd'),
  };
  const [user = '', service = '', machine] = configPlaces(fakeIo({ env }));
  expect([user, service, machine]).toEqual([
    `${folder.path}/xdg/iothub-device/config.toml`,
    `${folder.path}/systemd/config.toml`,
    '/etc/iothub-device/config.toml',
  ]);
  await write('systemd/config.toml', 'log.level = "warn"');
  expect(findConfig(fakeIo({ env }), {})).toBe(service);
  await write('xdg/iothub-device/config.toml', 'log.level = "debug"');
  expect(findConfig(fakeIo({ env }), {})).toBe(user);
  expect((await readConfig(fakeIo({ env }), {})).log.level).toBe('debug');
  expect(findConfig(fakeIo({ env }), { config: 'other.toml' })).toBe('other.toml');
  expect(findConfig(fakeIo({ env }), { config: false })).toBeUndefined();
  expect((await readConfig(fakeIo({ env }), { config: false })).log.level).toBe('info');
});

test('without XDG_CONFIG_HOME it is ~/.config; a relative one is passed over', () => {
  expect(configPlaces(fakeIo({ env: { HOME: '/home/me' } }))).toEqual([
    '/home/me/.config/iothub-device/config.toml',
    '/etc/iothub-device/config.toml',
  ]);
  expect(configPlaces(fakeIo({ env: { XDG_CONFIG_HOME: 'here' } }))).toEqual([
    '/etc/iothub-device/config.toml',
  ]);
});

test('a new one goes to the user, that of root to the machine', () => {
  const place = ownConfigPlace(fakeIo({ env: { HOME: '/home/me' } }));
  const ofUser = '/home/me/.config/iothub-device/config.toml';
  expect(place).toBe(process.getuid?.() === 0 ? '/etc/iothub-device/config.toml' : ofUser);
});

test('what lies in conf.d beside it adds to it, in the order of the bytes of its names', async () => {
  const file = await write('config.toml', '[log]\nlevel = "warn"\n[commands]\nconcurrency = 1\n');
  await write('conf.d/90-b.toml', 'log.level = "debug"');
  await write('conf.d/10-ä.json', '{"log": {"level": "error"}, "handlers": [{"exec": ["./a"]}]}');
  await write('conf.d/.hidden.toml', 'x = 1');
  await write('conf.d/20-old.toml.dpkg-old', 'x = 1');
  const { config, files } = await readConfigFile(fakeIo(), { config: file });
  expect(files.map((name) => name.slice(folder.path.length + 1))).toEqual([
    'config.toml',
    'conf.d/10-ä.json',
    'conf.d/90-b.toml',
  ]);
  expect(config).toMatchObject({
    log: { level: 'debug' },
    commands: { concurrency: 1 },
    handlers: [{ exec: [join(folder.path, 'conf.d/a')] }],
  });
});

test('a key in a drop-in that others may read is warned about, by its name', async () => {
  const file = await write('config.toml', 'log.level = "info"');
  await mkdir(join(folder.path, 'conf.d'));
  const dropIn = await folder.write('conf.d/key.toml', 'hub.connection_string = "HostName=h;x=y"', 0o644);
  const io = fakeIo();
  await readConfig(io, { config: file });
  expect(io.err).toContain(`warning: ${dropIn} holds a key`);
});

test('a configuration that was found and cannot be read says how to do without', async () => {
  const env = { XDG_CONFIG_HOME: folder.path };
  await mkdir(join(folder.path, 'iothub-device/config.toml'), { recursive: true });
  await expect(readConfig(fakeIo({ env }), {})).rejects.toMatchObject({
    code: 'io',
    hint: 'name another with --config FILE, or do without by --no-config',
  });
});

test('before it is read again, it and its drop-ins must have been left alone for a moment', async () => {
  const file = await write('config.toml', 'log.level = "info"');
  const dropIn = await write('conf.d/a.toml', 'log.format = "json"');
  const old = Date.now() / 1000 - 60;
  await utimes(file, old, old);
  const { mtimeMs } = await stat(dropIn);
  await untilQuiet(file);
  expect(Date.now() - mtimeMs).toBeGreaterThanOrEqual(100);
});

test('a clock that was set back, or a file that is gone, keeps nobody waiting', async () => {
  const file = await write('config.toml', 'log.level = "info"');
  const ahead = Date.now() / 1000 + 3600;
  await utimes(file, ahead, ahead);
  await untilQuiet(file);
  await untilQuiet(join(folder.path, 'none.toml'));
});
