import { readFileSync, statSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parse } from 'smol-toml';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';

import { run } from '../../src/cli/main.js';
import { commandTree } from '../../src/cli/program.js';
import { tools } from '../../src/cli/subcommands.js';
import { parseConfig } from '../../src/daemon/config.js';
import { device, startHub } from '../amqp/hub.js';
import { fakeIo, type FakeIo } from './fake-io.js';
import { Folder } from './tool.js';

const root = join(import.meta.dirname, '../..');
const key = 'c2VjcmV0LWtleS1vZi1kZXYxLWZvci10ZXN0cw==';
const connectionString = `HostName=h.azure-devices.net;DeviceId=dev1;SharedAccessKey=${key}`;

let folder: Folder;
beforeEach(async () => {
  folder = await Folder.make();
  return () => folder[Symbol.asyncDispose]();
});

// What stands for a flag is read from the environment of the process.
afterEach(() => {
  vi.unstubAllEnvs();
});

/** Runs `iothub-device config …` as somebody who has no configuration yet. */
async function config(
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<FakeIo & { code: number }> {
  const io = fakeIo({ env: { XDG_CONFIG_HOME: join(folder.path, 'etc'), ...env } });
  const code = await run('iothub-device', ['config', ...args], io);
  return Object.assign(io, { code });
}

/** Lines of JSON. */
function parsed(text: string): unknown[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as unknown);
}

describe('check', () => {
  test('says every mistake with its place, as compilers do', async () => {
    const file = await folder.write(
      'agent.toml',
      '[hub]\ntokn_ttl = "1h"\n[spool]\nmax_szie = "1MiB"\n[log]\nlevel = "loud"\n[[handlers]]\nexec = "x"\n',
    );
    const text = await config(['check', '--config', file, '-o', 'text']);
    expect([text.code, text.err]).toEqual([78, '']);
    expect(text.out.replaceAll(`${file}:`, '')).toBe(
      [
        '2:1: error: hub.tokn_ttl: unknown key; did you mean "token_ttl"?',
        '4:1: error: spool.max_szie: unknown key; did you mean "max_size"?',
        '6:1: error: log.level: write "error", "warn", "info", "debug" or "trace"',
        '8:1: error: handlers[1].exec: write a list: ["/path/of/program", "argument"]',
        '4 errors, 0 warnings\n',
      ].join('\n'),
    );
    const json = await config(['check', '--config', file]);
    expect(json.code).toBe(78);
    expect(parsed(json.out).slice(-2)).toMatchObject([
      { severity: 'error', file, line: 8, column: 1, key: 'handlers[1].exec' },
      { ok: false, errors: 4, warnings: 0 },
    ]);
  });

  test('looks at the handlers, files and secrets it names', async () => {
    await folder.write('hub.cs', connectionString, 0o644);
    await folder.write('ca.pem', 'not a certificate');
    await folder.script('good', 'exit 0');
    await folder.write('plain', 'no program', 0o644);
    await mkdir(join(folder.path, 'handlers/method.d'), { recursive: true });
    await folder.write('handlers/method.d/reboot.sh', 'no program either', 0o644);
    const file = await folder.write(
      'agent.toml',
      `[hub]
ca = "ca.pem"
connection_string = { file = "hub.cs" }
[commands]
handlers_dir = "handlers"
[[handlers]]
exec = ["./plain"]
match = { property = { command = "a" } }
[[handlers]]
exec = ["./good"]
cwd = "nowhere"
[[handlers]]
module = "broken.mjs"
`,
    );
    const { code, out } = await config(['check', '--config', file, '-o', 'text']);
    expect(code).toBe(78);
    const lines = out.trimEnd().replaceAll(`${file}:`, '').replaceAll(`${folder.path}/`, '').split('\n');
    expect(lines).toEqual([
      expect.stringMatching(/^3:1: error: hub.connection_string: hub.cs holds a key.*\(644\); chmod 600/),
      expect.stringMatching(/^2:1: error: hub.ca: ca.pem holds no certificate/),
      expect.stringMatching(/^7:1: error: handlers\[1\].exec: plain .*execut/),
      '11:1: error: handlers[2].cwd: nowhere is no directory',
      expect.stringMatching(/^13:1: error: handlers\[3\].module: broken.mjs cannot be loaded/),
      expect.stringMatching(/^5:1: error: commands.handlers_dir: method.d\/reboot: /),
      '12:1: warning: handlers[3]: it gets nothing: "good" before it takes every command',
      '6 errors, 1 warning',
    ]);
    expect(out).not.toContain(key);
  });

  test.each([
    ['a variable that is not set', 'connection_string = { env = "NONE" }', {}, 78, 'NONE is not set'],
    [
      'a file that is not there',
      'connection_string = { file = "none.cs" }',
      {},
      78,
      'none.cs: there is no such file',
    ],
    ['a string that is none', 'connection_string = { env = "BAD" }', { BAD: 'HostName=h' }, 78, 'DeviceId'],
    [
      'a credential of the service',
      'connection_string = { credential = "c" }',
      {},
      0,
      'systemd hands a credential',
    ],
    [
      'a missing credential',
      'connection_string = { credential = "c" }',
      { CREDENTIALS_DIRECTORY: '/' },
      78,
      '/c: there is no',
    ],
    ['nothing said of the device', 'token_ttl = "1h"', {}, 0, 'no connection string'],
    ['a proxy without a variable', 'proxy = { env = "NONE" }', {}, 78, 'hub.proxy: NONE is not set'],
    ['a proxy that is none', 'proxy = "ftp://x"', {}, 78, 'hub.proxy: '],
    [
      'a certificate that is not there',
      'host = "h"\ndevice_id = "d"\nx509 = { cert = "c.pem" }',
      {},
      78,
      'c.pem',
    ],
  ])('%s', async (_, text, env, code, what) => {
    const file = await folder.write('agent.toml', `[hub]\n${text}\n`);
    const io = await config(['check', '--config', file, '-o', 'text'], env);
    expect(io.out).toContain(what);
    expect([io.code, io.out.includes('ok: ')]).toEqual([code, code === 0]);
  });

  test('a good one is ok, and nobody is connected to', async () => {
    await using hub = await startHub({});
    const file = await folder.write(
      'agent.json',
      JSON.stringify({
        hub: { connection_string: { env: 'HUB' }, ca: 'ca.pem' },
        handlers: [{ exec: ['sh'] }],
      }),
    );
    await folder.write('ca.pem', hub.ca);
    const io = await config(['check', '--config', file], { HUB: hub.deviceConnectionString(device) });
    expect([io.code, parsed(io.out)]).toEqual([0, [{ ok: true, errors: 0, warnings: 0, files: [file] }]]);
    expect(hub.record.of('connected')).toEqual([]);
  });

  test('one that is not there is exit 66', async () => {
    const io = await config(['check', '--config', join(folder.path, 'none.toml')]);
    expect([io.code, io.out]).toEqual([66, '']);
  });
});

describe('show', () => {
  test('prints a configuration that means the same', async () => {
    const example = await readFile(join(root, 'config/agent.example.toml'), 'utf8');
    const everything = example
      // A device has one of these; and a key may stand once only.
      .replace(/^# (connection_string|proxy = \{).*\n/gm, '')
      .replace(/^# (?=\[\[|\w+ = )/gm, '');
    const file = await folder.write('agent.toml', everything);
    const meant = parseConfig(everything, file);
    const toml = await config(['show', '--config', file, '-o', 'text']);
    expect([toml.code, toml.err]).toEqual([0, '']);
    expect(parseConfig(toml.out, file)).toEqual(meant);
    const withOrigin = await config(['show', '--config', file, '--origin']);
    expect(parseConfig(withOrigin.out, file)).toEqual(meant);
    const json = await config(['show', '--config', file, '-o', 'json']);
    expect(parseConfig(json.out, join(folder.path, 'agent.json'))).toEqual(meant);
  });

  test('--origin: flag before environment, environment before file, file before default', async () => {
    await mkdir(join(folder.path, 'etc/iothub-device/conf.d'), { recursive: true });
    const file = await folder.write(
      'etc/iothub-device/config.toml',
      '[hub]\nca = "a.pem"\ngateway_host = "edge"\ntoken_ttl = "2h"\n[log]\nlevel = "warn"\nformat = "text"\n',
    );
    const dropIn = await folder.write(
      'etc/iothub-device/conf.d/10.toml',
      '[spool]\nmax_age = "1d"\n[[handlers]]\nexec = ["a"]\n',
    );
    vi.stubEnv('IOTHUB_DEVICE_CA', 'c.pem');
    vi.stubEnv('IOTHUB_DEVICE_GATEWAY_HOST', 'other');
    const { out } = await config(['show', '--origin', '-o', 'json', '--ca', 'b.pem', '-v'], {
      IOTHUB_DEVICE_LOG_LEVEL: 'error',
      IOTHUB_DEVICE_PROXY: 'http://me:open-sesame@proxy:3128',
      IOTHUB_DEVICE_CONNECTION_STRING: connectionString,
    });
    for (const secret of [key, 'open-sesame']) expect(out).not.toContain(secret);
    const settings = parsed(out) as { key: string }[];
    const of = (name: string): unknown => settings.find((setting) => setting.key === name);
    expect(of('hub.ca')).toMatchObject({ value: 'b.pem', origin: 'flag --ca' });
    expect(of('hub.gateway_host')).toMatchObject({
      value: 'other',
      origin: 'environment IOTHUB_DEVICE_GATEWAY_HOST',
    });
    expect(of('hub.connection_string')).toMatchObject({
      value: { env: 'IOTHUB_DEVICE_CONNECTION_STRING' },
      origin: 'environment IOTHUB_DEVICE_CONNECTION_STRING',
    });
    expect(of('hub.proxy')).toMatchObject({ origin: 'environment IOTHUB_DEVICE_PROXY' });
    expect(of('hub.token_ttl')).toMatchObject({ value: '2h', origin: `${file}:4` });
    expect(of('hub.idle_timeout')).toMatchObject({ value: '10s', origin: 'default' });
    expect(of('log.level')).toMatchObject({ value: 'debug', origin: 'flag --verbose' });
    expect(of('log.format')).toMatchObject({ value: 'text', origin: `${file}:7` });
    expect(of('spool.max_age')).toMatchObject({ value: '1d', origin: `${dropIn}:2` });
    expect(of('spool.directory')).toMatchObject({ value: null, origin: 'not set' });
    expect(of('handlers[1].exec')).toMatchObject({ value: ['a'], origin: `${dropIn}:4` });
    const text = await config(['show', '--origin']);
    expect(text.out).toMatch(/^gateway_host = "other" +# environment IOTHUB_DEVICE_GATEWAY_HOST$/m);
    expect(text.out).toMatch(new RegExp(`^max_age = "1d" +# ${dropIn}:2$`, 'm'));
    expect(text.out).toMatch(/^concurrency = 4 +# default$/m);
    expect(text.out).toMatch(/^# directory is not set$/m);
  });

  test('every variable that an agent reads instead of its configuration is an origin', async () => {
    const tree = await commandTree('iothub-device', tools['iothub-device'], fakeIo(), () => true);
    const agent = tree.commands.find((command) => command.name() === 'run')!;
    const variables = agent.options.flatMap(({ envVar }) => envVar ?? []);
    // Of the file itself; and what belongs to the certificate has one origin with it.
    const others = ['CONFIG', 'KEY', 'KEY_PASSPHRASE_FILE'].map((name) => `IOTHUB_DEVICE_${name}`);
    expect(variables).toEqual(expect.arrayContaining([...others, 'IOTHUB_DEVICE_CA']));
    const values: Record<string, string> = {
      ...{ TRANSPORT: 'amqp', HTTPS_PORT: '8443', ATTACH: 'with-token', LOG_FORMAT: 'json' },
    };
    for (const variable of variables.filter((name) => !others.includes(name))) {
      vi.stubEnv(variable, values[variable.replace('IOTHUB_DEVICE_', '')] ?? 'x');
      const { out } = await config(['show', '--origin', '--no-config']);
      expect(out).toContain(`# environment ${variable}\n`);
      vi.unstubAllEnvs();
    }
  });

  test('no secret is in it', async () => {
    const file = await folder.write(
      'agent.toml',
      `[hub]
connection_string = "${connectionString}"
x509 = { cert = "dev1.pem", passphrase = "open sesame" }
[[handlers]]
exec = ["report", "SharedAccessSignature=abcdefgh1234"]
`,
    );
    for (const args of [[], ['--origin'], ['-o', 'json'], ['--origin', '-o', 'json']]) {
      const { code, out } = await config(['show', '--config', file, ...args]);
      expect(code).toBe(0);
      expect(out).toContain(`[secret, ${connectionString.length} characters]`);
      for (const secret of [key, 'open sesame', 'abcdefgh1234']) expect(out).not.toContain(secret);
    }
    const { out } = await config(['show', '--config', file]);
    expect(parse(out)).toMatchObject({
      hub: { x509: { cert: 'dev1.pem', passphrase: '[secret, 11 characters]' } },
    });
  });
});

describe('init', () => {
  test('writes the example for its owner alone, and does not overwrite one unasked', async () => {
    const place = join(folder.path, 'new/config.toml');
    const io = await config(['init', place]);
    expect([io.code, io.out]).toEqual([0, `${place}\n`]);
    expect(io.err).toBe(`edit it, then: iothub-device config check --config ${place}\n`);
    expect(statSync(place).mode & 0o777).toBe(0o600);
    const written = await readFile(place, 'utf8');
    const [first, ...rest] = written.split('\n');
    expect(first).toBe(`#:schema file://${join(root, 'config/agent.schema.json')}`);
    const example = await readFile(join(root, 'config/agent.example.toml'), 'utf8');
    expect(rest).toEqual(example.split('\n').slice(1));
    expect((await config(['check', '--config', place])).code).toBe(0);

    await folder.write('new/config.toml', 'log.level = "warn"', 0o644);
    const again = await config(['init', place]);
    expect([again.code, again.out]).toEqual([73, '']);
    expect(again.err).toContain('it is there already\n  --force puts');
    expect(await readFile(place, 'utf8')).toBe('log.level = "warn"');
    expect((await config(['init', place, '--force'])).code).toBe(0);
    expect([await readFile(place, 'utf8'), statSync(place).mode & 0o777]).toEqual([written, 0o600]);
    expect((await config(['init', '-'])).out).toBe(written);
  });
});

test('path: which files are read, and where else one was looked for', async () => {
  const user = join(folder.path, 'etc/iothub-device/config.toml');
  const env = { CONFIGURATION_DIRECTORY: join(folder.path, 'systemd') };
  const none = await config(['path', '-o', 'text'], env);
  expect(none.code).toBe(66);
  expect(none.out).toBe(
    `absent  ${user}\nabsent  ${folder.path}/systemd/config.toml\nabsent  /etc/iothub-device/config.toml\n`,
  );
  await mkdir(join(folder.path, 'etc/iothub-device/conf.d'), { recursive: true });
  await mkdir(join(folder.path, 'systemd'));
  await folder.write('etc/iothub-device/config.toml', 'x');
  await folder.write('etc/iothub-device/conf.d/a.toml', 'x');
  await folder.write('systemd/config.toml', 'x');
  const found = await config(['path', '-o', 'text'], env);
  expect(found.code).toBe(0);
  expect(found.out).toBe(
    `read    ${user}\nread    ${folder.path}/etc/iothub-device/conf.d/a.toml\n` +
      `unused  ${folder.path}/systemd/config.toml\nabsent  /etc/iothub-device/config.toml\n`,
  );
  const named = await config(['path', '--config', 'none.toml'], env);
  expect([named.code, parsed(named.out)]).toEqual([
    66,
    [{ path: join(process.cwd(), 'none.toml'), state: 'absent' }],
  ]);
});

test('schema: that of the package', async () => {
  const { code, out } = await config(['schema']);
  expect([code, out]).toEqual([0, readFileSync(join(root, 'config/agent.schema.json'), 'utf8')]);
});
