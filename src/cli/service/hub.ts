import { systemClock } from '../../clock.js';
import type { ServiceConnectionString } from '../../identity/connection-string.js';
import { serviceTokens } from '../../identity/token.js';
import type { Log } from '../../log.js';
import type { ServiceOptions } from '../../service/client.js';
import { RestClient } from '../../service/rest.js';
import { endpointOf } from '../endpoint.js';
import type { ConnectionFlags } from '../identity-options.js';
import type { Io } from '../io.js';

/** The way to the hub's service side. */
export async function serviceHub(
  io: Pick<Io, 'env'>,
  identity: ServiceConnectionString,
  { log, ...flags }: ConnectionFlags & { log: Log },
): Promise<ServiceOptions> {
  return {
    endpoint: await endpointOf(io, identity.host, { side: 'service', flags, log }),
    makeToken: serviceTokens(identity),
    clock: systemClock,
    log,
  };
}

/** The way to the hub's REST side. */
export async function restOf(
  io: Pick<Io, 'env'>,
  identity: ServiceConnectionString,
  flags: ConnectionFlags & { log: Log },
): Promise<RestClient> {
  // It is HTTPS in any case, which goes through a proxy as a WebSocket does.
  const { endpoint, ...rest } = await serviceHub(io, identity, { ...flags, transport: 'amqp-ws' });
  const { webSocket, ...place } = endpoint;
  return new RestClient({
    ...rest,
    endpoint: { ...place, port: webSocket?.port ?? 443 },
    proxy: webSocket?.proxy,
  });
}
