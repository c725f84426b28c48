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

export type RestFlags = IdentityFlags & ConnectionFlags & TimeoutFlags & OutputFlags & LogFlags;

/** The options of a command that asks the hub over REST. */
export function addRestOptions(command: Subcommand): Subcommand {
  addOutputOptions(command, 'service');
  addIdentityOptions(command, 'service');
  addConnectionOptions(command, 'service', { amqp: false });
  addTimeoutOption(command);
  return addLogOptions(command, 'service');
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
  flags: ConnectionFlags & TimeoutFlags & { log: Log },
  work: RestWork,
): Promise<void> {
  const { toAgentError } = await import('../../amqp/errors.js');
  const { anyOf } = await import('../../signals.js');
  const { restOf } = await import('./hub.js');
  using rest = await restOf(io, identity, flags);
  const patience = Number.isFinite(flags.timeout) ? [AbortSignal.timeout(flags.timeout)] : [];
  using until = anyOf(io.stop, ...patience);
  try {
    await work(rest, until, identity);
  } catch (error) {
    io.stop.throwIfAborted();
    throw toAgentError(error);
  }
}
