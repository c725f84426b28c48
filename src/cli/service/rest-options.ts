import { Option } from 'commander';

import type { ServiceConnectionString } from '../../identity/connection-string.js';
import type { Log } from '../../log.js';
import type { RestClient } from '../../service/rest.js';
import {
  addConnectionOptions,
  addIdentityOptions,
  addTimeoutOption,
  readServiceIdentity,
  type ConnectionFlags,
  type IdentityFlags,
  type TimeoutFlags,
} from '../identity-options.js';
import type { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { addLogOptions, openLog, type LogFlags } from '../log-options.js';
import { addOutputOptions, type OutputFlags } from '../output.js';
import { count } from '../values.js';
import { variable } from '../variables.js';

export interface RestFlags extends IdentityFlags, ConnectionFlags, TimeoutFlags, OutputFlags, LogFlags {
  httpsPort?: number;
}

/** The options of a command that asks the hub over REST. */
export function addRestOptions(command: Subcommand): Subcommand {
  addOutputOptions(command, 'service');
  addIdentityOptions(command, 'service');
  addConnectionOptions(command, 'service');
  addHttpsPortOption(command);
  addTimeoutOption(command);
  return addLogOptions(command, 'service');
}

export function addHttpsPortOption(command: Subcommand): Subcommand {
  return command.addOption(
    new Option('--https-port <n>', 'port for REST; that of the host name if it has one, else 443')
      .argParser(count(1, 65_535))
      .env(variable('service', 'HTTPS_PORT'))
      .helpGroup('Connection:'),
  );
}

type RestWork = (rest: RestClient, signal: AbortSignal, identity: ServiceConnectionString) => Promise<void>;

/** Asks the hub, until a signal or the time comes. */
export async function withRest(io: Io, flags: RestFlags, work: RestWork): Promise<void> {
  const log = await openLog(io, flags, 'service', 'warn');
  try {
    await askRest(io, await readServiceIdentity(io, flags), { ...flags, log }, work);
  } finally {
    await log.flush();
  }
}

/** The same for one who knows already who asks. */
export async function askRest(
  io: Io,
  identity: ServiceConnectionString,
  flags: ConnectionFlags & TimeoutFlags & { httpsPort?: number | undefined; log: Log },
  work: RestWork,
): Promise<void> {
  const { toAgentError } = await import('../../amqp/errors.js');
  const { anyOf } = await import('../../signals.js');
  const { restOf } = await import('./hub.js');
  using rest = await restOf(identity, flags);
  const patience = Number.isFinite(flags.timeout) ? [AbortSignal.timeout(flags.timeout)] : [];
  using until = anyOf(io.stop, ...patience);
  try {
    await work(rest, until, identity);
  } catch (error) {
    io.stop.throwIfAborted();
    throw toAgentError(error);
  }
}
