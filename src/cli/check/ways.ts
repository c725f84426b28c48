import { openTunnel } from '../../amqp/proxy.js';
import type { Endpoint, WebSocketWay } from '../../amqp/socket.js';
import type { Finding } from './checks.js';

/** The ways to a hub. */
export interface Ways {
  /** AMQP on its own port; undefined when that is not to be tried. */
  direct: Endpoint | undefined;
  /** HTTPS, and AMQP inside of a WebSocket. */
  https: Endpoint & { webSocket: WebSocketWay };
  /** Whether the agent would go that way: always, when the other one is blocked, or never. */
  useOfWebSocket: 'always' | 'when-blocked' | 'never';
}

const httpsPort = 443;

/** The ways that an endpoint stands for. `port` is that of HTTPS where the endpoint does not say it. */
export function waysOf({ webSocket, eitherWay, ...direct }: Endpoint, port = httpsPort): Ways {
  if (webSocket !== undefined) {
    const { port: webSocketPort } = webSocket;
    return {
      direct: undefined,
      https: { ...direct, port: webSocketPort, webSocket },
      useOfWebSocket: 'always',
    };
  }
  const way = eitherWay?.webSocket ?? { port };
  return {
    direct,
    https: { ...direct, port: way.port, webSocket: way },
    useOfWebSocket: eitherWay === undefined ? 'never' : 'when-blocked',
  };
}

/** Whether what is wrong with HTTPS is wrong with the agent's way, or only good to know. */
export function isNeeded({ useOfWebSocket }: Ways, isDirectOpen: boolean): boolean {
  return useOfWebSocket === 'always' || (useOfWebSocket === 'when-blocked' && !isDirectOpen);
}

/** Whether the proxy lets us through, if there is one. */
export async function checkProxy(
  ways: Ways,
  isDirectOpen: boolean,
  signal: AbortSignal,
): Promise<Finding<true>> {
  const { https } = ways;
  const { proxy } = https.webSocket;
  if (proxy === undefined) return { result: 'ok', detail: 'none is named for this hub', value: true };
  const name = `${proxy.tls ? 'https' : 'http'}://${proxy.host}:${String(proxy.port)}`;
  const facts = { proxy: name, password: proxy.authorization !== undefined };
  if (!isNeeded(ways, isDirectOpen)) {
    return { result: 'ok', detail: `${name} is not needed: AMQP goes past it`, value: true, facts };
  }
  const tunnel = await openTunnel(proxy, https, signal);
  tunnel.destroy();
  return {
    result: 'ok',
    detail: `${name} lets us through to port ${String(https.port)}`,
    value: true,
    facts,
  };
}
