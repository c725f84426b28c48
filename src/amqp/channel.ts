import { randomUUID } from 'node:crypto';
import { setMaxListeners } from 'node:events';

import type { Receiver, ReceiverOptions, Sender, SenderOptions } from 'rhea';

import { anyOf } from '../signals.js';
import { attached } from './attach.js';
import type { AmqpConnection } from './connection.js';
import { toAgentError } from './errors.js';
import { SessionScope } from './scope.js';

/**
 * Two links to one address, one in each direction, that the hub takes for a pair. They have a session of their own:
 * what becomes of them is nothing to telemetry and commands, and a hub that refuses methods does not cost the twin.
 */
export interface Channel {
  readonly scope: SessionScope;
  readonly sender: Sender;
  readonly receiver: Receiver;
}

export interface ChannelOptions {
  kind: 'methods' | 'twin';
  /** Address of both links. */
  address: string;
  /** Link properties that tell the hub about its client. */
  properties: Record<string, string>;
  sender?: SenderOptions & { treat_modified_as_released?: boolean };
  receiver: ReceiverOptions;
}

/** Opens the channel of a connection when it is asked for, and anew after it was lost. */
export class ChannelOpener<Link extends { readonly over: AbortSignal }> {
  readonly #connection: AmqpConnection;
  readonly #options: ChannelOptions;
  readonly #use: (channel: Channel) => Link;
  #scope: SessionScope | undefined;
  #link: Link | undefined;

  constructor(connection: AmqpConnection, options: ChannelOptions, use: (channel: Channel) => Link) {
    this.#connection = connection;
    this.#options = options;
    this.#use = use;
  }

  /** The open channel, or a new one. Rejects when the hub refuses it and when `signal` is aborted. */
  async open(signal: AbortSignal): Promise<Link> {
    if (this.#link !== undefined && !this.#link.over.aborted) return this.#link;
    using until = anyOf(signal, this.#connection.over);
    const former = this.#scope;
    // Forgotten before it is waited for: a hub that never ends its side is waited for once.
    this.#scope = undefined;
    await former?.closed(until);
    until.throwIfAborted();
    const scope = new SessionScope(this.#connection);
    this.#scope = scope;
    // Every request listens to it; Node takes more than ten for a leak.
    setMaxListeners(0, scope.over);
    using alive = anyOf(until, scope.over);
    try {
      this.#link = this.#use(await attach(scope, this.#options, alive));
      return this.#link;
    } catch (error) {
      scope.fail(toAgentError(error));
      throw error;
    }
  }
}

/**
 * The hub pairs the links by `channel-correlation-id`, and does not know the address of a link that names no
 * `api-version` (404006). Sender first, as the Node SDK does: with the receiver the hub begins to send.
 */
async function attach(
  scope: SessionScope,
  { kind, address, properties, ...options }: ChannelOptions,
  signal: AbortSignal,
): Promise<Channel> {
  const name = kind === 'methods' ? 'method' : 'twin';
  const channelProperties = {
    ...properties,
    'com.microsoft:api-version': apiVersion,
    'com.microsoft:channel-correlation-id': `${kind}:${randomUUID()}`,
  };
  const sender = scope.session.attach_sender({
    ...options.sender,
    name: `outgoing ${name} link/${randomUUID()}`,
    target: { address },
    properties: channelProperties,
  });
  const receiver = scope.session.attach_receiver({
    ...options.receiver,
    name: `incoming ${name} link/${randomUUID()}`,
    source: { address },
    properties: channelProperties,
  });
  await Promise.all([attached(sender, 'sender', signal), attached(receiver, 'receiver', signal)]);
  return { scope, sender, receiver };
}

const apiVersion = '2021-04-12';
