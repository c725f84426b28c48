import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { connect, type AddressInfo, type Socket } from 'node:net';

export interface ProxyOptions {
  /** What it wants; without it anyone may pass. */
  user?: string;
  password?: string;
  /** What it answers instead of connecting, as `403 Forbidden`, with more header lines. */
  answer?: string;
  /** Certificate and key, for one that is spoken to with TLS. */
  tls?: { cert: string; key: string };
  /** What it says after it has claimed to be connected. */
  says?: string;
}

/** An HTTP proxy that takes CONNECT, and notes what it was asked for. */
export class HttpConnectProxy implements AsyncDisposable {
  /** `localhost:443` … */
  readonly asked: string[] = [];
  readonly #options: ProxyOptions;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(options: ProxyOptions) {
    this.#options = options;
    this.#server = options.tls === undefined ? createServer() : createHttpsServer(options.tls);
    this.#server.on('request', (_request, response) => {
      response.writeHead(400).end('this is a proxy');
    });
    this.#server.on('connect', (request: IncomingMessage, socket: Socket) => {
      this.#connect(request, socket);
    });
    this.#server.on('connection', (socket) => {
      this.#keep(socket);
    });
  }

  static async start(options: ProxyOptions = {}): Promise<HttpConnectProxy> {
    const proxy = new HttpConnectProxy(options);
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** How many are connected through it. */
  get open(): number {
    return this.#sockets.size / 2;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #connect({ url = '', headers }: IncomingMessage, socket: Socket): void {
    this.asked.push(url);
    const { user, password, answer, says } = this.#options;
    const wanted = `Basic ${Buffer.from(`${user ?? ''}:${password ?? ''}`).toString('base64')}`;
    if (user !== undefined && headers['proxy-authorization'] !== wanted) {
      refuse(socket, '407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="plant"');
    } else if (answer !== undefined) {
      refuse(socket, answer);
    } else if (says !== undefined) {
      socket.end(`HTTP/1.1 200 OK\r\n\r\n${says}`);
    } else {
      const [, host = '', port = ''] = /^(.*):(\d+)$/.exec(url) ?? [];
      const hub = connect(Number(port), host);
      this.#keep(hub);
      hub.on('connect', () => {
        socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
        socket.pipe(hub).pipe(socket);
      });
      hub.on('close', () => socket.destroy());
      socket.on('close', () => hub.destroy());
    }
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => undefined).on('close', () => this.#sockets.delete(socket));
  }
}

function refuse(socket: Socket, answer: string): void {
  socket.end(`HTTP/1.1 ${answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
}
