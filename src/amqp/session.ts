import { randomUUID } from 'node:crypto';
import { arch, platform, release } from 'node:os';

import type { Receiver, Sender, Session } from 'rhea';

import { AgentError } from '../errors.js';
import type { Token } from '../identity/token.js';
import type { Log } from '../log.js';
import type { DeviceId } from '../model.js';
import { attached } from './attach.js';
import { Cbs } from './cbs.js';
import { CommandLink } from './command-link.js';
import { openConnection, type AmqpConnection } from './connection.js';
import { toAgentError } from './errors.js';
import { encodeTelemetry } from './messages.js';
import { SessionScope } from './scope.js';
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
  /** Aborted when the links or the connection are over; the reason is the `AgentError` that says why. */
  readonly over: AbortSignal;
  /** Throws when the session was opened without the telemetry link. */
  readonly telemetry: TelemetryLink;
  /** Throws when the session was opened without the command link. */
  readonly commands: CommandLink;
  /** Replaces the token; no link is attached anew for it. */
  renewToken(token: Token, signal: AbortSignal): Promise<void>;
  /** Whether the links are over and the connection is not, so that `repair` can help. */
  readonly isRepairable: boolean;
  /** Attaches the links anew on the same connection. The one that is disposed of stays this one. */
  repair(signal: AbortSignal): Promise<HubSession>;
}

const defaultDeadlineMs = 20_000;

/**
 * Connects, puts the token, and attaches the links, all within one deadline. Sessions: `$cbs` on its own, telemetry
 * and commands together on another (the shape of this product).
 */
export async function openHubSession(options: HubSessionOptions, signal: AbortSignal): Promise<HubSession> {
  return withinDeadline(options, signal, async (until) => {
    const connection = await openConnection(options, until);
    try {
      const alive = AbortSignal.any([until, connection.over]);
      const cbs = options.token && new Cbs(connection);
      if (options.token !== undefined) await cbs?.putToken(options.token(), alive);
      return await attachLinks(connection, cbs, options, alive);
    } catch (error) {
      connection.fail(toAgentError(error));
      throw error;
    }
  });
}

async function withinDeadline<T>(
  { deadlineMs = defaultDeadlineMs }: HubSessionOptions,
  signal: AbortSignal,
  open: (until: AbortSignal) => Promise<T>,
): Promise<T> {
  const deadline = AbortSignal.timeout(deadlineMs);
  try {
    return await open(AbortSignal.any([signal, deadline]));
  } catch (error) {
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

async function attachLinks(
  connection: AmqpConnection,
  cbs: Cbs | undefined,
  options: HubSessionOptions,
  signal: AbortSignal,
): Promise<HubSession> {
  const { identity, links, log } = options;
  const scope = new SessionScope(connection);
  const path = devicePath(identity);
  try {
    const until = AbortSignal.any([signal, scope.over]);
    const [telemetry, commands] = await Promise.all([
      links.includes('telemetry') ? attachTelemetry(scope.session, path, until) : undefined,
      links.includes('commands') ? attachCommands(scope.session, path, until) : undefined,
    ]);
    return new OpenHubSession(connection, cbs, options, {
      scope,
      telemetry: telemetry && new TelemetryLink(telemetry, scope),
      commands: commands && new CommandLink(commands, scope, identity, log),
    });
  } catch (error) {
    scope.fail(toAgentError(error));
    throw error;
  }
}

/** Encodes telemetry for this device. */
export function encodeFor(identity: DeviceId): (message: Parameters<typeof encodeTelemetry>[0]) => Buffer {
  const to = `${devicePath(identity)}/messages/events`;
  return (message) => encodeTelemetry(message, to);
}

interface Links {
  scope: SessionScope;
  telemetry: TelemetryLink | undefined;
  commands: CommandLink | undefined;
}

class OpenHubSession implements HubSession {
  readonly #connection: AmqpConnection;
  readonly #cbs: Cbs | undefined;
  readonly #options: HubSessionOptions;
  readonly #links: Links;

  constructor(connection: AmqpConnection, cbs: Cbs | undefined, options: HubSessionOptions, links: Links) {
    this.#connection = connection;
    this.#cbs = cbs;
    this.#options = options;
    this.#links = links;
  }

  get over(): AbortSignal {
    return this.#links.scope.over;
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

  get isRepairable(): boolean {
    return this.over.aborted && !this.#connection.over.aborted;
  }

  repair(signal: AbortSignal): Promise<HubSession> {
    return withinDeadline(this.#options, signal, async (until) => {
      const alive = AbortSignal.any([until, this.#connection.over]);
      await this.#links.scope.closed(alive);
      return attachLinks(this.#connection, this.#cbs, this.#options, alive);
    });
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
