import { randomUUID } from 'node:crypto';
import { arch, platform, release } from 'node:os';

import type { Receiver, Sender, Session } from 'rhea';

import { AgentError } from '../errors.js';
import type { Token } from '../identity/token.js';
import type { Log } from '../log.js';
import type { DeviceId } from '../model.js';
import { attached } from './attach.js';
import { openCbs, type Cbs } from './cbs.js';
import { CommandLink } from './command-link.js';
import { openConnection, type AmqpConnection } from './connection.js';
import { toAgentError } from './errors.js';
import { encodeTelemetry } from './messages.js';
import type { Endpoint } from './socket.js';
import { TelemetryLink } from './telemetry-link.js';

export interface HubSessionOptions {
  endpoint: Endpoint;
  identity: DeviceId;
  /** Makes the token for the connection; absent with a client certificate, which needs no `$cbs`. */
  token?: (() => Token) | undefined;
  /** Which links to attach. */
  links: readonly ('telemetry' | 'commands')[];
  log: Log;
  /** Milliseconds from DNS to attached links. */
  deadlineMs?: number;
  idleTimeoutMs?: number | undefined;
  silenceMs?: number | undefined;
}

/** One connection's worth of hub: authorised, with its links attached on one AMQP session. */
export interface HubSession extends AsyncDisposable {
  /** Aborted when the session is over; the reason is the `AgentError` that says why. */
  readonly over: AbortSignal;
  /** Throws when the session was opened without the telemetry link. */
  readonly telemetry: TelemetryLink;
  /** Throws when the session was opened without the command link. */
  readonly commands: CommandLink;
  /** Replaces the token, on the same `$cbs` links. */
  renewToken(token: Token, signal: AbortSignal): Promise<void>;
}

const defaultDeadlineMs = 20_000;

/**
 * Connects, puts the token, and attaches the links, all within one deadline. Sessions: `$cbs` on its own, telemetry
 * and commands together on another (the shape of this product).
 */
export async function openHubSession(options: HubSessionOptions, signal: AbortSignal): Promise<HubSession> {
  const { deadlineMs = defaultDeadlineMs } = options;
  const deadline = AbortSignal.timeout(deadlineMs);
  const until = AbortSignal.any([signal, deadline]);
  let connection: AmqpConnection | undefined;
  try {
    connection = await openConnection(options, until);
    return await establish(connection, options, AbortSignal.any([until, connection.over]));
  } catch (error) {
    connection?.fail(toAgentError(error));
    if (!deadline.aborted || signal.aborted) throw error;
    throw new AgentError(
      'unavailable',
      `the hub did not get us online within ${String(deadlineMs / 1000)} s`,
      {
        cause: error,
        hint: 'it accepted the connection and then did not answer; a firewall or a proxy may be in between',
      },
    );
  }
}

async function establish(
  connection: AmqpConnection,
  { identity, links, token, log }: HubSessionOptions,
  signal: AbortSignal,
): Promise<HubSession> {
  let cbs: Cbs | undefined;
  if (token !== undefined) {
    cbs = openCbs(connection);
    await cbs.putToken(token(), signal);
  }
  const session = connection.rhea.create_session();
  session.begin();
  const path = devicePath(identity);
  const [telemetry, commands] = await Promise.all([
    links.includes('telemetry') ? attachTelemetry(session, path, signal) : undefined,
    links.includes('commands') ? attachCommands(session, path, signal) : undefined,
  ]);
  return new OpenHubSession(connection, {
    cbs,
    telemetry: telemetry && new TelemetryLink(telemetry, connection),
    commands: commands && new CommandLink(commands, connection, identity, log),
  });
}

/** Encodes telemetry for this device. */
export function encodeFor(identity: DeviceId): (message: Parameters<typeof encodeTelemetry>[0]) => Buffer {
  const to = `${devicePath(identity)}/messages/events`;
  return (message) => encodeTelemetry(message, to);
}

class OpenHubSession implements HubSession {
  readonly #connection: AmqpConnection;
  readonly #cbs: Cbs | undefined;
  readonly #links: { telemetry: TelemetryLink | undefined; commands: CommandLink | undefined };

  constructor(
    connection: AmqpConnection,
    links: { cbs: Cbs | undefined; telemetry: TelemetryLink | undefined; commands: CommandLink | undefined },
  ) {
    this.#connection = connection;
    this.#cbs = links.cbs;
    this.#links = links;
  }

  get over(): AbortSignal {
    return this.#connection.over;
  }

  get telemetry(): TelemetryLink {
    return present(this.#links.telemetry, 'telemetry');
  }

  get commands(): CommandLink {
    return present(this.#links.commands, 'commands');
  }

  async renewToken(token: Token, signal: AbortSignal): Promise<void> {
    await this.#cbs?.putToken(token, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connection[Symbol.asyncDispose]();
  }
}

function present<T>(link: T | undefined, name: string): T {
  if (link === undefined) throw new TypeError(`this session was opened without its ${name} link`);
  return link;
}

/** `/devices/{id}[/modules/{module}]`, ids as they are: the Node SDK does not encode them here, and the hub decodes. */
function devicePath({ deviceId, moduleId }: DeviceId): string {
  return moduleId === undefined ? `/devices/${deviceId}` : `/devices/${deviceId}/modules/${moduleId}`;
}

async function attachTelemetry(session: Session, path: string, signal: AbortSignal): Promise<Sender> {
  const sender = session.attach_sender({
    name: `telemetry link/${randomUUID()}`,
    target: { address: `${path}/messages/events` },
    properties: linkProperties(),
    treat_modified_as_released: false,
  });
  await attached(sender, 'sender', signal);
  return sender;
}

async function attachCommands(session: Session, path: string, signal: AbortSignal): Promise<Receiver> {
  const receiver = session.attach_receiver({
    name: `command link/${randomUUID()}`,
    source: { address: `${path}/messages/deviceBound` },
    properties: linkProperties(),
    credit_window: 0,
    autoaccept: false,
  });
  await attached(receiver, 'receiver', signal);
  return receiver;
}

/** What every link tells the hub about its client; the keys are symbols on the wire. */
function linkProperties(): Record<string, string> {
  const runtime = `node ${process.version}; ${platform()} ${release()}; ${arch()}`;
  return { 'com.microsoft:client-version': `iothub-device/0.1.0 (${runtime})` };
}
