import { Option } from 'commander';

import type { SecretSource } from '../daemon/config.js';
import { AgentError } from '../errors.js';
import {
  type DeviceConnectionString,
  parseDeviceConnectionString,
  parseServiceConnectionString,
  type ServiceConnectionString,
} from '../identity/connection-string.js';
import type { Subcommand } from './help.js';
import { findConnectionString } from './identity-source.js';
import type { Io } from './io.js';
import { readSmallFile } from './small-file.js';
import { durationOrForever } from './values.js';
import { variable } from './variables.js';

/** The sides that have an identity of their own. */
type HubSide = 'device' | 'service';

/** What `addIdentityOptions` leaves in a command's flags. */
export interface IdentityFlags {
  connectionString?: '-';
  connectionStringFile?: string;
  insecurePermissions?: boolean;
}

/** What `addConnectionOptions` leaves in a command's flags. */
export interface ConnectionFlags {
  ca?: string | undefined;
}

/** What `addTimeoutOption` leaves in a command's flags. */
export interface TimeoutFlags {
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
          `file with the connection string; without it $${name}, $${name}_FILE`,
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
  return command.addOption(
    new Option('--ca <file>', 'PEM file of a further authority to trust')
      .env(variable(side, 'CA'))
      .helpGroup('Connection:'),
  );
}

/** How long a command that has an end may take to get there. */
export function addTimeoutOption(command: Subcommand): Subcommand {
  return command.addOption(
    new Option('--timeout <dur>', 'give up after this long; 0 waits for ever')
      .argParser(durationOrForever)
      .default(30_000, '30s')
      .helpGroup('Connection:'),
  );
}

/**
 * Who we are as a device or module. Looked for in this order: the flags, `IOTHUB_DEVICE_CONNECTION_STRING`, the file
 * that `IOTHUB_DEVICE_CONNECTION_STRING_FILE` names, what the configuration says, and
 * `$CREDENTIALS_DIRECTORY/connection-string` (systemd). The variable is removed from the environment, so that no
 * child process inherits it.
 */
export function readDeviceIdentity(
  io: Io,
  flags: IdentityFlags,
  configured?: SecretSource,
): Promise<DeviceConnectionString> {
  return readIdentity(io, { flags, side: 'device', configured }, parseDeviceConnectionString);
}

/** The same for a hub policy, with `IOTHUB_SERVICE_…`. */
export function readServiceIdentity(io: Io, flags: IdentityFlags): Promise<ServiceConnectionString> {
  return readIdentity(io, { flags, side: 'service' }, parseServiceConnectionString);
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
  { flags, side, configured }: { flags: IdentityFlags; side: HubSide; configured?: SecretSource | undefined },
  parse: (text: string) => T,
): Promise<T> {
  if (flags.connectionString !== undefined && flags.connectionStringFile !== undefined) {
    throw new AgentError('usage', '--connection-string and --connection-string-file exclude each other');
  }
  const { text, from, code } = await findConnectionString(io, {
    stdin: flags.connectionString !== undefined,
    file: flags.connectionStringFile,
    variable: variable(side, 'CONNECTION_STRING'),
    configured,
    insecurePermissions: flags.insecurePermissions === true,
  });
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    throw new AgentError(code, `${from}: ${error.message}`, { hint: error.hint, cause: error.cause });
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
