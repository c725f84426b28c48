import { createServer as createHttpServer } from 'node:http';
import type { RequestListener } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { TLSSocket, createServer as createTlsServer } from 'node:tls';
import type { TlsOptions } from 'node:tls';
import { once } from 'node:events';

import { AgentError, errorText, systemErrorCode } from '../errors.js';
import type { ClientCertificate } from './access.js';
import type { Faults } from './faults.js';
import type { Upgrade } from './websocket.js';

/** A port that listens: TCP first, where the first faults wait, then TLS. */
export interface Listener extends AsyncDisposable {
  port: number;
}

/** 0 takes a free one; of several, the first that may be had. */
export type PortChoice = number | readonly number[];

export interface ListenOptions {
  port: PortChoice;
  host: string;
  faults: Faults;
}

/** Listens with TLS. A client certificate is asked for and never required: whose it is, the hub decides later. */
export async function listenTls(
  options: ListenOptions & TlsOptions,
  onSocket: (socket: TLSSocket) => void,
): Promise<Listener> {
  const { port, host, faults, ...tls } = options;
  const server = createTlsServer({ ...tls, requestCert: true, rejectUnauthorized: false }, onSocket);
  server.on('tlsClientError', (_error, socket) => {
    socket.destroy();
  });
  return await listen({ port, host, faults }, (socket) => server.emit('connection', socket));
}

/** Listens with HTTPS: requests for the REST side, upgrades for AMQP over WebSocket. */
export async function listenHttps(
  options: ListenOptions & TlsOptions,
  onRequest: RequestListener,
  onUpgrade: Upgrade,
): Promise<Listener> {
  const { port, host, faults, ...tls } = options;
  const server = createHttpsServer({ ...tls, requestCert: true, rejectUnauthorized: false }, onRequest);
  // SDKs keep connections and sleep between calls; one that is closed under them fails their next call.
  server.keepAliveTimeout = 120_000;
  server.on('upgrade', onUpgrade);
  server.on('tlsClientError', (_error, socket) => {
    socket.destroy();
  });
  return await listen({ port, host, faults }, (socket) => server.emit('connection', socket));
}

/** Listens with plain HTTP. */
export async function listenHttp(
  { port, host }: Omit<ListenOptions, 'faults'>,
  onRequest: RequestListener,
): Promise<Listener> {
  const server = createHttpServer(onRequest);
  return {
    port: await bind(server, [port].flat(), host),
    ...closing(server, () => {
      server.closeAllConnections();
    }),
  };
}

/** Listens on plain TCP, hands each socket on unless a fault takes it, and at the end destroys them all. */
export async function listen(options: ListenOptions, onSocket: (socket: Socket) => void): Promise<Listener> {
  const { port, host, faults } = options;
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    socket.on('error', () => {
      // A reset; the close that follows is what counts.
    });
    const fault = faults.at('connect', {});
    if (fault?.act === 'drop') socket.resetAndDestroy();
    else if (fault?.act === 'delay')
      setTimeout(() => {
        onSocket(socket);
      }, fault.ms).unref();
    // Accepted, and not a byte more: the kernel still acknowledges what the client sends.
    else if (fault === undefined) onSocket(socket);
  });
  return {
    port: await bind(server, [port].flat(), host),
    ...closing(server, () => {
      for (const socket of sockets) socket.destroy();
    }),
  };
}

function closing(server: Server, endConnections: () => void): AsyncDisposable {
  return {
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      endConnections();
      await closed;
    },
  };
}

async function bind(server: Server, [port = 0, ...others]: readonly number[], host: string): Promise<number> {
  try {
    server.listen({ port, host });
    await once(server, 'listening');
  } catch (error) {
    const code = systemErrorCode(error) ?? '';
    if (others.length > 0 && ['EADDRINUSE', 'EACCES'].includes(code)) return await bind(server, others, host);
    throw new AgentError('unavailable', `cannot listen on ${host}:${port}: ${errorText(error)}`, {
      retry: 'never',
      cause: error,
      hint:
        code === 'EADDRINUSE'
          ? 'another program has this port; choose one with --port, or --ports auto'
          : 'ports below 1024 need a privilege; choose others with --ports auto',
    });
  }
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : port;
}

/** The name that a TLS client asked for (RFC 6066, 3); undefined when it asked for an address, or without TLS. */
export function serverNameOf(socket: Socket): string | undefined {
  const { servername } = socket as { servername?: string | false | null };
  return typeof servername === 'string' ? servername : undefined;
}

/** What a TLS client showed; undefined when it showed nothing. */
export function certificateOf(socket: Socket): ClientCertificate | undefined {
  if (!(socket instanceof TLSSocket)) return undefined;
  const { raw, subject } = socket.getPeerCertificate();
  // An empty object stands for no certificate.
  if ((raw as Buffer | undefined) === undefined) return undefined;
  return { raw, commonName: [subject.CN].flat()[0] ?? '', trusted: socket.authorized };
}
