import { systemClock } from '../../clock.js';
import { hostPort, type ServiceConnectionString } from '../../identity/connection-string.js';
import { serviceTokens } from '../../identity/token.js';
import type { Log } from '../../log.js';
import type { ServiceOptions } from '../../service/client.js';
import { RestClient } from '../../service/rest.js';
import { endpointOf } from '../endpoint.js';
import type { ConnectionFlags } from '../identity-options.js';

/** The way to the hub's service side. */
export async function serviceHub(
  identity: ServiceConnectionString,
  { log, ...flags }: ConnectionFlags & { log: Log },
): Promise<ServiceOptions> {
  return {
    endpoint: await endpointOf(identity.host, flags),
    makeToken: serviceTokens(identity),
    clock: systemClock,
    log,
  };
}

/** The way to the hub's REST side. */
export async function restOf(
  identity: ServiceConnectionString,
  { httpsPort, ...flags }: ConnectionFlags & { httpsPort?: number | undefined; log: Log },
): Promise<RestClient> {
  const { endpoint, ...rest } = await serviceHub(identity, flags);
  return new RestClient({
    ...rest,
    endpoint: { ...endpoint, port: httpsPort ?? hostPort(identity.host, 443) },
  });
}
