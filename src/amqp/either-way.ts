import { setTimeout as delay } from 'node:timers/promises';

import { AgentError } from '../errors.js';
import type { Log } from '../log.js';
import { anyOf } from '../signals.js';
import { toAgentError } from './errors.js';
import type { GuardableSocket } from './guard.js';
import { openSocket, type Endpoint, type WebSocketWay } from './socket.js';

export interface EitherWayOptions {
  /** The way that is taken where AMQP on its own port leads nowhere. */
  webSocket: WebSocketWay;
  log: Log;
  /** Milliseconds without a TLS answer after which the other way is tried too. */
  patienceMs?: number | undefined;
}

const defaultPatienceMs = 5_000;
/** A way that was found is taken at once for this long; a device may have moved to another network after that. */
const rememberMs = 600_000;

/**
 * Finds the way to a hub: AMQP on its own port, and where a firewall blocks that, AMQP inside of a WebSocket. Both are
 * tried together only when the first one gives no answer; what answers and is not trusted is not gone around.
 */
export class EitherWay {
  readonly #options: EitherWayOptions;
  /** When the WebSocket was the way that led there. */
  #foundAt: number | undefined;
  #isSaid = false;

  constructor(options: EitherWayOptions) {
    this.#options = options;
  }

  /** The way that is taken where AMQP on its own port leads nowhere. */
  get webSocket(): WebSocketWay {
    return this.#options.webSocket;
  }

  async open(endpoint: Endpoint, signal: AbortSignal): Promise<GuardableSocket> {
    const direct = { ...endpoint, eitherWay: undefined };
    const { webSocket } = this.#options;
    if (this.#foundAt === undefined || performance.now() - this.#foundAt > rememberMs)
      return this.#openEither(direct, signal);
    try {
      return await openSocket({ ...direct, webSocket }, signal);
    } catch (error) {
      this.#foundAt = undefined;
      throw error;
    }
  }

  async #openEither(direct: Endpoint, signal: AbortSignal): Promise<GuardableSocket> {
    const { webSocket, patienceMs = defaultPatienceMs } = this.#options;
    const found = new AbortController();
    using until = anyOf(signal, found.signal);
    try {
      const first = openSocket(direct, until);
      const early = await Promise.race([first, silence(patienceMs, until)]).catch((error: unknown) => {
        signal.throwIfAborted();
        if (!isBlocked(toAgentError(error))) throw error;
      });
      if (early !== undefined) return early;
      const second = openSocket({ ...direct, webSocket }, until);
      const ways = [first, second] as const;
      const socket = await Promise.any(ways).catch((error: unknown) => {
        signal.throwIfAborted();
        const [one, other] = (error as AggregateError).errors.map((each) => toAgentError(each));
        throw neither(direct.port, one, webSocket.port, other);
      });
      for (const way of ways) discard(way, socket);
      second.then(
        (opened) => {
          if (opened === socket) this.#take(direct);
        },
        () => undefined,
      );
      return socket;
    } finally {
      found.abort(new AgentError('unavailable', 'the other way was faster'));
    }
  }

  #take({ host, port }: Endpoint): void {
    this.#foundAt = performance.now();
    if (this.#isSaid) return;
    this.#isSaid = true;
    const { webSocket, log } = this.#options;
    const { proxy } = webSocket;
    log.warn('AMQP does not get through on its own port; it goes inside of a WebSocket', {
      host,
      blocked: port,
      port: webSocket.port,
      ...(proxy && { proxy: `${proxy.host}:${String(proxy.port)}` }),
    });
  }
}

async function silence(ms: number, signal: AbortSignal): Promise<undefined> {
  await delay(ms, undefined, { signal }).catch(() => undefined);
}

/** A firewall drops, refuses or resets. What answers otherwise is there, and its answer is what there is to know. */
function isBlocked({ code }: AgentError): boolean {
  return code === 'unavailable';
}

/** The second one may come too late to be the one. */
function discard(way: Promise<GuardableSocket>, taken: GuardableSocket): void {
  way.then(
    (socket) => {
      if (socket !== taken) socket.destroy();
    },
    () => undefined,
  );
}

/** The one that says more comes first. */
function neither(
  port: number,
  one: AgentError | undefined,
  webSocketPort: number,
  other: AgentError | undefined,
): AgentError {
  if (one === undefined || other === undefined) throw new TypeError('two attempts have two errors');
  const [said, also, where] = isBlocked(other)
    ? [one, other, `over WebSocket on port ${String(webSocketPort)}`]
    : [other, one, `on port ${String(port)}`];
  const { code, message, retry, condition, hint } = said;
  return new AgentError(code, message, {
    ...{ retry, condition, cause: said },
    hint: [hint, `and ${where}: ${also.message}`].filter((line) => line !== undefined).join('\n'),
  });
}
