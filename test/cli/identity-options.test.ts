import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { Subcommand } from '../../src/cli/help.js';
import {
  addConnectionOptions,
  addIdentityOptions,
  addTimeoutOption,
  type ConnectionFlags,
  type IdentityFlags,
  type TimeoutFlags,
  readAuthority,
  readDeviceIdentity,
  readServiceIdentity,
} from '../../src/cli/identity-options.js';
import type { Io } from '../../src/cli/io.js';
import { run } from '../../src/cli/main.js';
import type { Tool } from '../../src/cli/subcommands.js';
import { parseConfig } from '../../src/daemon/config.js';
import type { HubConfig } from '../../src/daemon/config-hub.js';
import type { SecretSource } from '../../src/daemon/config-secret.js';
import { Secret } from '../../src/secret.js';
import { type FakeIo, fakeIo } from './fake-io.js';

const key = 'MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=';
const forDevice = (deviceId: string): string => `HostName=h.net;DeviceId=${deviceId};SharedAccessKey=${key}`;
const forService = `HostName=h.net;SharedAccessKeyName=service;SharedAccessKey=${key}`;

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'identity-options-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function file(name: string, text: string, mode = 0o600): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, text);
  await chmod(path, mode);
  return path;
}

/** Runs a command that prints who it is, and for service commands the policy. */
async function whoami(args: string[], io: FakeIo, side: 'device' | 'service' = 'device'): Promise<number> {
  const command = (of: Io): Subcommand =>
    addTimeoutOption(addConnectionOptions(addIdentityOptions(new Subcommand('whoami'), side), side)).action(
      async (flags: IdentityFlags & ConnectionFlags & TimeoutFlags) => {
        const who =
          side === 'device'
            ? (await readDeviceIdentity(of, flags)).deviceId
            : (await readServiceIdentity(of, flags)).credential;
        const authority = await readAuthority(flags);
        await of.stdout.write(
          JSON.stringify([
            who,
            Number.isFinite(flags.timeout) ? flags.timeout : 'for ever',
            authority ?? 'system',
          ]),
        );
      },
    );
  const tool: Tool = {
    description: '',
    examples: [],
    subcommands: [{ name: 'whoami', summary: '', load: () => Promise.resolve(command) }],
  };
  return run('iothub-device', ['whoami', ...args], io, tool);
}

test('the connection string comes from the environment, and is taken out of it', async () => {
  const io = fakeIo({ env: { IOTHUB_DEVICE_CONNECTION_STRING: forDevice('d1') } });
  expect(await whoami([], io)).toBe(0);
  expect(io.out).toBe('["d1",30000,"system"]');
  expect(io.env).toEqual({});
});

test('each source gives way to the one before it: flag, variable, file variable, systemd credential', async () => {
  const flagged = await file('flag.cs', `${forDevice('flag')}\n`);
  const env: Record<string, string> = {
    IOTHUB_DEVICE_CONNECTION_STRING: forDevice('variable'),
    IOTHUB_DEVICE_CONNECTION_STRING_FILE: await file('variable.cs', forDevice('variable-file')),
    CREDENTIALS_DIRECTORY: folder,
  };
  await file('connection-string', forDevice('credential'), 0o440);
  const who = async (args: string[], { ...left }: Record<string, string>): Promise<string> => {
    const io = fakeIo({ env: left });
    expect(await whoami(args, io), io.err).toBe(0);
    expect(io.env['IOTHUB_DEVICE_CONNECTION_STRING']).toBeUndefined();
    return (JSON.parse(io.out) as [string])[0];
  };
  expect(await who(['--connection-string-file', flagged], env)).toBe('flag');
  expect(await who([], env)).toBe('variable');
  delete env['IOTHUB_DEVICE_CONNECTION_STRING'];
  expect(await who([], env)).toBe('variable-file');
  delete env['IOTHUB_DEVICE_CONNECTION_STRING_FILE'];
  expect(await who([], env)).toBe('credential');
});

test('"-" reads one line of standard input and leaves the rest to the command', async () => {
  const io = fakeIo({ stdin: `${forDevice('piped')}\r\nfirst\nsecond\n` });
  expect(await whoami(['--connection-string', '-'], io)).toBe(0);
  expect(io.out).toContain('piped');
  expect(await io.stdin.setEncoding('utf8').toArray()).toEqual(['first\nsecond\n']);

  const noNewline = fakeIo({ stdin: forDevice('short') });
  expect(await whoami(['--connection-string=-'], noNewline)).toBe(0);
  expect(noNewline.out).toContain('short');
});

function hubOf(said: Partial<HubConfig>): HubConfig {
  return { ...parseConfig('[log]\nlevel = "info"\n', '/etc/agent.toml').hub, ...said };
}

test('what the configuration says comes after the environment', async () => {
  const path = await file('configured.cs', forDevice('configured'));
  const who = async (source: SecretSource, env: Record<string, string>): Promise<string> =>
    (await readDeviceIdentity(fakeIo({ env }), {}, hubOf({ connectionString: source }))).deviceId;
  const configured: SecretSource = { from: 'file', path };
  expect(await who(configured, { IOTHUB_DEVICE_CONNECTION_STRING: forDevice('variable') })).toBe('variable');
  expect(await who(configured, { CREDENTIALS_DIRECTORY: folder })).toBe('configured');
  expect(await who({ from: 'text', text: new Secret(forDevice('text')) }, {})).toBe('text');
  expect(await who({ from: 'env', name: 'MINE' }, { MINE: forDevice('env') })).toBe('env');
  expect(await who({ from: 'credential', name: 'configured.cs' }, { CREDENTIALS_DIRECTORY: folder })).toBe(
    'configured',
  );
  await expect(who({ from: 'env', name: 'MINE' }, {})).rejects.toMatchObject({
    code: 'config',
    message: 'MINE is not set',
  });
  await expect(who({ from: 'credential', name: 'x' }, {})).rejects.toMatchObject({ code: 'config' });
  await expect(
    who({ from: 'credential', name: 'x' }, { CREDENTIALS_DIRECTORY: folder }),
  ).rejects.toMatchObject({
    code: 'no-input',
  });
});

test('a connection string on the command line is refused, and not repeated', async () => {
  const io = fakeIo();
  expect(await whoami(['--connection-string', forDevice('d1')], io)).toBe(64);
  expect(io.err).toBe(
    'error: a connection string on the command line can be seen by others\n' +
      '  set IOTHUB_DEVICE_CONNECTION_STRING, or name a file with --connection-string-file FILE,\n' +
      '  or write --connection-string - and give it on standard input\n',
  );
});

test('a broken string is 78 with the part named, and 64 when it came from a flag', async () => {
  const broken = 'HostName=h.net;SharedAccessKey=x';
  const variable = fakeIo({ env: { IOTHUB_DEVICE_CONNECTION_STRING: broken } });
  expect(await whoami([], variable)).toBe(78);
  expect(variable.err).toContain(
    'error: IOTHUB_DEVICE_CONNECTION_STRING: the connection string cannot be used: DeviceId is missing\n',
  );
  const path = await file('broken.cs', broken);
  const inFile = fakeIo();
  expect(await whoami(['--connection-string-file', path], inFile)).toBe(78);
  expect(inFile.err).toContain(`error: ${path}: the connection string cannot be used: DeviceId is missing\n`);
  const piped = fakeIo({ stdin: broken });
  expect(await whoami(['--connection-string', '-'], piped)).toBe(64);
  expect(piped.err).toContain(
    'error: standard input: the connection string cannot be used: DeviceId is missing\n',
  );
});

test('a key file that others may read is refused unless that is allowed', async () => {
  const path = await file('open.cs', forDevice('open'), 0o644);
  const io = fakeIo();
  expect(await whoami(['--connection-string-file', path], io)).toBe(78);
  expect(io.err).toContain(
    `${path} holds a key, and its permissions are open to others (644)\n  chmod 600 ${path}\n`,
  );
  expect(await whoami(['--connection-string-file', path, '--insecure-permissions'], fakeIo())).toBe(0);
});

test('without a connection string, or with a file that is not there, the cure is named', async () => {
  const nothing = fakeIo();
  expect(await whoami([], nothing)).toBe(78);
  expect(nothing.err).toBe(
    'error: no connection string\n' +
      '  set IOTHUB_DEVICE_CONNECTION_STRING, or name a file with --connection-string-file FILE\n',
  );
  const missing = fakeIo();
  expect(await whoami(['--connection-string-file', join(folder, 'missing')], missing)).toBe(66);
  expect(missing.err).toContain('there is no such file');
});

test('two flags for one thing exclude each other', async () => {
  const io = fakeIo();
  expect(await whoami(['--connection-string', '-', '--connection-string-file', 'x'], io)).toBe(64);
});

test('the service command reads its own variable, and refuses a device’s string', async () => {
  const io = fakeIo({ env: { IOTHUB_SERVICE_CONNECTION_STRING: forService } });
  expect(await whoami([], io, 'service')).toBe(0);
  expect(io.out).toContain('"policyName":"service"');
  expect(io.out).not.toContain(key);
  const device = fakeIo({ env: { IOTHUB_SERVICE_CONNECTION_STRING: forDevice('d1') } });
  expect(await whoami([], device, 'service')).toBe(78);
  expect(device.err).toContain('it is a device connection string');
  expect(
    await whoami([], fakeIo({ env: { IOTHUB_DEVICE_CONNECTION_STRING: forDevice('d1') } }), 'service'),
  ).toBe(78);
});

test('--ca wants certificates, --timeout a duration', async () => {
  const env = { IOTHUB_DEVICE_CONNECTION_STRING: forDevice('d1') };
  const ca = await file('ca.pem', '-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n', 0o644);
  const io = fakeIo({ env });
  expect(await whoami(['--ca', ca, '--timeout', '0'], io)).toBe(0);
  expect(JSON.parse(io.out)).toEqual(['d1', 'for ever', expect.stringContaining('BEGIN CERTIFICATE')]);
  const der = fakeIo({ env });
  expect(await whoami(['--ca', await file('ca.der', 'binary')], der)).toBe(78);
  expect(der.err).toContain('holds no certificate');
  const bare = fakeIo({ env });
  expect(await whoami(['--timeout', '30'], bare)).toBe(64);
  expect(bare.err).toContain('a duration needs a unit: write 30s or 30ms');
});
