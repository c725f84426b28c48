import { Option } from 'commander';

import { AgentError } from '../../errors.js';
import type { EventHub } from '../../service/event-hub.js';
import type { Log } from '../../log.js';
import type { Subcommand } from '../help.js';
import {
  addConnectionOptions,
  addIdentityOptions,
  readServiceIdentity,
  type ConnectionFlags,
  type IdentityFlags,
} from '../identity-options.js';
import { findConnectionString } from '../identity-source.js';
import type { Io } from '../io.js';

export interface EventHubFlags extends IdentityFlags, ConnectionFlags {
  eventHubConnectionStringFile?: string;
}

/** Where an Event Hubs connection string is looked for; other tools know the name. */
const eventHubVariable = 'IOTHUB_EVENTHUB_CONNECTION_STRING';

/** Options that say which event hub: that of a hub policy's connection string, or one of its own. */
export function addEventHubOptions(command: Subcommand): Subcommand {
  addIdentityOptions(command, 'service').addOption(
    new Option(
      '--event-hub-connection-string-file <file>',
      `file with an Event Hubs connection string, instead of asking the hub; without it $${eventHubVariable}`,
    ).helpGroup('Identity:'),
  );
  return addConnectionOptions(command, 'service');
}

/**
 * Finds the event hub. A flag wins over the environment; of the two kinds of connection strings an Event Hubs one
 * wins, because it needs no detour.
 */
export async function readEventHub(
  io: Io,
  flags: EventHubFlags,
  log: Log,
): Promise<(signal: AbortSignal) => Promise<EventHub>> {
  const { systemClock } = await import('../../clock.js');
  const { wayOf } = await import('../../amqp/socket.js');
  const { endpointOf } = await import('../endpoint.js');
  const { eventHubOf, findEventHub } = await import('../../service/event-hub.js');
  const { eventHubConnectionStringFile: file, insecurePermissions = false } = flags;
  const namesHub = flags.connectionString !== undefined || flags.connectionStringFile !== undefined;
  const inEnvironment = [eventHubVariable, `${eventHubVariable}_FILE`].some(
    (name) => (io.env[name] ?? '') !== '',
  );

  if (file !== undefined || (inEnvironment && !namesHub)) {
    const { parseEventHubConnectionString } = await import('../../identity/connection-string.js');
    const found = await findConnectionString(io, {
      stdin: false,
      file,
      variable: eventHubVariable,
      configured: undefined,
      insecurePermissions,
    });
    try {
      const string = parseEventHubConnectionString(found.text);
      const way = await endpointOf(io, string.host, { side: 'service', flags, log });
      const eventHub = eventHubOf(string, { ...wayOf(way), clock: systemClock, log });
      return () => Promise.resolve(eventHub);
    } catch (error) {
      if (!(error instanceof AgentError)) throw error;
      throw new AgentError(found.code, `${found.from}: ${error.message}`, {
        hint: error.hint,
        cause: error.cause,
      });
    }
  }
  const identity = await readServiceIdentity(io, flags);
  const { serviceHub } = await import('./hub.js');
  const hub = await serviceHub(io, identity, { ...flags, log });
  return (signal) => findEventHub(hub, identity, signal);
}
