import type { Sender } from 'rhea';

import type { AgentError } from '../errors.js';
import type { Token } from '../identity/token.js';
import type { Log } from '../log.js';
import type { DeviceId } from '../model.js';
import { aborted, anyOf } from '../signals.js';
import { Cbs, type TokenAnswer } from './cbs.js';
import { openConnection, type AmqpConnection, type ConnectionOptions } from './connection.js';
import { toAgentError } from './errors.js';
import { untilEvent } from './events.js';
import { asCount } from './messages.js';
import { SessionScope } from './scope.js';
import { SenderLink } from './sender-link.js';
import { attachCommands, attachTelemetry, devicePath } from './session.js';
import type { Endpoint } from './socket.js';

export interface LoginOptions {
  endpoint: Endpoint;
  identity: DeviceId;
  log: Log;
  onFrame?: ConnectionOptions['onFrame'];
}

/** What a hub says of itself in its `open`. */
export interface HubGreeting {
  containerId: string;
  maxFrameBytes: number | undefined;
  idleTimeoutMs: number | undefined;
}

/**
 * The way in to a hub, one step at a time and on one connection, for who wants to know at which step it ends. The
 * agent takes the same way in one go (`openHubSession`).
 */
export class HubLogin implements AsyncDisposable {
  readonly greeting: HubGreeting;
  readonly #connection: AmqpConnection;
  readonly #identity: DeviceId;
  #scope: SessionScope | undefined;

  /** Connects, and waits for the hub's `open`. Nobody is named by then, unless the endpoint has a certificate. */
  static async open(
    { endpoint, identity, log, onFrame }: LoginOptions,
    signal: AbortSignal,
  ): Promise<HubLogin> {
    const connection = await openConnection({ endpoint, log, onFrame }, signal);
    try {
      using until = anyOf(signal, connection.over);
      await untilEvent(connection.rhea, { connection_open: () => undefined }, until);
      return new HubLogin(connection, identity);
    } catch (error) {
      connection.fail(toAgentError(error));
      throw error;
    }
  }

  private constructor(connection: AmqpConnection, identity: DeviceId) {
    const { container_id, max_frame_size, idle_time_out } = connection.rhea;
    this.#connection = connection;
    this.#identity = identity;
    this.greeting = {
      containerId: container_id,
      maxFrameBytes: max_frame_size,
      idleTimeoutMs: idle_time_out,
    };
  }

  /** Puts the token on `$cbs`. Errors: as the hub refuses it. */
  async putToken(token: Token, signal: AbortSignal): Promise<TokenAnswer> {
    using until = anyOf(signal, this.#connection.over);
    return await new Cbs(this.#connection).putToken(token, until);
  }

  /** Attaches the link that telemetry is sent on, as the agent does. */
  async attachTelemetry(signal: AbortSignal): Promise<TelemetryAttach> {
    const scope = this.#session();
    using until = anyOf(signal, scope.over);
    const sender = await attachTelemetry(scope.session, devicePath(this.#identity), until);
    return new TelemetryAttach(sender, scope);
  }

  /** Attaches the link that commands come on. No credit is given, so that none is delivered. */
  async attachCommands(signal: AbortSignal): Promise<void> {
    const scope = this.#session();
    using until = anyOf(signal, scope.over);
    await attachCommands(scope.session, devicePath(this.#identity), until);
  }

  /** Resolves with why the hub took the links or the connection down, or with undefined when `signal` is aborted. */
  async ended(signal: AbortSignal): Promise<AgentError | undefined> {
    const { over } = this.#scope ?? this.#connection;
    using until = anyOf(signal, over);
    await aborted(until);
    return over.aborted ? toAgentError(over.reason) : undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connection[Symbol.asyncDispose]();
  }

  #session(): SessionScope {
    if (this.#scope === undefined || this.#scope.over.aborted)
      this.#scope = new SessionScope(this.#connection);
    return this.#scope;
  }
}

/** The telemetry link, with what the hub says about it. */
class TelemetryAttach {
  /** The largest message that the hub says it takes; undefined when it names none. */
  readonly maxMessageBytes: number | undefined;
  readonly #link: SenderLink;

  constructor(sender: Sender, scope: SessionScope) {
    const size = asCount(sender.max_message_size);
    // 0 means that there is no limit (AMQP 1.0 transport, 2.7.3).
    this.maxMessageBytes = size === 0 ? undefined : size;
    this.#link = new SenderLink(sender.name, scope);
  }

  /** Resolves with how many messages the hub would take now, as soon as that is any. */
  async credit(signal: AbortSignal): Promise<number> {
    await this.#link.moreCredit(signal);
    return this.#link.credit;
  }
}
