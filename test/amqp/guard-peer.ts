import '../../src/no-debug.js';

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

import rhea, {
  type Connection,
  type ConnectionDetails,
  type ConnectionOptions,
  type EventContext,
  type Message,
  type Receiver,
  type Sender,
} from 'rhea';

import { guard, type GuardedSocket, type GuardOptions } from '../../src/amqp/guard.js';
import { listen, type TcpServer } from '../tcp-server.js';
import { amqpHeader, attach, begin, flow, open, uint } from './guard-frames.js';

export const limits = { maxFrameBytes: 65_536, maxOutstandingDeliveries: 256, maxMessageBytes: 262_144 };

/** Handles of the two links that a client has, on both sides. */
export const toHub = 0;
export const fromHub = 1;
const names = { toHub: 'to the hub', fromHub: 'from the hub' };

/** What a hub answers to the client below, in one flight. */
export function answers({
  initialDeliveryCount = 0,
  nextOutgoingId = 0,
  incomingWindow = 2048,
  linkCredit = 100,
} = {}): Buffer {
  return Buffer.concat([
    amqpHeader,
    open(),
    begin({ nextOutgoingId, incomingWindow }),
    attach({ name: names.toHub, handle: toHub, role: 'receiver' }),
    attach({ name: names.fromHub, handle: fromHub, role: 'sender', initialDeliveryCount }),
    flow({ handle: toHub, linkCredit: uint(linkCredit), incomingWindow, nextOutgoingId }),
  ]);
}

/** The hub's end of a connection. */
export interface Peer {
  socket: Socket;
  /** The frames that the client sent so far, without its header. */
  frames: () => Buffer[];
  /** Resolves with the frames when there are as many. */
  until: (count: number) => Promise<Buffer[]>;
}

/** What the client sends before it hears anything: open, begin, two attaches, a flow with credit. */
export const clientFlight = 5;

/** A TCP server that does to each client what `script` says, once the client has sent its first flight. */
export function startHub(script: (peer: Peer, index: number) => unknown): Promise<TcpServer> {
  let count = 0;
  return listen((socket) => {
    const peer = peerOf(socket);
    const index = count++;
    void peer.until(clientFlight).then(() => script(peer, index));
  });
}

function peerOf(socket: Socket): Peer {
  let bytes = Buffer.alloc(0);
  const frames = () => {
    const found: Buffer[] = [];
    for (let at = amqpHeader.length; at + 4 <= bytes.length;) {
      const size = bytes.readUInt32BE(at);
      if (at + size > bytes.length) break;
      found.push(bytes.subarray(at, at + size));
      at += size;
    }
    return found;
  };
  socket.on('data', (chunk) => {
    bytes = Buffer.concat([bytes, chunk]);
  });
  return {
    socket,
    frames,
    async until(count) {
      while (frames().length < count) await once(socket, 'data');
      return frames();
    },
  };
}

export interface Client extends AsyncDisposable {
  connection: Connection;
  guarded: GuardedSocket;
  sender: Sender;
  receiver: Receiver;
  messages: Message[];
  /** Resolves with what ended the connection; undefined when the hub just left. */
  ended: Promise<Error | undefined>;
  /** Resolves with the messages when there are as many. */
  received: (count: number) => Promise<Message[]>;
}

/** rhea behind a guard, or bare: one session, a link each way, ten messages of credit. */
export function startClient(
  port: number,
  options: Partial<GuardOptions> | 'bare' = {},
  more: Partial<ConnectionOptions> = {},
): Client {
  const socket = connect(port, '127.0.0.1');
  return clientOf(
    options === 'bare' ? (socket as unknown as GuardedSocket) : guard(socket, { ...limits, ...options }),
    (connected) => {
      socket.once('connect', connected);
    },
    more,
  );
}

export function clientOf(
  guarded: GuardedSocket,
  whenConnected: (connected: () => void) => void,
  more: Partial<ConnectionOptions> = {},
): Client {
  const details: Pick<ConnectionDetails, 'connect'> = {
    connect: (_port: number, _host: string, _options: unknown, connected: () => void) => {
      whenConnected(connected);
      return guarded;
    },
  };
  const container = rhea.create_container({ id: 'client' });
  const connection = container.create_connection({
    reconnect: false,
    ...more,
    ...details,
  } as ConnectionOptions);
  const messages: Message[] = [];
  const arrivals = new EventTarget();
  const ended = new Promise<Error | undefined>((resolve) => {
    const end = (context: EventContext | Error) => {
      resolve(context instanceof Error ? context : context.error);
    };
    for (const event of ['error', 'protocol_error', 'connection_error', 'disconnected'])
      connection.on(event, end);
    for (const event of ['session_error', 'sender_error', 'receiver_error'])
      connection.on(event, () => undefined);
    container.on('error', end);
    guarded.on('error', end);
  });
  connection.connect();
  const sender = connection.open_sender({ name: names.toHub, target: 'there' });
  const receiver = connection.open_receiver({
    name: names.fromHub,
    source: 'there',
    credit_window: 0,
    autoaccept: false,
  });
  receiver.on('message', (context: EventContext) => {
    if (context.message !== undefined) messages.push(context.message);
    arrivals.dispatchEvent(new Event('message'));
  });
  receiver.add_credit(10);
  return {
    connection,
    guarded,
    sender,
    receiver,
    messages,
    ended,
    async received(count) {
      while (messages.length < count)
        await Promise.race([
          new Promise((resolve) => {
            arrivals.addEventListener('message', resolve, { once: true });
          }),
          ended.then((error) => {
            throw error ?? new Error('the hub left');
          }),
        ]);
      return messages;
    },
    async [Symbol.asyncDispose]() {
      guarded.destroy();
      await Promise.resolve();
    },
  };
}
