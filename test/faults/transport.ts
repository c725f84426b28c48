import type { Clock } from '../../src/clock.js';
import type { Emulator, EmulatorOptions } from '../../src/emulator/emulator.js';
import { startHub } from '../amqp/hub.js';
import { Proxy } from './proxy.js';

/** How the agents of the fault tests get to their hub. */
export type Transport = 'amqp' | 'amqp-ws';

/** `IOTHUB_FAULTS_TRANSPORT=amqp-ws` runs any of the fault tests over WebSocket. */
export const defaultTransport: Transport =
  process.env['IOTHUB_FAULTS_TRANSPORT'] === 'amqp-ws' ? 'amqp-ws' : 'amqp';

/** A hub, and the network before it. */
export async function hubBehindProxy(
  options: EmulatorOptions & { clock: Clock },
  { seed, transport = defaultTransport }: { seed: number; transport?: Transport | undefined },
): Promise<{ hub: Emulator; proxy: Proxy; webSocket: boolean }> {
  const webSocket = transport === 'amqp-ws';
  const hub = await startHub({ ...options, ...(webSocket && { httpsPort: 0 }) });
  const proxy = await Proxy.start(webSocket ? hub.httpsPort! : hub.port, seed);
  return { hub, proxy, webSocket };
}
