import { setMaxListeners } from 'node:events';
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type Server,
  type ServerResponse,
} from 'node:http';
import type { Socket } from 'node:net';

import { AgentError, type ErrorCode, errorText } from '../errors.js';
import type { Log } from '../log.js';
import { errorFields } from './control-answer.js';
import { listen, type ControlPlace } from './control-socket.js';

/**
 * The control socket: HTTP over a Unix socket, because every language and every shell speaks it already:
 *
 *     curl --unix-socket /run/iothub-device/control.sock http://agent/v1/status
 *
 * Who may open the socket may do all that it offers: the mode of its directory decides. Nothing that it answers is a
 * secret. Its clients cannot harm the agent: so many connections, so many long requests, bodies of so many bytes.
 */
/** One request on its way. */
export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly query: URLSearchParams;
  /** Aborted when the client has left, or the agent ends. */
  readonly over: AbortSignal;
}

export type Route = (exchange: Exchange) => Promise<void>;

/** By path, then by method: `{'/v1/status': {GET: …}}`. */
export type Routes = Readonly<Record<string, Readonly<Record<string, Route>>>>;

/** Connections at once. With one more, the one that has been idle longest is closed. */
const mostConnections = 256;
/** Requests at once. The rest of the connections is for those who come next. */
const mostRequests = 192;
/** From the first byte of a request to the end of its head. */
const headWithinMs = 10_000;
const idleMs = 5_000;
/** What an answer under way may take when the agent ends. */
const lastWordsMs = 1_000;

/** Listens until it is disposed of. Errors: `config`, `cannot-create`, `try-again`, as `listen` of `control-socket`. */
export async function openControl(place: ControlPlace, routes: Routes, log: Log): Promise<AsyncDisposable> {
  const closing = new AbortController();
  const serving = { routes, closing: closing.signal, log, underWay: 0 };
  const onRequest: RequestListener = (request, response) => {
    void serve(request, response, serving);
  };
  const server = createServer({ headersTimeout: headWithinMs, requestTimeout: 0 }, onRequest);
  server.keepAliveTimeout = idleMs;
  limitConnections(server);
  await listen(server, place);
  server.on('error', (error) => {
    log.error('the control socket fails', { error });
  });
  return {
    async [Symbol.asyncDispose]() {
      closing.abort(new AgentError('unavailable', 'the agent is stopping'));
      await close(server);
    },
  };
}

interface Serving {
  routes: Routes;
  closing: AbortSignal;
  log: Log;
  /** Requests. */
  underWay: number;
}

async function serve(request: IncomingMessage, response: ServerResponse, serving: Serving): Promise<void> {
  const { routes, closing, log } = serving;
  const left = new AbortController();
  setMaxListeners(0, left.signal); // as many listen as messages wait for the hub
  const leave = () => {
    left.abort(new AgentError('unavailable', 'the client has left'));
  };
  const end = () => {
    left.abort(closing.reason);
  };
  closing.addEventListener('abort', end);
  if (closing.aborted) end();
  response.on('close', leave);
  response.on('error', leave);
  serving.underWay++;
  try {
    if (serving.underWay > mostRequests) throw new AgentError('try-again', 'too many requests at once');
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://agent');
    const methods = Object.hasOwn(routes, pathname) ? routes[pathname] : undefined;
    if (methods === undefined) {
      answer(response, 404, { error: 'there is nothing here', paths: Object.keys(routes) });
      return;
    }
    const name = request.method ?? '';
    const route = Object.hasOwn(methods, name) ? methods[name] : undefined;
    if (route === undefined) {
      response.setHeader('allow', Object.keys(methods).join(', '));
      answer(response, 405, { error: `it takes ${Object.keys(methods).join(' and ')}` });
      return;
    }
    await route({ request, response, query: searchParams, over: left.signal });
  } catch (error) {
    fail(response, error, log);
  } finally {
    serving.underWay--;
    closing.removeEventListener('abort', end);
  }
}

function fail(response: ServerResponse, error: unknown, log: Log): void {
  if (!(error instanceof AgentError)) log.error('a request on the control socket failed', { error });
  if (response.headersSent) {
    response.destroy();
    return;
  }
  // A body that nobody reads any more is still on its way.
  response.setHeader('connection', 'close');
  if (error instanceof AgentError) answer(response, statusOf(error), errorFields(error));
  else answer(response, 500, { error: errorText(error), code: 'bug' });
}

const statusByCode: Partial<Record<ErrorCode, number>> = {
  data: 400,
  usage: 400,
  config: 422,
  'try-again': 503,
  unavailable: 503,
};

export function statusOf({ code }: AgentError): number {
  return statusByCode[code] ?? 500;
}

/** Answers with one line of JSON. */
export function answer(response: ServerResponse, status: number, value: object): void {
  if (response.destroyed) return;
  const body = `${JSON.stringify(value)}\n`;
  if (status === 503) response.setHeader('retry-after', 5);
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
  });
  response.end(body);
}

/** A client that only sits there makes room for the next one. */
function limitConnections(server: Server): void {
  // In the order in which they became idle.
  const idle = new Set<Socket>();
  let count = 0;
  server.on('connection', (socket) => {
    idle.add(socket);
    count++;
    socket.on('close', () => {
      idle.delete(socket);
      count--;
    });
    if (count <= mostConnections) return;
    const [longest] = idle;
    longest?.destroy();
  });
  server.on('request', ({ socket }: IncomingMessage, response: ServerResponse) => {
    idle.delete(socket);
    response.on('close', () => {
      if (!socket.destroyed) idle.add(socket);
    });
  });
}

async function close(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    server.close(() => {
      resolve();
    });
  });
  server.closeIdleConnections();
  const timer = setTimeout(() => {
    server.closeAllConnections();
  }, lastWordsMs);
  await closed;
  clearTimeout(timer);
}
