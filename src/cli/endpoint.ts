import { existsSync } from 'node:fs';

import { EitherWay } from '../amqp/either-way.js';
import type { HttpProxy } from '../amqp/proxy.js';
import type { Endpoint } from '../amqp/socket.js';
import type { HubConfig } from '../daemon/config-hub.js';
import { AgentError } from '../errors.js';
import { hostName, hostPort } from '../identity/connection-string.js';
import type { Log } from '../log.js';
import { readAuthority, type ConnectionFlags } from './identity-options.js';
import { readSecret } from './identity-source.js';
import type { Io } from './io.js';
import { parseProxy, proxyFromEnvironment } from './proxy.js';
import { variable } from './variables.js';

/** Where AMQP over TLS is, by the standard and at every hub. */
const amqpsPort = 5671;
const httpsPort = 443;

export interface WayOptions {
  side: 'device' | 'service';
  flags: ConnectionFlags;
  /** What the configuration says; flags and variables win. */
  configured?: Pick<HubConfig, 'ca' | 'transport' | 'proxy' | 'httpsPort'> | undefined;
  log: Log;
}

/** The way to a hub, as its connection string, the connection options, the configuration and the environment say. */
export async function endpointOf(io: Pick<Io, 'env'>, host: string, options: WayOptions): Promise<Endpoint> {
  const { flags, configured, log } = options;
  const transport = flags.transport ?? configured?.transport ?? 'auto';
  const named = await namedProxy(io, options);
  if (named !== undefined && transport === 'amqp') throw proxyWithoutWebSocket();
  const name = hostName(host);
  const base: Endpoint = {
    host: name,
    port: hostPort(host, amqpsPort),
    trust: {
      extraCa: await readAuthority({ ca: flags.ca ?? configured?.ca }),
      // The commands start with --use-openssl-ca, which finds nothing where the system has no store.
      bundledRoots: !existsSync('/etc/ssl/certs'),
    },
  };
  if (transport === 'amqp') return base;
  const port = flags.httpsPort ?? configured?.httpsPort;
  // Whoever says that there is a proxy does not want it gone around.
  if (transport === 'amqp-ws' || named !== undefined) {
    const webSocketPort = port ?? hostPort(host, httpsPort);
    return {
      ...base,
      webSocket: way(webSocketPort, named ?? proxyFromEnvironment(io.env, name, webSocketPort)),
    };
  }
  const webSocketPort = port ?? httpsPort;
  const webSocket = way(webSocketPort, proxyFromEnvironment(io.env, name, webSocketPort));
  return { ...base, eitherWay: new EitherWay({ webSocket, log }) };
}

const way = (port: number, proxy: HttpProxy | undefined) => ({ port, proxy });

/** The proxy that was named for this program, not for all of this machine. */
async function namedProxy(
  io: Pick<Io, 'env'>,
  { side, flags, configured }: Pick<WayOptions, 'side' | 'flags' | 'configured'>,
): Promise<HttpProxy | undefined> {
  const inEnvironment = io.env[variable(side, 'PROXY')] ?? '';
  if (flags.proxy !== undefined) return parseProxy(flags.proxy, '--proxy');
  if (inEnvironment !== '') return parseProxy(inEnvironment, variable(side, 'PROXY'));
  if (configured?.proxy === undefined) return undefined;
  const { text, from } = await readSecret(io, configured.proxy, {
    what: 'the URL of the proxy',
    insecurePermissions: false,
  });
  return parseProxy(text, from === 'the configuration' ? 'the proxy in the configuration' : from);
}

function proxyWithoutWebSocket(): AgentError {
  return new AgentError('usage', 'a proxy is named, and the transport is amqp', {
    hint:
      'an HTTP proxy lets connections to port 443 through, and AMQP on port 5671 is none of them:\n' +
      'write --transport amqp-ws, or leave it to auto',
  });
}
