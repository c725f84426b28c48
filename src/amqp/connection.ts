import '../no-debug.js';

import { randomUUID } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';

import rhea, {
  type Connection,
  type ConnectionDetails,
  type ConnectionOptions as RheaOptions,
  type EventContext,
} from 'rhea';

import { AgentError } from '../errors.js';
import type { Log } from '../log.js';
import { amqpError, fromCondition, toAgentError } from './errors.js';
import { guard, type GuardableSocket, type GuardedSocket, type GuardOptions } from './guard.js';
import { lossEvents } from './scope.js';
import { openSocket, type Endpoint } from './socket.js';

export interface ConnectionOptions {
  endpoint: Endpoint;
  log: Log;
  /** Begin with SASL ANONYMOUS, as Event Hubs wants it; IoT Hub wants no SASL before `$cbs`. */
  anonymous?: boolean | undefined;
  /**
   * Milliseconds of silence that we ask the hub to avoid (`idle-time-out` of the open frame); it sends empty frames
   * meanwhile. rhea gives up after twice that.
   */
  idleTimeoutMs?: number | undefined;
  /**
   * Milliseconds without a byte after which the connection is over. rhea's own timer does not run before the open
   * and loses itself when a peer stalls inside a frame.
   */
  silenceMs?: number | undefined;
  /** Is told of every frame. */
  onFrame?: GuardOptions['trace'];
}

/** Azure IoT Hub's own frame size. */
const maxFrameBytes = 65_536;
/** More than any window of ours; half of what rhea keeps of those that arrive. */
const maxOutstandingDeliveries = 1_024;
/** The largest message of the hub is a telemetry batch of 256 KB, read back; a command has 64 KB. */
const maxMessageBytes = 1024 * 1024;
const defaultIdleTimeoutMs = 10_000;
const defaultSilenceMs = 25_000;
/** How long a peer may take to answer our close. */
const closeGraceMs = 1_000;

/** The way past rhea for deliveries; whether the socket is full can be seen. */
export type Outlet = Pick<GuardedSocket, 'sendingLink' | 'receivingLink' | 'congested' | 'drained'>;

/** One AMQP connection, from TLS handshake to close; a reconnect is a new object. */
export interface AmqpConnection extends AsyncDisposable {
  readonly rhea: Connection;
  /** The way out, for who sends much. */
  readonly outlet: Outlet;
  /** Aborted when the connection is over; the reason is the `AgentError` that says why. */
  readonly over: AbortSignal;
  /** Ends the connection at once, because of this. */
  fail(error: AgentError): void;
}

/**
 * Connects, and has rhea write its `open` in this very turn: sessions and links that are begun before the next
 * `await` leave in the same flight. Does not wait for the hub's `open`: whatever is asked next does.
 */
export async function openConnection(
  options: ConnectionOptions,
  signal: AbortSignal,
): Promise<AmqpConnection> {
  const { endpoint } = options;
  const socket = await openSocket(endpoint, signal);
  return new GuardedConnection(socket, options);
}

class GuardedConnection implements AmqpConnection {
  readonly rhea: Connection;
  readonly #socket: GuardedSocket;
  readonly #ended = new AbortController();
  readonly #watchdog: NodeJS.Timeout;
  #lastByteAt = performance.now();
  #closing = false;

  constructor(
    socket: GuardableSocket,
    { endpoint, log, anonymous, idleTimeoutMs, silenceMs = defaultSilenceMs, onFrame }: ConnectionOptions,
  ) {
    this.#socket = guard(socket, {
      maxFrameBytes,
      maxOutstandingDeliveries,
      maxMessageBytes,
      onBytes: () => {
        this.#lastByteAt = performance.now();
      },
      trace: onFrame ?? (log.isTracing === true ? frameTrace(log) : undefined),
    });
    setMaxListeners(0, this.over);
    const containerId = randomUUID();
    // rhea reads connect.json and the environment when it is given no options, and reconnects unless told not to.
    const rheaOptions: RheaOptions & Pick<ConnectionDetails, 'connect'> = {
      host: endpoint.host,
      port: endpoint.port,
      hostname: endpoint.serverName ?? endpoint.host,
      container_id: containerId,
      max_frame_size: maxFrameBytes,
      channel_max: 31,
      idle_time_out: idleTimeoutMs ?? defaultIdleTimeoutMs,
      // A name without a password is SASL ANONYMOUS to rhea.
      ...(anonymous === true ? { username: 'anonymous' } : {}),
      reconnect: false,
      connect: (_port: number, _host: string, _options: unknown, connected: () => void) => {
        process.nextTick(connected);
        return this.#socket;
      },
    };
    this.rhea = rhea.create_container({ id: containerId }).create_connection(rheaOptions);
    this.#listen(log);
    this.#watchdog = setInterval(() => {
      this.#checkSilence(silenceMs);
    }, silenceMs / 5);
    this.rhea.connect();
  }

  get outlet(): Outlet {
    return this.#socket;
  }

  get over(): AbortSignal {
    return this.#ended.signal;
  }

  fail(error: AgentError): void {
    if (this.over.aborted) return;
    clearInterval(this.#watchdog);
    this.#ended.abort(error);
    // A turn later, so that rhea's answer to a close of the hub still leaves.
    setImmediate(() => {
      this.#socket.destroy();
      // rhea stops its heartbeat timers when it hears of the end, and they would keep the process.
      this.#socket.emit('end');
    });
  }

  /** Says goodbye, waits a moment for the answer, and drops the socket in any case. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.over.aborted) {
      this.#closing = true;
      this.rhea.close();
      await delay(closeGraceMs, undefined, { signal: this.over }).catch(() => undefined);
    }
    this.fail(new AgentError('unavailable', 'the connection was closed by us'));
  }

  /**
   * Every event that rhea would otherwise print or throw has a listener here, and none of them throws. Sessions and
   * links are watched by who opened them (`amqp/scope`); what comes here of them is what nobody waits for any more.
   */
  #listen(log: Log): void {
    const on = (event: string, explain: (context: EventContext) => AgentError) => {
      this.rhea.on(event, (context: EventContext) => {
        this.fail(explain(context));
      });
    };
    on('connection_error', (c) =>
      fromCondition(amqpError(c.connection.error), 'the hub closed the connection and'),
    );
    on('connection_close', () => new AgentError('unavailable', 'the hub closed the connection'));
    on('disconnected', (c) =>
      c.error === undefined
        ? new AgentError('unavailable', 'the hub dropped the connection')
        : toAgentError(c.error),
    );
    for (const event of lossEvents) {
      this.rhea.on(event, () => {
        log.trace('the end of something that is over already', { event });
      });
    }
    // These hand over the error itself.
    const onError = (error: unknown) => {
      this.fail(
        this.#closing ? new AgentError('unavailable', 'the connection was closed') : toAgentError(error),
      );
    };
    this.rhea.on('protocol_error', onError);
    this.rhea.on('error', onError);
    this.rhea.container.on('error', onError);
    this.#socket.on('error', onError);
  }

  #checkSilence(silenceMs: number): void {
    if (performance.now() - this.#lastByteAt < silenceMs) return;
    this.fail(
      new AgentError('unavailable', `the hub has been silent for ${String(Math.round(silenceMs / 1000))} s`),
    );
  }
}

/** A line for every frame: its performative and its size, and nothing of what it carries. */
function frameTrace(log: Log): NonNullable<GuardOptions['trace']> {
  return (direction, { performative, channel, bytes }) => {
    log.trace(`${direction === 'in' ? '<-' : '->'} ${performative}`, { channel, bytes });
  };
}
