import type { Endpoint } from '../../amqp/socket.js';
import { checkTls } from './certificate.js';
import type { Checks, Finding, Made } from './checks.js';
import { compareClocks } from './clock.js';
import { checkHttps } from './https.js';
import { checkPort, lookUp } from './network.js';
import { checkProxy, type Ways } from './ways.js';

const noDns = { code: 'host-unknown', hint: 'the name servers of this machine do not answer' } as const;

/**
 * The checks between this machine and a hub that listens to us: name, ports, proxy, clock and certificate. The value is
 * the way that gets through.
 */
export async function checkWayIn(checks: Checks, place: Made<{ ways: Ways }>): Promise<Made<Endpoint>> {
  const addresses = await checks.make('dns', { needs: [place], ifSilent: noDns }, ([{ ways }]) =>
    ways.direct === undefined ? lookUpForHttps(ways.https) : lookUp(ways.direct),
  );
  const port = await checks.make('tcp', { needs: [place, addresses] }, ([{ ways }, found], signal) =>
    checkPort(found, ways, signal),
  );
  await checks.make('proxy', { needs: [place, port] }, ([{ ways }, isOpen], signal) =>
    checkProxy(ways, isOpen, signal),
  );
  const reading = await checks.make('https', { needs: [place, port] }, ([{ ways }, isOpen], signal) =>
    checkHttps(ways, isOpen, signal),
  );
  await checks.make('clock', { needs: [reading] }, ([clocks]) => compareClocks(clocks));
  return await checks.make('tls', { needs: [place, port], withinMs: 10_000 }, ([{ ways }, isOpen], signal) =>
    checkTls(ways, isOpen, signal),
  );
}

async function lookUpForHttps(https: Ways['https']): Promise<Finding<string[]>> {
  const { proxy } = https.webSocket;
  if (proxy === undefined) return await lookUp(https);
  const found = await lookUp(proxy);
  return found.result === 'ok'
    ? { ...found, detail: `${found.detail}: that is the proxy, which looks up the hub` }
    : found;
}
