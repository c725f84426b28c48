import type { Option } from 'commander';

import type { Setting } from '../../../daemon/config-settings.js';
import type { ConfigFlags } from '../../config-files.js';
import type { Subcommand } from '../../help.js';
import type { ConnectionFlags, IdentityFlags } from '../../identity-options.js';
import type { Io } from '../../io.js';
import { type LogFlags, logLevel } from '../../log-options.js';

export interface OverrideFlags extends ConfigFlags, IdentityFlags, ConnectionFlags, LogFlags {}

/** A value that counts instead of that of the files, and what set it. */
export interface Override extends Setting {
  /** `flag --ca`, `environment IOTHUB_DEVICE_CA`. */
  origin: string;
}

/** What the flags and the environment of an agent say, as keys of its configuration. */
export function overridesOf(io: Io, command: Subcommand, flags: OverrideFlags): Override[] {
  const given = command.options.flatMap((option) => overrideBy(command, option));
  return [
    ...given,
    ...certificate(command, flags),
    ...connectionString(io, flags),
    ...proxy(io, flags),
    ...level(io, flags),
  ];
}

/** Flags with a key of their own name, and those that have another. */
const keys: Readonly<Record<string, Setting['path']>> = {
  host: ['hub', 'host'],
  deviceId: ['hub', 'device_id'],
  moduleId: ['hub', 'module_id'],
  gatewayHost: ['hub', 'gateway_host'],
  transport: ['hub', 'transport'],
  proxy: ['hub', 'proxy'],
  httpsPort: ['hub', 'https_port'],
  attach: ['hub', 'attach'],
  ca: ['hub', 'ca'],
  logFormat: ['log', 'format'],
};

function overrideBy(command: Subcommand, option: Option): Override[] {
  const path = keys[option.attributeName()];
  const origin = originOf(command, option);
  const value: unknown = command.getOptionValue(option.attributeName());
  return path === undefined || origin === undefined ? [] : [{ path, value, origin }];
}

function originOf(command: Subcommand, option: Option): string | undefined {
  switch (command.getOptionValueSource(option.attributeName())) {
    case 'cli':
      return `flag ${option.long ?? option.flags}`;
    case 'env':
      return `environment ${option.envVar ?? ''}`;
    default:
      return undefined;
  }
}

/** Three flags for one key, whose values are paths. */
function certificate(command: Subcommand, flags: OverrideFlags): Override[] {
  const option = command.options.find((one) => one.attributeName() === 'cert');
  const origin = option && originOf(command, option);
  if (origin === undefined) return [];
  const { cert, key, keyPassphraseFile } = flags;
  const value = {
    cert,
    ...(key !== undefined && { key: { file: key } }),
    ...(keyPassphraseFile !== undefined && { passphrase: { file: keyPassphraseFile } }),
  };
  return [{ path: ['hub', 'x509'], value, origin }];
}

const variable = 'IOTHUB_DEVICE_CONNECTION_STRING';

/** In the order in which it is looked for. A device that is named by flags has none. */
function connectionString({ env }: Io, flags: OverrideFlags): Override[] {
  const path = ['hub', 'connection_string'];
  const isSet = (name: string): boolean => (env[name] ?? '') !== '';
  if (flags.connectionString !== undefined) {
    return [{ path, value: '[secret, from standard input]', origin: 'flag --connection-string' }];
  }
  if (flags.connectionStringFile !== undefined) {
    const value = { file: flags.connectionStringFile };
    return [{ path, value, origin: 'flag --connection-string-file' }];
  }
  if (isSet(variable)) return [{ path, value: { env: variable }, origin: `environment ${variable}` }];
  if (!isSet(`${variable}_FILE`)) return [];
  return [{ path, value: { file: env[`${variable}_FILE`] }, origin: `environment ${variable}_FILE` }];
}

/** It may hold a password, so it is named, not shown. */
function proxy({ env }: Io, flags: OverrideFlags): Override[] {
  const name = 'IOTHUB_DEVICE_PROXY';
  if (flags.proxy !== undefined || (env[name] ?? '') === '') return [];
  return [{ path: ['hub', 'proxy'], value: { env: name }, origin: `environment ${name}` }];
}

function level(io: Io, flags: OverrideFlags): Override[] {
  const isFlag = flags.quiet === true || flags.verbose !== undefined;
  const name = 'IOTHUB_DEVICE_LOG_LEVEL';
  if (!isFlag && (io.env[name] ?? '') === '') return [];
  const origin = isFlag ? `flag ${flags.quiet === true ? '--quiet' : '--verbose'}` : `environment ${name}`;
  return [{ path: ['log', 'level'], value: logLevel(io, flags, 'device', 'info'), origin }];
}
