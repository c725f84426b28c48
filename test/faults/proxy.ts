import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

import { systemErrorCode } from '../../src/errors.js';
import { seeded } from '../store/fake-disk.js';

/** `up` is what the agent says, `down` what the hub says. */
export type Way = 'up' | 'down';
export type Ways = Way | 'both';

/** How bytes travel, on the connections there are and on those to come. */
export interface Shape {
  /** Milliseconds that each byte is late. */
  delayMs?: number;
  /** Bytes per second, each way. */
  bytesPerSecond?: number;
  /** Bytes are written in pieces of so many. */
  sliceBytes?: number;
}

/** What becomes of who connects. `refuse`: nobody listens. `mute`: accepted, and then not a byte. */
export type Door = 'open' | 'refuse' | 'mute';

const portPatienceMs = 60_000;

/**
 * A network between an agent and its hub, in which everything can happen that happens to TCP. It sees bytes and
 * not frames: TLS is inside. Random places come from its seed.
 */
export class Proxy implements AsyncDisposable {
  readonly random: () => number;
  readonly #targetPort: number;
  readonly #connections = new Set<Passage>();
  readonly #mute = new Set<Socket>();
  #server: Server | undefined;
  #port = 0;
  #door: Door = 'open';
  #shape: Shape = {};
  #accepted = 0;

  private constructor(targetPort: number, seed: number) {
    this.#targetPort = targetPort;
    this.random = seeded(seed);
  }

  static async start(targetPort: number, seed = 1): Promise<Proxy> {
    const proxy = new Proxy(targetPort, seed);
    await proxy.#listen();
    return proxy;
  }

  get port(): number {
    return this.#port;
  }

  /** How many have connected so far. */
  get accepted(): number {
    return this.#accepted;
  }

  /** How many are connected now, those that are kept mute among them. */
  get open(): number {
    return this.#connections.size + this.#mute.size;
  }

  /** Bytes that have passed. */
  passed(way: Way): number {
    return [...this.#connections].reduce((sum, connection) => sum + connection[way].passed, 0);
  }

  /** RST to both sides. Returns to how many connections. */
  reset(): number {
    return this.#each((connection) => {
      connection.reset();
    });
  }

  /** FIN to who reads this way; the other way stays open. */
  halfClose(way: Way): number {
    return this.#each((connection) => {
      connection[way].finish();
    });
  }

  /** Nothing arrives any more, and nobody is told: a cable that was pulled. */
  stall(ways: Ways = 'both'): number {
    return this.#each((connection) => {
      for (const way of waysOf(ways)) connection[way].stallAfter(0);
    });
  }

  /** So many bytes still pass, then nothing: in the middle of a frame if need be. */
  stallAfter(bytes: number, way: Way): number {
    return this.#each((connection) => {
      connection[way].stallAfter(bytes);
    });
  }

  /** RST after so many bytes more. */
  resetAfter(bytes: number, way: Way): number {
    return this.#each((connection) => {
      connection[way].after(bytes, () => {
        connection.reset();
      });
    });
  }

  shape(shape: Shape): void {
    this.#shape = shape;
  }

  async door(door: Door): Promise<void> {
    if (door === this.#door) return;
    const before = this.#door;
    this.#door = door;
    if (door === 'refuse') await this.#stopListening();
    else if (before === 'refuse') await this.#listen();
    // Who was kept waiting is let go of: nobody would ever answer.
    if (door !== 'mute') for (const socket of this.#mute) sendReset(socket);
  }

  /** The network is well again: what was stalled flows on, and who comes is let in. */
  async heal(): Promise<void> {
    this.#shape = {};
    for (const connection of this.#connections) {
      for (const way of waysOf('both')) connection[way].flow();
    }
    await this.door('open');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stopListening();
    for (const connection of this.#connections) connection.destroy();
    for (const socket of this.#mute) socket.destroy();
  }

  #each(act: (connection: Passage) => void): number {
    const now = [...this.#connections];
    for (const connection of now) act(connection);
    return now.length;
  }

  async #listen(): Promise<void> {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      this.#accept(socket);
    });
    const deadline = performance.now() + portPatienceMs;
    for (;;) {
      try {
        await once(server.listen(this.#port, '127.0.0.1'), 'listening');
        break;
      } catch (error) {
        // While nobody listened, the port was given to a connection of someone else.
        if (systemErrorCode(error) !== 'EADDRINUSE' || performance.now() > deadline) throw error;
        await delay(100);
      }
    }
    this.#server = server;
    this.#port = (server.address() as AddressInfo).port;
  }

  async #stopListening(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    this.#server = undefined;
    // It closes when the last connection has; listening it stops at once.
    server.close();
    await new Promise(setImmediate);
  }

  #accept(client: Socket): void {
    this.#accepted++;
    if (this.#door === 'mute') {
      this.#mute.add(client);
      client.on('error', () => undefined);
      // Read and thrown away, so that the end is seen.
      client.resume().once('end', () => client.destroy());
      client.once('close', () => this.#mute.delete(client));
      return;
    }
    const connection = new Passage(client, this.#targetPort, () => this.#shape);
    this.#connections.add(connection);
    void connection.closed.then(() => this.#connections.delete(connection));
  }
}

/** Whatever error comes before it. */
export function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    if (socket.closed) resolve();
    else
      socket.once('close', () => {
        resolve();
      });
  });
}

/** `resetAndDestroy` would first wait for what is written, and shut down in between, after which there is no RST. */
function sendReset(socket: Socket): void {
  Object.assign(socket, { resetAndClosing: true }).destroy();
}

function drained(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    const onEnd = () => {
      socket.off('drain', onEnd).off('close', onEnd);
      resolve();
    };
    socket.once('drain', onEnd).once('close', onEnd);
  });
}

function waysOf(ways: Ways): readonly Way[] {
  return ways === 'both' ? ['up', 'down'] : [ways];
}

/** One connection through the proxy. */
class Passage {
  readonly up: Pipe;
  readonly down: Pipe;
  readonly closed: Promise<void>;
  readonly #sockets: readonly Socket[];

  constructor(client: Socket, port: number, shape: () => Shape) {
    const hub = connect({ host: '127.0.0.1', port, allowHalfOpen: true, noDelay: true });
    this.#sockets = [client, hub];
    for (const socket of this.#sockets) {
      socket.on('error', () => {
        // A reset on one side is one on the other.
        this.reset();
      });
    }
    this.closed = Promise.all(this.#sockets.map(closed)).then(() => undefined);
    this.up = new Pipe(client, hub, shape);
    this.down = new Pipe(hub, client, shape);
  }

  reset(): void {
    for (const socket of this.#sockets) sendReset(socket);
  }

  destroy(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}

/** One way of a connection. */
class Pipe {
  passed = 0;
  readonly #to: Socket;
  readonly #shape: () => Shape;
  /** At so many bytes passed, this happens, once. */
  #mark: { at: number; act: () => void } | undefined;
  #stalled: { promise: Promise<void>; end: () => void } | undefined;
  #finished = false;

  constructor(from: Socket, to: Socket, shape: () => Shape) {
    this.#to = to;
    this.#shape = shape;
    void this.#run(from);
  }

  after(bytes: number, act: () => void): void {
    this.#mark = { at: this.passed + bytes, act };
    if (bytes === 0) this.#reachMark();
  }

  stallAfter(bytes: number): void {
    this.after(bytes, () => {
      let end: () => void = () => undefined;
      const promise = new Promise<void>((resolve) => {
        end = resolve;
      });
      this.#stalled ??= { promise, end };
    });
  }

  flow(): void {
    this.#mark = undefined;
    this.#stalled?.end();
    this.#stalled = undefined;
  }

  finish(): void {
    this.#finished = true;
    this.#to.end();
  }

  async #run(from: Socket): Promise<void> {
    const wire = new Wire();
    void (async () => {
      // Its own end of the socket stays open: one that is half closed can still be written to.
      for await (const chunk of from.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
        await this.#stalled?.promise;
        await wire.put(chunk, this.#shape().delayMs ?? 0);
      }
    })()
      .catch(() => undefined)
      .finally(() => {
        wire.end();
      });
    for (let chunk = await wire.take(); chunk !== undefined; chunk = await wire.take()) {
      await this.#pass(chunk);
    }
    await this.#stalled?.promise;
    this.#to.end();
  }

  async #pass(chunk: Buffer): Promise<void> {
    for (let rest = chunk; rest.length > 0;) {
      await this.#stalled?.promise;
      const { sliceBytes = Infinity, bytesPerSecond = Infinity } = this.#shape();
      const untilMark = this.#mark === undefined ? Infinity : this.#mark.at - this.passed;
      const length = Math.min(rest.length, sliceBytes, bytesPerSecond / 20, Math.max(1, untilMark));
      const piece = rest.subarray(0, Math.max(1, Math.floor(length)));
      rest = rest.subarray(piece.length);
      if (this.#finished || this.#to.destroyed) return;
      const isFull = !this.#to.write(piece);
      this.passed += piece.length;
      this.#reachMark();
      if (bytesPerSecond < Infinity) await delay((piece.length / bytesPerSecond) * 1000);
      // Each slice is a packet of its own.
      else if (sliceBytes < Infinity) await new Promise(setImmediate);
      if (isFull) await drained(this.#to);
    }
  }

  #reachMark(): void {
    if (this.#mark === undefined || this.passed < this.#mark.at) return;
    const { act } = this.#mark;
    this.#mark = undefined;
    act();
  }
}

/** Bytes on their way: later ones set out while earlier ones travel, and only so many at once. */
class Wire {
  readonly #chunks: { chunk: Buffer; due: number }[] = [];
  #bytes = 0;
  #ended = false;
  #changed: () => void = () => undefined;

  async put(chunk: Buffer, delayMs: number): Promise<void> {
    this.#chunks.push({ chunk, due: performance.now() + delayMs });
    this.#bytes += chunk.length;
    this.#changed();
    while (this.#bytes > wireBytes) await this.#change();
  }

  end(): void {
    this.#ended = true;
    this.#changed();
  }

  /** The next that arrives; undefined after the last. */
  async take(): Promise<Buffer | undefined> {
    while (this.#chunks.length === 0) {
      if (this.#ended) return undefined;
      await this.#change();
    }
    const { chunk, due } = this.#chunks.shift()!;
    const early = due - performance.now();
    if (early > 0) await delay(early);
    this.#bytes -= chunk.length;
    this.#changed();
    return chunk;
  }

  /** One of the two sides waits at most. */
  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#changed = resolve;
    });
  }
}

const wireBytes = 256 * 1024;
