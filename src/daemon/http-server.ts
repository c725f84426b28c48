import { once, setMaxListeners } from 'node:events';
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

export interface HttpOptions {
  /** For the log. */
  name: string;
  routes: Routes;
  listen: (server: Server) => Promise<void>;
  /** Connections at once. With one more, the one that has been idle longest is closed. */
  mostConnections: number;
  /** Requests at once that may take long: all but `GET`, which is answered at once and always. */
  mostRequests: number;
  log: Log;
}

/** From the first byte of a request to the end of its head, and how often that is looked at. */
const headWithinMs = 10_000;
const lookEveryMs = 1_000;
const idleMs = 5_000;
/** How long a client may take to read an answer, or the next part of one. */
const readWithinMs = 10_000;
/** What an answer under way may take when the agent ends. */
const lastWordsMs = 1_000;

/**
 * Serves HTTP until it is disposed of. Clients cannot harm the agent: there are so many of them at once, and each has
 * so much time to ask and to take its answer. Errors: those of `listen`.
 */
export async function openHttp(options: HttpOptions): Promise<AsyncDisposable> {
  const { name, listen, mostConnections, log } = options;
  const closing = new AbortController();
  const serving = { ...options, closing: closing.signal, underWay: 0 };
  const onRequest: RequestListener = (request, response) => {
    void serve(request, response, serving);
  };
  const server = createServer(
    { headersTimeout: headWithinMs, requestTimeout: 0, connectionsCheckingInterval: lookEveryMs },
    onRequest,
  );
  // Who asks first whether the body is welcome (curl, with a large one) hears it from the route: `writeContinue`.
  server.on('checkContinue', onRequest);
  server.keepAliveTimeout = idleMs;
  limitConnections(server, mostConnections);
  await listen(server);
  server.on('error', (error) => {
    log.error(`${name} fails`, { error });
  });
  return {
    async [Symbol.asyncDispose]() {
      closing.abort(new AgentError('unavailable', 'the agent is stopping'));
      await close(server);
    },
  };
}

interface Serving extends HttpOptions {
  closing: AbortSignal;
  /** Requests that may take long. */
  underWay: number;
}

async function serve(request: IncomingMessage, response: ServerResponse, serving: Serving): Promise<void> {
  const { closing, log, mostRequests } = serving;
  const left = new AbortController();
  setMaxListeners(0, left.signal); // as many listen as messages wait for the hub
  const leave = () => {
    if (response.writableFinished) return;
    left.abort(new AgentError('unavailable', 'the client has left'));
  };
  const end = () => {
    left.abort(closing.reason);
  };
  closing.addEventListener('abort', end);
  if (closing.aborted) end();
  response.on('close', leave);
  response.on('error', leave);
  const mayTakeLong = request.method === 'GET' ? 0 : 1;
  serving.underWay += mayTakeLong;
  try {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://agent');
    const route = routeOf(request.method ?? '', pathname, serving.routes, response);
    if (route === undefined) return;
    if (serving.underWay > mostRequests && mayTakeLong > 0) {
      throw new AgentError('try-again', 'too many requests at once');
    }
    await route({ request, response, query: searchParams, over: left.signal });
  } catch (error) {
    fail(response, error, log);
  } finally {
    serving.underWay -= mayTakeLong;
    closing.removeEventListener('abort', end);
    closeUnlessTaken(response);
  }
}

/** Answers itself when there is none. */
function routeOf(method: string, path: string, routes: Routes, response: ServerResponse): Route | undefined {
  const methods = Object.hasOwn(routes, path) ? routes[path] : undefined;
  if (methods === undefined) {
    answer(response, 404, { error: 'there is nothing here', paths: Object.keys(routes) });
    return undefined;
  }
  const route = Object.hasOwn(methods, method) ? methods[method] : undefined;
  if (route === undefined) {
    const known = Object.keys(methods);
    response.setHeader('allow', known.join(', '));
    answer(response, 405, { error: `it takes ${known.join(' and ')}` });
  }
  return route;
}

function fail(response: ServerResponse, error: unknown, log: Log): void {
  if (!(error instanceof AgentError)) log.error('a request could not be answered', { error });
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
  'no-input': 404,
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
  if (status === 503) response.setHeader('retry-after', 5);
  answerText(response, status, 'application/json', `${JSON.stringify(value)}\n`);
}

export function answerText(
  response: ServerResponse,
  status: number,
  contentType: string,
  body: string,
): void {
  response.writeHead(status, {
    'content-type': contentType,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
  });
  response.end(body);
}

/** Writes a line of JSON of an answer that has many. Resolves when there is room for the next one. */
export async function writeLine(response: ServerResponse, line: object, over: AbortSignal): Promise<void> {
  if (response.destroyed || response.write(`${JSON.stringify(line)}\n`)) return;
  // A client that does not read what it is told is let go, and with that `over` is aborted.
  const timer = setTimeout(() => {
    response.destroy();
  }, readWithinMs);
  try {
    await once(response, 'drain', { signal: over });
  } finally {
    clearTimeout(timer);
  }
}

/** An answer that nobody reads would be kept, and its connection with it. */
function closeUnlessTaken(response: ServerResponse): void {
  if (response.writableFinished || response.destroyed) return;
  const timer = setTimeout(() => {
    response.destroy();
  }, readWithinMs);
  response.on('close', () => {
    clearTimeout(timer);
  });
}

/** A client that only sits there makes room for the next one; where none does, the next one has to come again. */
function limitConnections(server: Server, most: number): void {
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
    if (count <= most) return;
    const [longest] = idle;
    longest?.destroy();
  });
  const onRequest: RequestListener = ({ socket }, response) => {
    idle.delete(socket);
    response.on('close', () => {
      if (!socket.destroyed) idle.add(socket);
    });
  };
  server.on('request', onRequest);
  server.on('checkContinue', onRequest);
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
