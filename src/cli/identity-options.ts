import { Option } from 'commander';

import type { Attach, CertificateConfig, HubConfig, Transport } from '../daemon/config-hub.js';
import type { SecretSource } from '../daemon/config-secret.js';
import { AgentError } from '../errors.js';
import {
  checkHost,
  type DeviceConnectionString,
  deviceWithCertificate,
  parseDeviceConnectionString,
  parseServiceConnectionString,
  type ServiceConnectionString,
} from '../identity/connection-string.js';
import { certificatePlace, type CertificatePlace } from './certificate-source.js';
import type { Subcommand } from './help.js';
import { findConnectionString, isGiven } from './identity-source.js';
import type { Io } from './io.js';
import { readSmallFile } from './small-file.js';
import { count, durationOrForever } from './values.js';
import { variable } from './variables.js';

/** The sides that have an identity of their own. */
type HubSide = 'device' | 'service';

/** What `addIdentityOptions` leaves in a command's flags. */
export interface IdentityFlags {
  connectionString?: '-';
  connectionStringFile?: string;
  insecurePermissions?: boolean;
  // Of a device only:
  host?: string;
  deviceId?: string;
  moduleId?: string;
  cert?: string;
  key?: string;
  keyPassphraseFile?: string;
  gatewayHost?: string;
}

/** Who a device is, with what its connection string cannot say. */
export interface DeviceIdentity extends DeviceConnectionString {
  /** Of a device with `x509=true`; undefined when nobody has said where it is. */
  certificate?: CertificatePlace | undefined;
}

/** What `addConnectionOptions` leaves in a command's flags. */
export interface ConnectionFlags {
  ca?: string | undefined;
  transport?: Transport | undefined;
  /** Without user name and password. */
  proxy?: string | undefined;
  httpsPort?: number | undefined;
  // Of a device only:
  attach?: Attach | undefined;
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
  command
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
    .addOption(
      group(new Option('--insecure-permissions', 'take files with keys even when others may read them')),
    );
  return side === 'device' ? addCertificateOptions(command) : command;
}

/** Options of a device that has a certificate instead of a key. */
function addCertificateOptions(command: Subcommand): Subcommand {
  const option = (flags: string, description: string, name: string): Option =>
    new Option(flags, description).env(variable('device', name)).helpGroup('Identity:');
  return command
    .addOption(option('--host <host[:port]>', 'name of the hub, without a connection string', 'HOST'))
    .addOption(option('--device-id <id>', 'who we are there', 'DEVICE_ID'))
    .addOption(option('--module-id <id>', 'which module of the device', 'MODULE_ID'))
    .addOption(option('--cert <file>', 'PEM file of the certificate, with its intermediates', 'CERT'))
    .addOption(
      option(
        '--key <file>',
        'PEM file of its key; without it the key is in the file of the certificate',
        'KEY',
      ),
    )
    .addOption(
      option('--key-passphrase-file <file>', 'file with the passphrase of the key', 'KEY_PASSPHRASE_FILE'),
    );
}

const transports: readonly Transport[] = ['auto', 'amqp', 'amqp-ws'];
const attachTimes: readonly Attach[] = ['after-token', 'with-token'];

/** Options of the way to the hub; of one who speaks REST and no AMQP, fewer. */
export function addConnectionOptions(
  command: Subcommand,
  side: HubSide,
  { amqp = true }: { amqp?: boolean } = {},
): Subcommand {
  const option = (flags: string, description: string, name: string): Option =>
    new Option(flags, description).env(variable(side, name)).helpGroup('Connection:');
  command.addOption(option('--ca <file>', 'PEM file of a further authority to trust', 'CA'));
  if (amqp) {
    command.addOption(
      option(
        '-t, --transport <way>',
        'AMQP on its own port, inside of a WebSocket on 443, or what gets through (default auto)',
        'TRANSPORT',
      ).choices(transports),
    );
  }
  command
    .addOption(
      new Option(
        '--proxy <url>',
        `HTTP proxy, for ${amqp ? 'WebSocket' : 'HTTPS'}; without it $${variable(side, 'PROXY')}, $HTTPS_PROXY but for $NO_PROXY`,
      )
        .argParser(withoutPassword)
        .helpGroup('Connection:'),
    )
    .addOption(
      option(
        '--https-port <n>',
        `port for ${side === 'device' ? 'WebSocket' : amqp ? 'WebSocket and REST' : 'REST'}, where it is not 443`,
        'HTTPS_PORT',
      ).argParser(count(1, 65_535)),
    );
  if (side === 'device') {
    command.addOption(
      option('--gateway-host <host>', 'IoT Edge gateway to connect to instead of the hub', 'GATEWAY_HOST'),
    );
    command.addOption(
      option(
        '--attach <when>',
        'links once the hub has taken the token, or with it: a round trip less (default after-token)',
        'ATTACH',
      ).choices(attachTimes),
    );
  }
  return command;
}

/** Processes and their arguments can be seen by others. */
function withoutPassword(url: string): string {
  if (!/^([a-z]+:\/\/)?[^/]*@/i.test(url)) return url;
  throw new AgentError('usage', 'a password on the command line can be seen by others', {
    hint: 'give the URL with user name and password in HTTPS_PROXY, or in the configuration',
  });
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
export async function readDeviceIdentity(
  io: Io,
  flags: IdentityFlags,
  configured?: HubConfig,
): Promise<DeviceIdentity> {
  const said = namedDevice(io, flags, configured) ?? (await givenDevice(io, flags, configured));
  const gatewayHost = flags.gatewayHost ?? said.gatewayHost ?? configured?.gatewayHost;
  if (gatewayHost !== undefined) checkHost('the name of the gateway', gatewayHost);
  return { ...said, gatewayHost, certificate: certificateOf(io, said, flags, configured?.certificate) };
}

/** A device that needs no connection string, because it has no key: host and id are all that there is to say. */
function namedDevice(
  io: Io,
  flags: IdentityFlags,
  configured: HubConfig | undefined,
): DeviceConnectionString | undefined {
  const byFlags = flags.host !== undefined || flags.deviceId !== undefined;
  const stringIsGiven = isGiven(io, placesOf(flags, 'device'));
  if (byFlags && stringIsGiven) {
    throw new AgentError(
      'usage',
      'a connection string and --host or --device-id both say who the device is',
      {
        hint: 'a device with a key has a connection string; one with a certificate needs no other than --host and --device-id',
      },
    );
  }
  if (flags.moduleId !== undefined && !byFlags)
    throw new AgentError('usage', '--module-id needs --host and --device-id', {
      hint: 'a connection string has ModuleId=',
    });
  const { host, deviceId, moduleId } = byFlags || stringIsGiven ? flags : (configured ?? {});
  if (host === undefined && deviceId === undefined) return undefined;
  if (host === undefined || deviceId === undefined)
    throw new AgentError('usage', '--host and --device-id need each other');
  return deviceWithCertificate({ host, deviceId, moduleId });
}

async function givenDevice(
  io: Io,
  flags: IdentityFlags,
  configured: HubConfig | undefined,
): Promise<DeviceConnectionString> {
  return readIdentity(
    io,
    { flags, side: 'device', configured: configured?.connectionString },
    parseDeviceConnectionString,
  );
}

/** Where the certificate of this device is. A key beside one would leave open which of them counts. */
function certificateOf(
  io: Io,
  { credential: { kind } }: DeviceConnectionString,
  flags: IdentityFlags,
  configured: CertificateConfig | undefined,
): CertificatePlace | undefined {
  const { cert, key, keyPassphraseFile, insecurePermissions = false } = flags;
  if (cert === undefined && (key ?? keyPassphraseFile) !== undefined)
    throw new AgentError('usage', '--key and --key-passphrase-file need --cert');
  if (kind !== 'x509') {
    if (cert === undefined && configured === undefined) return undefined;
    const other = kind === 'key' ? 'SharedAccessKey' : 'SharedAccessSignature';
    throw new AgentError(
      'config',
      `a certificate is given, and the connection string has ${other}: it is one or the other`,
      {
        hint: 'for a certificate the connection string has x509=true',
      },
    );
  }
  const file = (path: string | undefined) =>
    path === undefined ? undefined : { from: 'file' as const, path };
  const said =
    cert === undefined
      ? configured
      : {
          file: cert,
          key: file(key),
          passphrase: file(keyPassphraseFile),
          warnBeforeMs: configured?.warnBeforeMs,
        };
  return said && certificatePlace(io, { ...said, insecurePermissions });
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
    ...placesOf(flags, side),
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

function placesOf(flags: IdentityFlags, side: HubSide) {
  return {
    stdin: flags.connectionString !== undefined,
    file: flags.connectionStringFile,
    variable: variable(side, 'CONNECTION_STRING'),
  };
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
