import '../../src/no-debug.js';

import { once } from 'node:events';
import type { AddressInfo } from 'node:net';

import rhea, { type EventContext, type Message, type Sender } from 'rhea';

import { openHubSession, type HubSession } from '../../src/amqp/session.js';
import { makeCertificate } from '../../src/emulator/certificates.js';
import { silentLog, type Log } from '../../src/log.js';
import { device, never } from './hub.js';

/** A peer without any rules of a hub: it takes every link, and sends what the test says. */
export interface BareHub extends AsyncDisposable {
  /** Opens a session there, without a token and without links for telemetry and commands. */
  open(log?: Log): Promise<HubSession>;
  /** Sends a message, or the bytes of one, on the link that our side receives on, when that is attached. */
  send(message: Message | Buffer): Promise<void>;
  /** The next message that came in. */
  next(): Promise<Message>;
}

export async function startBareHub(): Promise<BareHub> {
  const now = Date.now();
  const authority = await makeCertificate({ commonName: 'CA', usage: 'authority', now });
  const { certificate, key } = await makeCertificate({
    commonName: 'localhost',
    issuer: authority,
    hostNames: ['localhost'],
    usage: 'server',
    now,
  });
  const container = rhea.create_container();
  const links = queue<Sender>();
  const messages = queue<Message>();
  for (const event of ['disconnected', 'connection_error', 'session_error', 'error']) {
    container.on(event, () => undefined);
  }
  container.on('sender_open', ({ sender }: EventContext) => {
    sender!.set_source({ address: sender!.source.address });
  });
  container.on('receiver_open', ({ receiver }: EventContext) => {
    receiver!.set_target({ address: receiver!.target.address });
  });
  container.on('sendable', ({ sender }: EventContext) => {
    links.put(sender!);
  });
  container.on('message', ({ message }: EventContext) => {
    messages.put(message!);
  });
  const server = container.listen({
    port: 0,
    host: '127.0.0.1',
    transport: 'tls',
    cert: certificate,
    key,
  } as never);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  let link: Promise<Sender> | undefined;
  const sessions: HubSession[] = [];
  return {
    async open(log = silentLog) {
      const trust = { extraCa: authority.certificate };
      const session = await openHubSession(
        { endpoint: { host: 'localhost', port, trust }, identity: { deviceId: device }, links: [], log },
        never,
      );
      sessions.push(session);
      return session;
    },
    async send(message) {
      const sender = await (link ??= links.take());
      if (Buffer.isBuffer(message)) sender.send(message, undefined, 0);
      else sender.send(message);
    },
    next: () => messages.take(),
    async [Symbol.asyncDispose]() {
      for (const session of sessions) await session[Symbol.asyncDispose]();
      server.close();
    },
  };
}

function queue<T>(): { put: (item: T) => void; take: () => Promise<T> } {
  const items: T[] = [];
  const waiting: ((item: T) => void)[] = [];
  return {
    put: (item) => {
      const resolve = waiting.shift();
      if (resolve === undefined) items.push(item);
      else resolve(item);
    },
    take: () => {
      const [item] = items.splice(0, 1);
      return item === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(item);
    },
  };
}
