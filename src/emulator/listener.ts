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

export interface ListenOptions {
  /** 0 takes a free one. */
  port: number;
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
  await bind(server, port, host);
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : port,
    async [Symbol.asyncDispose]() {
      const closed = once(server, 'close');
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

async function bind(server: Server, port: number, host: string): Promise<void> {
  server.listen({ port, host });
  try {
    await once(server, 'listening');
  } catch (error) {
    const taken = systemErrorCode(error) === 'EADDRINUSE';
    throw new AgentError('unavailable', `cannot listen on ${host}:${port}: ${errorText(error)}`, {
      retry: 'never',
      cause: error,
      hint: taken
        ? 'another program has this port; choose one with --port, or --ports auto'
        : 'ports below 1024 need a privilege; choose others with --ports auto',
    });
  }
}

/** What a TLS client showed; undefined when it showed nothing. */
export function certificateOf(socket: Socket): ClientCertificate | undefined {
  if (!(socket instanceof TLSSocket)) return undefined;
  const { raw, subject } = socket.getPeerCertificate();
  // An empty object stands for no certificate.
  if ((raw as Buffer | undefined) === undefined) return undefined;
  return { raw, commonName: [subject.CN].flat()[0] ?? '', trusted: socket.authorized };
}
