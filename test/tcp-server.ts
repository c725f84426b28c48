import { once } from 'node:events';
import { createServer, type AddressInfo, type Socket } from 'node:net';

export interface TcpServer extends AsyncDisposable {
  port: number;
}

/** A TCP server on loopback that hands each client's socket to `serve`, and drops them all with itself. */
export async function listen(serve: (socket: Socket) => void): Promise<TcpServer> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => undefined));
    serve(socket);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}
