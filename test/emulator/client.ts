import '../../src/no-debug.js';

import { once } from 'node:events';
import type { Socket } from 'node:net';

import rhea from 'rhea';
import type { Connection, Delivery, EventContext, Message, Receiver, Sender, Session } from 'rhea';

import type { Emulator } from '../../src/emulator/emulator.js';
import { createSasToken } from '../../src/identity/sas.js';

/** A plain rhea client for tests: it does what it is told, correctly or not. */
export async function connect(emulator: Emulator, options: object = {}): Promise<Client> {
  const host = emulator.hostName.replace(/:\d+$/, '');
  return await connectWith({ host, port: emulator.port, ca: emulator.ca }, options);
}

export async function connectWith(
  { host = 'localhost', port, ca }: { host?: string; port: number; ca: string },
  options: object = {},
): Promise<Client> {
  const container = rhea.create_container();
  const connection = container.connect({
    host,
    port,
    transport: 'tls',
    ...(host === 'localhost' && { servername: 'localhost' }),
    ca,
    hostname: host,
    reconnect: false,
    container_id: 'test',
    // Without it each small frame waits 40 ms for the answer to the one before.
    tcp_no_delay: true,
    receiver_options: { credit_window: 0, autoaccept: false, autosettle: false },
    sender_options: { treat_modified_as_released: false },
    ...options,
  } as never);
  for (const event of [
    'disconnected',
    'connection_error',
    'session_error',
    'sender_error',
    'receiver_error',
  ]) {
    connection.on(event, () => undefined);
  }
  await Promise.race([
    happens(connection, 'connection_open'),
    happens(connection, 'disconnected').then(() => {
      throw new Error('the hub hung up');
    }),
  ]);
  return new Client(connection);
}

export class Client implements AsyncDisposable {
  readonly connection: Connection;
  readonly closed: Promise<unknown>;

  constructor(connection: Connection) {
    this.connection = connection;
    this.closed = new Promise((resolve) => {
      connection.once('disconnected', resolve);
      connection.once('connection_close', resolve);
    });
  }

  async session(): Promise<Session> {
    const session = (this.connection as unknown as { create_session(): Session }).create_session();
    session.begin();
    await happens(session, 'session_open');
    return session;
  }

  /** Puts a token and gives its status and description. */
  async putToken(token: string, name: string): Promise<{ status: number; description: string }> {
    const session = await this.session();
    const sender = await openSender(session, '$cbs');
    const receiver = await openReceiver(session, '$cbs', { credit: 10 });
    const answered = once(receiver, 'message') as Promise<[EventContext]>;
    sender.send({
      message_id: 'm1',
      to: '$cbs',
      reply_to: 'cbs',
      application_properties: { operation: 'put-token', type: 'servicebus.windows.net:sastoken', name },
      body: token,
    });
    const [{ message }] = await answered;
    if (message?.correlation_id !== 'm1') throw new Error('correlation id is not the message id');
    const properties = message.application_properties!;
    return {
      status: properties['status-code'] as number,
      description: properties['status-description'] as string,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.connection.close();
    const { socket } = this.connection as unknown as { socket: Socket };
    if (socket.destroyed) return;
    // rhea writes its close in a later tick; a hub that is frozen never answers it.
    setImmediate(() => {
      socket.destroySoon();
    });
    await once(socket, 'close');
  }
}

/** Connects, and puts a token for the device (key taken from the emulator). */
export async function connectDevice(
  emulator: Emulator,
  deviceId: string,
  moduleId?: string,
): Promise<Client> {
  const client = await connect(emulator);
  const resource = `${emulator.hostName}/devices/${deviceId}${moduleId === undefined ? '' : `/modules/${moduleId}`}`;
  const key = /SharedAccessKey=(.*)/.exec(emulator.deviceConnectionString(deviceId, moduleId))![1]!;
  const { status, description } = await client.putToken(sas(resource, key), resource);
  if (status !== 200) throw new Error(`token refused: ${status} ${description}`);
  return client;
}

export async function connectService(emulator: Emulator, policyName = 'service'): Promise<Client> {
  const client = await connect(emulator);
  const key = /SharedAccessKey=(.*)/.exec(emulator.serviceConnectionString(policyName))![1]!;
  const token = sas(emulator.hostName, key, { policyName });
  const { status, description } = await client.putToken(token, emulator.hostName);
  if (status !== 200) throw new Error(`token refused: ${status} ${description}`);
  return client;
}

export function sas(
  resource: string,
  key: string,
  options: { policyName?: string; expiresInSeconds?: number } = {},
): string {
  const { policyName, expiresInSeconds = 3600 } = options;
  const expiresAtSeconds = Date.now() / 1000 + expiresInSeconds;
  return createSasToken({ resource, key: Buffer.from(key, 'base64'), expiresAtSeconds, policyName });
}

export async function openSender(session: Session, address: string, options: object = {}): Promise<Sender> {
  const sender = session.open_sender({ target: { address }, ...options });
  await opened(sender, 'sender');
  return sender;
}

export async function openReceiver(
  session: Session,
  address: string,
  { credit = 100, ...options }: { credit?: number; [option: string]: unknown } = {},
): Promise<Receiver> {
  const receiver = session.open_receiver({ source: { address }, ...options });
  await opened(receiver, 'receiver');
  if (credit > 0) receiver.add_credit(credit);
  return receiver;
}

/** Resolves when the link is open; rejects with the error that the hub detached it with. */
async function opened(link: Sender | Receiver, kind: 'sender' | 'receiver'): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    link.once(`${kind}_open`, () => {
      // A refusal is an attach without a terminus, and a detach right after it.
      const terminus = (kind === 'sender' ? link.target : link.source) as { address?: string } | null;
      if (terminus?.address !== undefined) resolve();
    });
    link.once(`${kind}_error`, () => {
      const { condition, description } = link.error as { condition: string; description: string };
      reject(Object.assign(new Error(`${condition}: ${description}`), { condition }));
    });
  });
}

/** Sends and gives the outcome the hub answered with. */
export async function send(
  sender: Sender,
  message: object,
): Promise<{ outcome: string; condition?: string }> {
  if (!sender.sendable()) await happens(sender, 'sendable');
  const delivery = sender.send({ body: rhea.message.data_section(Buffer.alloc(0)), ...message });
  return await new Promise((resolve) => {
    for (const outcome of ['accepted', 'rejected', 'released', 'modified']) {
      sender.on(outcome, (context: EventContext) => {
        if (context.delivery !== delivery) return;
        const error = delivery.remote_state?.['error'] as { condition?: string } | undefined;
        resolve({ outcome, ...(error?.condition !== undefined && { condition: error.condition }) });
      });
    }
  });
}

export const data = (text: string): unknown => rhea.message.data_section(Buffer.from(text));

/** The text of a message's data section. */
export const bodyText = (message: Message): string =>
  (message.body as { content: Buffer }).content.toString();

/** Settles as rhea's own methods do, but leaves the last word to the hub (settle mode second). */
export function acceptUnsettled(delivery: Delivery): void {
  const { accepted } = rhea.message as unknown as { accepted: () => { described: () => unknown } };
  delivery.update(false, accepted().described());
}

/** The next message on a receiver, unsettled. */
export async function next(receiver: Receiver): Promise<{ message: Message; delivery: Delivery }> {
  const [context] = (await once(receiver, 'message')) as [EventContext];
  return { message: context.message!, delivery: context.delivery! };
}

export async function happens(emitter: NodeJS.EventEmitter, event: string): Promise<EventContext> {
  const [context] = (await once(emitter, event, { signal: AbortSignal.timeout(20_000) })) as [EventContext];
  return context;
}
