import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocketServer, createWebSocketStream } from 'ws';

/** AMQP over WebSocket: the byte stream in binary messages, sub-protocol `AMQPWSB10`. */
const paths = ['/$iothub/websocket', '/$servicebus/websocket'];
const subProtocol = 'AMQPWSB10';

export type Upgrade = (request: IncomingMessage, socket: Duplex, head: Buffer) => void;

/** Answers upgrades of an HTTPS server; `onStream` gets the AMQP byte stream, and the request it came with. */
export function websocketUpgrades(onStream: (stream: Duplex, request: IncomingMessage) => void): Upgrade {
  const server = new WebSocketServer({
    noServer: true,
    // Node's SDK offers permessage-deflate; the hub does without.
    perMessageDeflate: false,
    handleProtocols: (offered) => (offered.has(subProtocol) ? subProtocol : false),
  });
  return (request, socket, head) => {
    const path = decodeURIComponent((request.url ?? '').replace(/\?.*$/, ''));
    if (!paths.includes(path.toLowerCase())) {
      socket.end('HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
      return;
    }
    server.handleUpgrade(request, socket, head, (websocket) => {
      const stream = createWebSocketStream(websocket);
      // A reset; the close that follows is what counts.
      stream.on('error', () => undefined);
      // A client that vanishes leaves the stream waiting for an end of its own.
      websocket.once('close', () => {
        if (stream.readableEnded) stream.destroy();
        else stream.once('end', () => stream.destroy());
      });
      onStream(stream, request);
    });
  };
}
