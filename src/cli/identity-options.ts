import { Option } from 'commander';
import { once } from 'node:events';
import { open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';

import { AgentError, errorText, systemErrorCode } from '../errors.js';
import {
  type DeviceConnectionString,
  parseDeviceConnectionString,
  parseServiceConnectionString,
  type ServiceConnectionString,
} from '../identity/connection-string.js';
import type { Subcommand } from './help.js';
import type { Io } from './io.js';
import { durationOrForever } from './values.js';
import { variable } from './variables.js';

/** The sides that have an identity of their own. */
type HubSide = 'device' | 'service';

/** What `addIdentityOptions` and `addConnectionOptions` leave in a command's flags. */
export interface IdentityFlags {
  connectionString?: '-';
  connectionStringFile?: string;
  insecurePermissions?: boolean;
}

export interface ConnectionFlags {
  ca?: string;
  /** Milliseconds; Infinity means for ever. */
  timeout: number;
}

/** Options that say who we are. */
export function addIdentityOptions(command: Subcommand, side: HubSide): Subcommand {
  const name = variable(side, 'CONNECTION_STRING');
  const group = (option: Option): Option => option.helpGroup('Identity:');
  return command
    .addOption(
      group(
        new Option(
          '--connection-string-file <file>',
          `file with the connection string (env: ${name}, ${name}_FILE)`,
        ),
      ),
    )
    .addOption(
      group(
        new Option('--connection-string <->', '"-" reads it from the first line of standard input').argParser(
          onlyDash(side),
        ),
      ),
    )
    .addOption(group(new Option('--insecure-permissions', 'take the file even when others may read it')));
}

/** Options of the way to the hub. */
export function addConnectionOptions(command: Subcommand, side: HubSide): Subcommand {
  const group = (option: Option): Option => option.helpGroup('Connection:');
  return command
    .addOption(
      group(
        new Option('--ca <file>', 'PEM file of the authority to trust instead of the system’s').env(
          variable(side, 'CA'),
        ),
      ),
    )
    .addOption(
      group(
        new Option('--timeout <dur>', 'give up after this long; 0 waits for ever')
          .argParser(durationOrForever)
          .default(30_000, '30s'),
      ),
    );
}

/**
 * Who we are as a device or module. Looked for in this order: the flags, `IOTHUB_DEVICE_CONNECTION_STRING`, the file
 * that `IOTHUB_DEVICE_CONNECTION_STRING_FILE` names, `$CREDENTIALS_DIRECTORY/connection-string` (systemd). The
 * variable is removed from the environment, so that no child process inherits it.
 */
export function readDeviceIdentity(io: Io, flags: IdentityFlags): Promise<DeviceConnectionString> {
  return readIdentity(io, flags, 'device', parseDeviceConnectionString);
}

/** The same for a hub policy, with `IOTHUB_SERVICE_…`. */
export function readServiceIdentity(io: Io, flags: IdentityFlags): Promise<ServiceConnectionString> {
  return readIdentity(io, flags, 'service', parseServiceConnectionString);
}

/** The certificates that `--ca` names, as PEM; undefined for those of the system. */
export async function readAuthority({ ca }: ConnectionFlags): Promise<string | undefined> {
  if (ca === undefined) return undefined;
  const pem = await readSmallFile(ca, 'the certificate authority');
  if (!pem.includes('-----BEGIN CERTIFICATE-----')) {
    throw new AgentError('config', `${ca} holds no certificate`, {
      hint: 'it has to be PEM: text that begins with -----BEGIN CERTIFICATE-----',
    });
  }
  return pem;
}

async function readIdentity<T>(
  io: Io,
  flags: IdentityFlags,
  side: HubSide,
  parse: (text: string) => T,
): Promise<T> {
  const { text, from, code } = await connectionStringText(io, flags, side);
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    throw new AgentError(code, `${from}: ${error.message}`, { hint: error.hint, cause: error.cause });
  }
}

interface Found {
  text: string;
  /** Where it was found, for people. */
  from: string;
  /** What a mistake in it is: one on the command line, or one in the configuration. */
  code: 'usage' | 'config';
}

async function connectionStringText(io: Io, flags: IdentityFlags, side: HubSide): Promise<Found> {
  const name = variable(side, 'CONNECTION_STRING');
  const inEnvironment = io.env[name];
  // eslint-disable-next-line @typescript-eslint/no-dynamic-delete
  delete io.env[name];

  if (flags.connectionString !== undefined && flags.connectionStringFile !== undefined) {
    throw new AgentError('usage', '--connection-string and --connection-string-file exclude each other');
  }
  if (flags.connectionString !== undefined) {
    return { text: await firstLine(io.stdin), from: 'standard input', code: 'usage' };
  }
  const file = flags.connectionStringFile;
  if (file !== undefined) return fromFile(file, flags);
  if (inEnvironment !== undefined && inEnvironment !== '')
    return { text: inEnvironment, from: name, code: 'config' };
  const namedFile = io.env[`${name}_FILE`];
  if (namedFile !== undefined && namedFile !== '') return fromFile(namedFile, flags);
  const credential = await systemdCredential(io);
  if (credential) return credential;
  throw new AgentError('config', 'no connection string', {
    hint: `set ${name}, or name a file with --connection-string-file FILE`,
  });
}

async function fromFile(file: string, flags: IdentityFlags): Promise<Found> {
  const text = await readSmallFile(file, 'the connection string');
  if (flags.insecurePermissions !== true) await refuseWhenOthersMayRead(file);
  return { text, from: file, code: 'config' };
}

async function refuseWhenOthersMayRead(file: string): Promise<void> {
  // Windows keeps its permissions elsewhere.
  if (process.platform === 'win32') return;
  const { mode } = await stat(file);
  if ((mode & 0o077) === 0) return;
  throw new AgentError(
    'config',
    `${file} holds a key, and its permissions are open to others (${(mode & 0o777).toString(8)})`,
    {
      hint: `chmod 600 ${file}\nor allow it with --insecure-permissions`,
    },
  );
}

/** systemd keeps credentials from others with an access list, which shows in the mode as group permissions. */
async function systemdCredential(io: Io): Promise<Found | undefined> {
  const directory = io.env['CREDENTIALS_DIRECTORY'];
  if (directory === undefined || directory === '') return undefined;
  const file = join(directory, 'connection-string');
  try {
    await stat(file);
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw unreadable(file, 'the connection string', error);
  }
  return { text: await readSmallFile(file, 'the connection string'), from: file, code: 'config' };
}

/** Far more than a connection string or a bundle of certificates needs, and an end for /dev/zero. */
const longestFileBytes = 1024 * 1024;

async function readSmallFile(file: string, what: string): Promise<string> {
  try {
    const handle = await open(file);
    try {
      const chunks: Buffer[] = [];
      for await (const chunk of handle.createReadStream({ end: longestFileBytes - 1, autoClose: false })) {
        chunks.push(chunk as Buffer);
      }
      return Buffer.concat(chunks).toString('utf8');
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw unreadable(file, what, error);
  }
}

function unreadable(file: string, what: string, cause: unknown): AgentError {
  const missing = systemErrorCode(cause) === 'ENOENT';
  const why = missing ? 'there is no such file' : errorText(cause);
  return new AgentError(missing ? 'no-input' : 'io', `cannot read ${what} from ${file}: ${why}`);
}

const longestLineBytes = 64 * 1024;

/** Takes one line off the stream and leaves the rest to be read. */
async function firstLine(stdin: Readable): Promise<string> {
  let line = Buffer.alloc(0);
  while (line.length < longestLineBytes) {
    const chunk = stdin.read() as Buffer | null;
    if (chunk === null) {
      if (stdin.readableEnded || stdin.destroyed) break;
      await readableOrEnded(stdin);
      continue;
    }
    const end = chunk.indexOf(0x0a);
    line = Buffer.concat([line, end === -1 ? chunk : chunk.subarray(0, end)]);
    if (end === -1) continue;
    if (end + 1 < chunk.length) stdin.unshift(chunk.subarray(end + 1));
    break;
  }
  return line.toString('utf8');
}

async function readableOrEnded(stdin: Readable): Promise<void> {
  const done = new AbortController();
  try {
    const { signal } = done;
    await Promise.race([
      once(stdin, 'readable', { signal }),
      once(stdin, 'end', { signal }),
      once(stdin, 'close', { signal }),
    ]);
  } finally {
    done.abort();
  }
}

function onlyDash(side: HubSide): (text: string) => '-' {
  return (text) => {
    if (text === '-') return '-';
    const name = variable(side, 'CONNECTION_STRING');
    // Whoever may list processes reads their arguments, and the shell keeps them in its history.
    throw new AgentError('usage', 'a connection string on the command line can be seen by others', {
      hint:
        `set ${name}, or name a file with --connection-string-file FILE,\n` +
        'or write --connection-string - and give it on standard input',
    });
  };
}
