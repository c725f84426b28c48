import { connect as connectTcp, isIP, type Socket } from 'node:net';
import {
  connect,
  createSecureContext,
  type PeerCertificate,
  rootCertificates,
  type SecureContext,
  type TLSSocket,
} from 'node:tls';

import type { ClientCertificate } from '../identity/certificate.js';
import { toAgentError } from './errors.js';
import type { EitherWay } from './either-way.js';
import type { GuardableSocket } from './guard.js';
import type { HttpProxy } from './proxy.js';
import type { TlsFacts } from './tls-errors.js';

/** Where to connect, by which way, and whom to trust there. */
export interface Endpoint {
  /** Name or address that is looked up. */
  host: string;
  port: number;
  /** Name that the certificate must carry, and the AMQP `open`; the host unless something stands in between. */
  serverName?: string | undefined;
  trust?: Trust | undefined;
  /** Who we are, where the hub knows us by a certificate. */
  certificate?: ClientCertificate | undefined;
  /** Plain TCP: the Event Hubs emulator speaks nothing else. */
  withoutTls?: boolean | undefined;
  /** AMQP inside of a WebSocket: its port counts then. */
  webSocket?: WebSocketWay | undefined;
  /** Finds out whether AMQP gets through, or has to go inside of a WebSocket. */
  eitherWay?: EitherWay | undefined;
  /** Where a WebSocket is at this host; default: where IoT Hub has it. */
  webSocketPath?: '/$iothub/websocket' | '/$servicebus/websocket' | undefined;
}

/** The way where only HTTPS passes. */
export interface WebSocketWay {
  port: number;
  proxy?: HttpProxy | undefined;
}

/** What one host's endpoint has in common with another's in the same network. */
export type Way = Pick<Endpoint, 'trust' | 'webSocket' | 'eitherWay'>;

export function wayOf({ trust, webSocket, eitherWay }: Endpoint): Way {
  return { trust, webSocket, eitherWay };
}

export interface Trust {
  /** PEM certificates that are trusted besides the others. */
  extraCa?: string | undefined;
  /** Trust the certificates that come with Node.js, because this system has no store of its own. */
  bundledRoots?: boolean | undefined;
}

/** Opens the connection that the endpoint asks for. AMQP can begin on it. */
export async function openSocket(endpoint: Endpoint, signal: AbortSignal): Promise<GuardableSocket> {
  const { withoutTls, webSocket, eitherWay } = endpoint;
  if (withoutTls === true) return openTcpSocket(endpoint, signal);
  if (eitherWay !== undefined) return eitherWay.open(endpoint, signal);
  if (webSocket === undefined) return openTlsSocket(endpoint, signal);
  // Loaded where it is used: most never do.
  const { openWebSocket } = await import('./websocket.js');
  return openWebSocket(endpoint, webSocket, signal);
}

export async function openTcpSocket(
  { host, port }: Pick<Endpoint, 'host' | 'port'>,
  signal: AbortSignal,
): Promise<Socket> {
  signal.throwIfAborted();
  return opened(connectTcp({ host, port }), 'connect', { host, port, signal });
}

/**
 * Opens a TLS connection and resolves when its handshake is done and the certificate is verified; no byte of AMQP
 * is sent before. Verification cannot be turned off: `NODE_TLS_REJECT_UNAUTHORIZED` is not obeyed.
 * With `tunnel` the connection goes through that instead of one of its own.
 */
export async function openTlsSocket(
  endpoint: Endpoint,
  signal: AbortSignal,
  tunnel?: Socket,
): Promise<TLSSocket> {
  signal.throwIfAborted();
  const { host, port, trust = {}, certificate } = endpoint;
  const serverName = endpoint.serverName ?? host;
  const socket = connect({
    ...(tunnel === undefined ? { host, port } : { socket: tunnel }),
    // An address may not stand in the server name indication (RFC 6066, 3).
    ...(isIP(serverName) === 0 ? { servername: serverName } : { host: serverName }),
    secureContext: secureContext(trust, certificate),
    rejectUnauthorized: true,
    minVersion: 'TLSv1.2',
  });
  let shown: PeerCertificate | undefined;
  // Before the verification, after which there is nothing to look at any more if it fails.
  socket.prependListener('secure', () => {
    shown = socket.getPeerCertificate();
  });
  const tls = () => ({ serverName, shown, now: Date.now() });
  return opened(socket, 'secureConnect', { host, port, signal, tls });
}

async function opened<S extends Socket>(
  socket: S,
  event: 'connect' | 'secureConnect',
  { signal, tls, ...peer }: { host: string; port: number; signal: AbortSignal; tls?: () => TlsFacts },
): Promise<S> {
  // Small frames (dispositions, flows) must not wait for the peer's delayed acknowledgement.
  socket.setNoDelay(true);
  try {
    await connected(socket, event, signal);
    return socket;
  } catch (error) {
    socket.destroy();
    throw toAgentError(error, { ...peer, tls: tls?.() });
  }
}

function connected(socket: Socket, event: string, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (act: () => void) => {
      socket.off(event, onConnected).off('error', onError).off('close', onClose);
      signal.removeEventListener('abort', onAbort);
      // The socket is destroyed next, and may still have something to say about it.
      socket.on('error', () => undefined);
      act();
    };
    const onConnected = () => {
      settle(resolve);
    };
    const onError = (error: Error) => {
      settle(() => {
        reject(error);
      });
    };
    const onClose = () => {
      onError(Object.assign(new Error('closed before the connection was there'), { code: 'ECONNRESET' }));
    };
    const onAbort = () => {
      settle(() => {
        reject(signal.reason as Error);
      });
    };
    socket.on(event, onConnected).on('error', onError).on('close', onClose);
    signal.addEventListener('abort', onAbort);
  });
}

/**
 * Naming `ca` replaces what is trusted otherwise and parses all of it again (16 ms for the usual 140 certificates);
 * adding to the context keeps the system's store, which OpenSSL looks up by hash.
 */
export function secureContext(
  { extraCa, bundledRoots }: Trust,
  certificate?: ClientCertificate,
): SecureContext {
  const own = certificate && { cert: certificate.chain, key: certificate.key.reveal() };
  const context = createSecureContext({
    ...own,
    ...(bundledRoots === true && { ca: [...rootCertificates] }),
  });
  if (extraCa === undefined) return context;
  const store = context.context as { addCACert?: (pem: string) => void };
  if (store.addCACert === undefined)
    return createSecureContext({ ...own, ca: [...rootCertificates, extraCa] });
  for (const certificate of extraCa.match(pemCertificate) ?? []) store.addCACert(certificate);
  return context;
}

const pemCertificate = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;
