import { randomBytes } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { Agent, request, type RequestOptions } from 'node:https';
import { isIP } from 'node:net';
import { TLSSocket } from 'node:tls';

import { openTunnel } from '../../amqp/proxy.js';
import { secureContext } from '../../amqp/socket.js';
import type { Ways } from './ways.js';

/** What a server answers to one question. */
export interface HttpsAnswer {
  status: number;
  /** Its clock, as it says: milliseconds since the epoch, NaN when it does not. */
  date: number;
  askedAt: number;
  answeredAt: number;
  contentType: string;
  location: string | undefined;
  server: string | undefined;
  /** Why the certificate is not trusted; undefined when it is. */
  untrusted: string | undefined;
}

/** Asks for nothing in particular, or for AMQP over WebSocket as the SDKs do (RFC 6455, 4.1). Says nothing of us. */
export async function ask(
  { host, port, serverName = host, trust, webSocket: { proxy } }: Ways['https'],
  question: 'page' | 'websocket',
  signal: AbortSignal,
): Promise<HttpsAnswer> {
  const tunnel = proxy && (await openTunnel(proxy, { host, port, trust }, signal));
  const askedAt = Date.now();
  return await new Promise((resolve, reject) => {
    const asked = request({
      ...{ host, port, signal },
      ...(isIP(serverName) === 0 ? { servername: serverName } : {}),
      agent: new Agent({ secureContext: secureContext(trust ?? {}), ...(tunnel && { socket: tunnel }) }),
      // A clock that is wrong makes every certificate look so, and is what is asked for here. Nothing is believed.
      rejectUnauthorized: false,
      ...(question === 'websocket' ? upgrade() : { path: '/' }),
    });
    const answered = (response: IncomingMessage): void => {
      const { statusCode: status = 0, headers, socket } = response;
      resolve({
        ...{ status, askedAt, answeredAt: Date.now(), date: Date.parse(headers.date ?? '') },
        contentType: headers['content-type'] ?? '',
        location: headers.location,
        server: [headers['server']].flat()[0],
        untrusted: socket instanceof TLSSocket && !socket.authorized ? untrustedBecause(socket) : undefined,
      });
      asked.destroy();
    };
    asked.on('response', answered).on('upgrade', (response, socket) => {
      answered(response);
      socket.destroy();
    });
    asked.on('error', reject);
    asked.end();
  });
}

/** Node.js has a code here, whatever its types say. */
function untrustedBecause({ authorizationError }: TLSSocket): string {
  return String(authorizationError);
}

function upgrade(): RequestOptions {
  return {
    path: '/$iothub/websocket?iothub-no-client-cert=true',
    headers: {
      connection: 'Upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': randomBytes(16).toString('base64'),
      'sec-websocket-protocol': 'AMQPWSB10',
    },
  };
}
