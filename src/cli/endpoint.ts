import { existsSync } from 'node:fs';

import type { Endpoint } from '../amqp/socket.js';
import { hostName, hostPort } from '../identity/connection-string.js';
import { readAuthority, type ConnectionFlags } from './identity-options.js';

/** Where AMQP over TLS is, by the standard and at every hub. */
const amqpsPort = 5671;

/** The way to a hub, as its connection string and the connection options say. */
export async function endpointOf(host: string, flags: ConnectionFlags): Promise<Endpoint> {
  return {
    host: hostName(host),
    port: hostPort(host, amqpsPort),
    trust: {
      extraCa: await readAuthority(flags),
      // The commands start with --use-openssl-ca, which finds nothing where the system has no store.
      bundledRoots: !existsSync('/etc/ssl/certs'),
    },
  };
}
