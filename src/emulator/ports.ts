import type { CertificateAndKey } from './certificates.js';
import type { Peer } from './connection.js';
import type { Faults } from './faults.js';
import type { Hub } from './hub.js';
import { certificateOf, listen, listenHttps, listenTls, serverNameOf } from './listener.js';
import type { Listener, PortChoice } from './listener.js';

export interface PortOptions {
  /** AMQP over TLS. Default 0: a free one. */
  port?: PortChoice;
  /** REST and AMQP over WebSocket. None by default; 0 takes a free one. Many SDKs know no other than 443. */
  httpsPort?: PortChoice;
  /** AMQP without TLS, as Event Hubs clients want it for `UseDevelopmentEmulator=true`. None by default. */
  plainPort?: PortChoice;
  /** Address to listen on. Default 127.0.0.1. */
  host?: string;
}

/** The ports that a hub listens on. */
export interface Ports extends AsyncDisposable {
  amqps: number;
  https?: number;
  plain?: number;
}

interface PortParts {
  hub: Hub;
  faults: Faults;
  server: CertificateAndKey;
  /** Whose signatures on device certificates count. */
  authorities: readonly string[];
  accept: (peer: Peer) => void;
}

/** Opens all that is asked for, or nothing: when one cannot be had, those before it are closed again. */
export async function openPorts(
  options: PortOptions,
  { hub, faults, server, authorities, accept }: PortParts,
): Promise<Ports> {
  const { host = '127.0.0.1', port = 0, httpsPort, plainPort } = options;
  const tls = { key: server.key, cert: server.certificate, ca: [...authorities], host, faults };
  const open: Listener[] = [];
  const close = async (): Promise<void> => {
    for (const listener of open.splice(0)) await listener[Symbol.asyncDispose]();
  };
  const opened = async (listening: Promise<Listener>): Promise<number> => {
    const listener = await listening;
    open.push(listener);
    return listener.port;
  };
  try {
    const ports: Ports = { amqps: await opened(openAmqps()), [Symbol.asyncDispose]: close };
    if (httpsPort !== undefined) ports.https = await opened(openHttps(httpsPort));
    if (plainPort !== undefined) ports.plain = await opened(openPlain(plainPort));
    return ports;
  } catch (error) {
    await close();
    throw error;
  }

  function openAmqps(): Promise<Listener> {
    return listenTls({ ...tls, port }, (socket) => {
      accept({
        ...{ socket, transport: 'tls' },
        certificate: certificateOf(socket),
        serverName: serverNameOf(socket),
      });
    });
  }

  function openPlain(port: PortChoice): Promise<Listener> {
    return listen({ port, host, faults }, (socket) => {
      accept({ socket, transport: 'tcp' });
    });
  }

  /** Loaded when it is asked for: HTTP and WebSocket take longer to load than all the rest to start. */
  async function openHttps(port: PortChoice): Promise<Listener> {
    const [{ getRequestListener }, { restApp }, { websocketUpgrades }] = await Promise.all([
      import('@hono/node-server'),
      import('./rest/app.js'),
      import('./websocket.js'),
    ]);
    const answer = getRequestListener(restApp(hub).fetch);
    const upgrades = websocketUpgrades((socket, request) => {
      accept({
        ...{ socket, transport: 'websocket' },
        certificate: certificateOf(request.socket),
        serverName: serverNameOf(request.socket),
      });
    });
    return await listenHttps(
      { ...tls, port },
      (request, response) => void answer(request, response),
      upgrades,
    );
  }
}
