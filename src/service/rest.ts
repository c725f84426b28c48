import type { IncomingMessage } from 'node:http';
import { Agent, request as httpsRequest, type AgentOptions } from 'node:https';
import type { Duplex } from 'node:stream';

import { toAgentError } from '../amqp/errors.js';
import { openTunnel, type HttpProxy } from '../amqp/proxy.js';
import { openTlsSocket, secureContext, type Endpoint } from '../amqp/socket.js';
import { createBackoff } from '../backoff.js';
import type { Clock } from '../clock.js';
import { AgentError, type ErrorCode } from '../errors.js';
import type { TokenMaker } from '../identity/token.js';
import type { Log } from '../log.js';
import { anyOf } from '../signals.js';

export interface RestOptions {
  /** Through which the hub is reached. */
  proxy?: HttpProxy | undefined;
  /** HTTPS, port 443 at every hub. */
  endpoint: Endpoint;
  /** Makes the token of a hub policy. */
  makeToken: TokenMaker;
  clock: Clock;
  log: Log;
}

export interface RestRequest {
  method: 'GET' | 'PUT' | 'PATCH' | 'POST' | 'DELETE';
  /** Below the host, its ids encoded (`path`). */
  path: string;
  headers?: Record<string, string>;
  /** JSON text. */
  body?: string | undefined;
  /** Milliseconds that the hub may take to answer. Default 30 s. */
  answerWithinMs?: number;
  /** Doing it twice is not the same as doing it once: it is tried again only when it was not done. */
  once?: boolean;
}

export interface RestAnswer {
  headers: IncomingMessage['headers'];
  /** As the hub wrote it; empty when there is no body. */
  text: string;
}

const apiVersion = '2021-04-12';
const defaultAnswerWithinMs = 30_000;
const mostAttempts = 5;
/** Through a proxy, until TLS is there. */
const connectWithinMs = 20_000;
/** A page of a thousand twins with 8 KB of tags, desired and reported properties each. */
const longestAnswerBytes = 64 * 1024 * 1024;

/**
 * The REST side of a hub: registry, twins, direct methods ("IoT Hub REST API"). What is throttled or fails in the hub
 * is tried again with pauses, as long as the hub asks for or growing.
 */
export class RestClient implements Disposable {
  readonly #options: RestOptions;
  readonly #agent: Agent;

  constructor(options: RestOptions) {
    this.#options = options;
    const { endpoint, proxy } = options;
    const settings = { keepAlive: true, secureContext: secureContext(endpoint.trust ?? {}) };
    this.#agent = proxy === undefined ? new Agent(settings) : new TunnelAgent(settings, endpoint, proxy);
  }

  /** Errors: by what the hub says, with its code as the condition (`DeviceNotFound`). */
  async send(request: RestRequest, signal: AbortSignal): Promise<RestAnswer> {
    const { clock, log } = this.#options;
    const backoff = createBackoff();
    for (let attempt = 1; ; attempt++) {
      const { status, headers, text } = await this.#exchange(request, signal);
      if (status < 300) return { headers, text };
      const error = explain(status, text);
      if (attempt === mostAttempts || !passes(status, request.once === true)) throw error;
      const delayMs = retryAfterMs(headers) ?? backoff.next('soon');
      log.warn('the hub cannot do it now, trying again', { error, delayMs });
      await clock.sleep(delayMs, signal);
    }
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
  }

  async #exchange(
    { method, path, headers, body, answerWithinMs = defaultAnswerWithinMs }: RestRequest,
    signal: AbortSignal,
  ): Promise<{ status: number; headers: IncomingMessage['headers']; text: string }> {
    const { endpoint, makeToken, clock, log } = this.#options;
    const { host, port, serverName = host } = endpoint;
    using until = anyOf(signal, AbortSignal.timeout(answerWithinMs));
    until.throwIfAborted();
    try {
      const response = await new Promise<IncomingMessage>((resolve, reject) => {
        const request = httpsRequest(
          {
            agent: this.#agent,
            ...{ host, port, method, servername: serverName, signal: until },
            path: `${path}${path.includes('?') ? '&' : '?'}api-version=${apiVersion}`,
            headers: {
              authorization: makeToken(clock.now()).value.reveal(),
              accept: 'application/json',
              ...(body === undefined
                ? {}
                : {
                    'content-type': 'application/json; charset=utf-8',
                    'content-length': Buffer.byteLength(body),
                  }),
              ...headers,
            },
          },
          resolve,
        );
        request.on('error', reject);
        request.end(body);
      });
      const chunks: Buffer[] = [];
      let bytes = 0;
      for await (const chunk of response as AsyncIterable<Buffer>) {
        bytes += chunk.length;
        if (bytes > longestAnswerBytes) throw new AgentError('protocol', "the hub's answer has no end");
        chunks.push(chunk);
      }
      const { statusCode: status = 0 } = response;
      log.debug('REST', { method, path, status });
      return { status, headers: response.headers, text: Buffer.concat(chunks).toString('utf8') };
    } catch (error) {
      until.throwIfAborted();
      throw toAgentError(error, { host, port });
    }
  }
}

/** Connects through a proxy. */
class TunnelAgent extends Agent {
  readonly #endpoint: Endpoint;
  readonly #proxy: HttpProxy;

  constructor(options: AgentOptions, endpoint: Endpoint, proxy: HttpProxy) {
    super(options);
    this.#endpoint = endpoint;
    this.#proxy = proxy;
  }

  override createConnection(
    _options: unknown,
    connected: (error: Error | null, socket: Duplex) => void,
  ): undefined {
    this.#open().then(
      (socket) => {
        connected(null, socket);
      },
      (error: unknown) => {
        connected(error as Error, undefined as never);
      },
    );
  }

  async #open(): Promise<Duplex> {
    const patience = AbortSignal.timeout(connectWithinMs);
    const tunnel = await openTunnel(this.#proxy, this.#endpoint, patience);
    return openTlsSocket(this.#endpoint, patience, tunnel);
  }
}

/** `/devices/{id}/…`, its ids percent-encoded. */
export function path(...segments: readonly string[]): string {
  return segments.map((segment) => `/${encodeURIComponent(segment)}`).join('');
}

/** Whether it may pass by itself. Of the hub's own failures nobody knows whether it was done or not. */
function passes(status: number, once: boolean): boolean {
  return status === 429 || status === 503 || (!once && [500, 502, 504].includes(status));
}

/** RFC 9110, 10.2.3: seconds, or a date. */
function retryAfterMs({ 'retry-after': after }: IncomingMessage['headers']): number | undefined {
  const seconds = Number(after);
  return after === undefined || !(seconds >= 0 && seconds <= 300) ? undefined : seconds * 1000;
}

const codes: Partial<Record<number, ErrorCode>> = {
  400: 'data',
  401: 'refused',
  403: 'try-again',
  404: 'no-device',
  405: 'data',
  409: 'data',
  412: 'try-again',
  413: 'data',
  429: 'try-again',
  503: 'try-again',
  504: 'unavailable',
};

const hints: Partial<Record<number, string>> = {
  401: 'the policy may not do this, the key may have been rotated, or the clock of this machine be wrong',
  412: 'somebody else has changed it meanwhile: read it again',
};

/** `{"Message":"ErrorCode:DeviceNotFound;device "x" is not registered"}`, in one of its forms. */
function explain(status: number, text: string): AgentError {
  const message = messageIn(text);
  const named = /^ErrorCode:(\w+);?\s*/.exec(message);
  const condition = named?.[1] ?? `http:${String(status)}`;
  const said = message.slice(named?.[0].length ?? 0).trim();
  const offline = condition === 'DeviceNotOnline' || said.includes('404103');
  return new AgentError(
    offline ? 'unavailable' : (codes[status] ?? (status >= 500 ? 'try-again' : 'protocol')),
    said === '' ? `the hub answered with status ${String(status)}` : `the hub answered: ${said}`,
    { condition, hint: hints[status] },
  );
}

function messageIn(text: string): string {
  try {
    const parsed = JSON.parse(text) as { Message?: unknown; message?: unknown } | null;
    const message = parsed?.Message ?? parsed?.message;
    if (typeof message !== 'string') return '';
    // The hub's own errors come as JSON inside of JSON.
    return message.startsWith('{') ? messageIn(message) : message;
  } catch {
    return text.slice(0, 200);
  }
}
