import type { ClientRequest, IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';

import { createWebSocketStream, WebSocket } from 'ws';

import { AgentError, errorText, systemErrorCode } from '../errors.js';
import { rejectionOf } from '../signals.js';
import { toAgentError } from './errors.js';
import { openTunnel } from './proxy.js';
import { openTlsSocket, type Endpoint, type WebSocketWay } from './socket.js';

/** The AMQP byte stream in binary messages, whose borders mean nothing (AMQP WebSocket binding, 2.1). */
const subProtocol = 'AMQPWSB10';
/** A message carries some frames, of 64 KB each; all of it is in memory before the guard sees any. */
const longestMessageBytes = 4 * 1024 * 1024;
/** As a TCP socket has: more than that waits in rhea, which is told. */
const writeAheadBytes = 64 * 1024;

/**
 * Opens a WebSocket inside of TLS, through a proxy if there is one, and resolves when the hub has taken it.
 * Back-pressure goes through both ways: a write waits for the socket below, and who does not read stops the hub.
 */
export async function openWebSocket(
  endpoint: Endpoint,
  { port, proxy }: WebSocketWay,
  signal: AbortSignal,
): Promise<Duplex> {
  const tls = await openTlsBelow(endpoint, { port, proxy }, signal);
  const { host, serverName = host, webSocketPath = '/$iothub/websocket' } = endpoint;
  const authority = port === 443 ? serverName : `${serverName}:${String(port)}`;
  const webSocket = new WebSocket(`wss://${authority}${webSocketPath}`, subProtocol, {
    createConnection: () => tls,
    // Frames of AMQP are small, and the hub does without.
    perMessageDeflate: false,
    maxPayload: longestMessageBytes,
  });
  const stream = createWebSocketStream(webSocket, { writableHighWaterMark: writeAheadBytes });
  // Of an error both of them speak, and the stream goes on to do so.
  stream.on('error', () => undefined);
  try {
    await Promise.race([accepted(webSocket, `${host}:${String(port)}`), rejectionOf(signal)]);
    return stream;
  } catch (error) {
    stream.destroy();
    tls.destroy();
    throw error;
  }
}

/** The TLS connection that a WebSocket goes inside of, through a proxy if there is one. */
export async function openTlsBelow(
  endpoint: Endpoint,
  { port, proxy }: WebSocketWay,
  signal: AbortSignal,
): Promise<TLSSocket> {
  const peer = { ...endpoint, port };
  return openTlsSocket(peer, signal, proxy && (await openTunnel(proxy, peer, signal)));
}

function accepted(webSocket: WebSocket, where: string): Promise<void> {
  return new Promise((resolve, reject) => {
    webSocket.once('open', resolve);
    webSocket.once('error', (error) => {
      reject(explain(error, where));
    });
    webSocket.once('unexpected-response', (request: ClientRequest, response: IncomingMessage) => {
      reject(notTaken(response, where));
      request.destroy();
    });
  });
}

function explain(error: Error, where: string): AgentError {
  const code = systemErrorCode(error);
  if (code !== undefined && !code.startsWith('HPE_')) return toAgentError(error);
  return new AgentError('protocol', `${where} does not speak WebSocket: ${errorText(error)}`, {
    cause: error,
    hint: 'check HostName in the connection string, and the port',
  });
}

/** An HTTP answer that is no WebSocket: from the hub, or from something that stands in its place. */
function notTaken(
  { statusCode: status = 0, statusMessage = '', headers }: IncomingMessage,
  where: string,
): AgentError {
  const type = headers['content-type']?.split(';')[0];
  const said = [String(status), statusMessage, type === undefined ? '' : `with ${type}`].filter(
    (word) => word !== '',
  );
  const message = `${where} answered with HTTP ${said.join(' ')} instead of opening a WebSocket`;
  const condition = `http:${String(status)}`;
  if (status === 429 || status >= 500)
    return new AgentError('unavailable', message, {
      condition,
      hint: 'the hub may be busy, or a proxy cannot reach it',
    });
  if (status === 401 || status === 403)
    return new AgentError('refused', message, {
      condition,
      hint: 'the hub may allow some networks only (IP filter)',
    });
  return new AgentError('protocol', message, {
    condition,
    hint:
      status === 404
        ? 'this is not the WebSocket of an IoT hub: check HostName in the connection string'
        : 'something stands in the place of the hub, as the log-in page of a network does: log in there, or ask who runs it',
  });
}
