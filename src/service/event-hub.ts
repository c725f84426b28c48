import { openAsking } from '../amqp/asking.js';
import { Cbs } from '../amqp/cbs.js';
import { openConnection, type AmqpConnection } from '../amqp/connection.js';
import { toAgentError } from '../amqp/errors.js';
import { openManagement, type LastEvent, type Management } from '../amqp/management.js';
import { PartitionLink, type PartitionLinkOptions } from '../amqp/partition-link.js';
import { redirectOf } from '../amqp/redirect.js';
import { keepTokenFresh } from '../amqp/renewal.js';
import { SessionScope } from '../amqp/scope.js';
import { wayOf, type Endpoint, type Way } from '../amqp/socket.js';
import type { Clock } from '../clock.js';
import { AgentError } from '../errors.js';
import {
  hostName,
  hostPort,
  type EventHubConnectionString,
  type ServiceConnectionString,
} from '../identity/connection-string.js';
import { eventHubTokens, type Token, type TokenMaker } from '../identity/token.js';
import type { Log } from '../log.js';
import { anyOf } from '../signals.js';
import type { ServiceOptions } from './client.js';
import { selectorOf, type EventPosition } from './event-position.js';

/** An event hub and the way to it: the endpoint that every IoT hub has built in, or one that it routes to. */
export interface EventHub {
  endpoint: Endpoint;
  name: string;
  /** Makes tokens for all of the event hub; undefined for a development emulator without keys. */
  makeToken: TokenMaker | undefined;
  clock: Clock;
  log: Log;
}

const eventHubPath = '/$servicebus/websocket';

/** The event hub that an Event Hubs connection string names. Errors: `config` when it names a namespace only. */
export function eventHubOf(
  string: EventHubConnectionString,
  { clock, log, ...way }: Way & { clock: Clock; log: Log },
): EventHub {
  const { host, entityPath, developmentEmulator } = string;
  if (entityPath === undefined) {
    throw new AgentError('config', 'the connection string names no event hub', {
      hint: 'append ;EntityPath=NAME, the name of the event hub in this namespace',
    });
  }
  const port = hostPort(host, developmentEmulator ? 5672 : 5671);
  return {
    endpoint: {
      ...{ host: hostName(host), port, webSocketPath: eventHubPath },
      ...(developmentEmulator ? { withoutTls: true } : way),
    },
    name: entityPath,
    makeToken: eventHubTokens(string, entityPath),
    clock,
    log,
  };
}

/** Asks an IoT hub where its built-in endpoint is. The policy's key is good there too. */
export async function findEventHub(
  hub: ServiceOptions,
  { credential }: Pick<ServiceConnectionString, 'credential'>,
  signal: AbortSignal,
): Promise<EventHub> {
  const { endpoint, makeToken, clock, log } = hub;
  using patience = anyOf(signal, AbortSignal.timeout(answerWithinMs));
  await using connection = await openConnection({ endpoint, log }, patience);
  using until = anyOf(patience, connection.over);
  await new Cbs(connection).putToken(makeToken(clock.now()), until);
  const { host, port, address } = await redirectOf(connection, 'messages/events/', until);
  const name = /^amqps?:\/\/[^/]+\/([^/]+)/i.exec(address)?.[1];
  if (name === undefined)
    throw new AgentError('protocol', `the hub names a place that cannot be read: ${address}`);
  const named = port === 5671 ? host : `${host}:${String(port)}`;
  log.debug('events are there', { host: named, eventHub: name });
  return {
    endpoint: { ...wayOf(endpoint), host, port, webSocketPath: eventHubPath },
    name,
    makeToken: eventHubTokens({ host: named, credential }, name),
    clock,
    log,
  };
}

export interface ReadOptions extends Pick<PartitionLinkOptions, 'partition' | 'epoch' | 'onEvent'> {
  group: string;
  position: EventPosition;
}

/** One connection to an event hub. Its tokens are kept fresh for as long as it lasts. */
export class EventHubConnection implements AsyncDisposable {
  readonly #eventHub: EventHub;
  readonly #connection: AmqpConnection;
  readonly #cbs: Cbs;
  readonly #scope: SessionScope;
  readonly #management: Management;
  /** What tokens were put for: the addresses of all links. */
  readonly #audiences = new Set<string>();

  private constructor(
    eventHub: EventHub,
    parts: { connection: AmqpConnection; cbs: Cbs; management: Management },
  ) {
    this.#eventHub = eventHub;
    this.#connection = parts.connection;
    this.#cbs = parts.cbs;
    this.#management = parts.management;
    this.#scope = new SessionScope(parts.connection);
    this.#audiences.add(managementAddress);
    const { makeToken, ...rest } = eventHub;
    if (makeToken === undefined) return;
    const put = (token: Token, signal: AbortSignal) =>
      Promise.all([...this.#audiences].map((address) => putFor(address, token, this.#cbs, signal)));
    // It ends with the connection, whose end is told elsewhere.
    keepTokenFresh({ ...rest, makeToken, put }, this.#connection.over).catch(() => undefined);
  }

  static async open(eventHub: EventHub, signal: AbortSignal): Promise<EventHubConnection> {
    const { endpoint, name, log } = eventHub;
    using patience = anyOf(signal, AbortSignal.timeout(answerWithinMs));
    const connection = await openConnection({ endpoint, log, anonymous: true }, patience);
    try {
      using until = anyOf(patience, connection.over);
      const cbs = new Cbs(connection);
      await putToken(eventHub, { cbs, address: managementAddress }, until);
      const management = await openManagement(await openAsking(connection, until), name, until);
      return new EventHubConnection(eventHub, { connection, cbs, management });
    } catch (error) {
      connection.fail(toAgentError(error));
      throw error;
    }
  }

  /** Aborted when the connection is over; the reason is the `AgentError` that says why. */
  get over(): AbortSignal {
    return this.#scope.over;
  }

  partitionIds(signal: AbortSignal): Promise<string[]> {
    return this.#management.partitionIds(signal);
  }

  /** The newest event of a partition. */
  last(partition: string, signal: AbortSignal): Promise<LastEvent> {
    return this.#management.last(partition, signal);
  }

  /** Attaches a reader of a partition, which gets what it grants. */
  async read({ group, position, ...options }: ReadOptions, signal: AbortSignal): Promise<PartitionLink> {
    const { name, log } = this.#eventHub;
    const { partition } = options;
    const address = `ConsumerGroups/${group}/Partitions/${partition}`;
    using until = anyOf(signal, this.over);
    await putToken(this.#eventHub, { cbs: this.#cbs, address }, until);
    this.#audiences.add(address);
    return await PartitionLink.open(
      this.#scope.session,
      {
        ...options,
        address: `${name}/${address}`,
        selector: selectorOf(position),
        onUnreadable: (why) => {
          log.warn('an event that cannot be read was passed over', { partition, why });
        },
      },
      until,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connection[Symbol.asyncDispose]();
  }
}

const managementAddress = '$management';
const answerWithinMs = 30_000;

async function putToken(
  { makeToken, clock }: EventHub,
  { cbs, address }: { cbs: Cbs; address: string },
  signal: AbortSignal,
): Promise<void> {
  if (makeToken !== undefined) await putFor(address, makeToken(clock.now()), cbs, signal);
}

/** Event Hubs wants a token for each address, and takes the same one for all that are below its audience. */
function putFor(address: string, token: Token, cbs: Cbs, signal: AbortSignal): Promise<unknown> {
  return cbs.putToken({ ...token, audience: `${token.audience}/${address}` }, signal);
}
