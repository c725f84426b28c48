import { randomUUID } from 'node:crypto';
import { arch, platform, release } from 'node:os';

import type { Receiver, Sender, Session } from 'rhea';

import { AgentError } from '../errors.js';
import type { Token } from '../identity/token.js';
import type { Log } from '../log.js';
import type { DeviceId } from '../model.js';
import { anyOf } from '../signals.js';
import { attached } from './attach.js';
import { Cbs } from './cbs.js';
import { ChannelOpener } from './channel.js';
import { CommandLink } from './command-link.js';
import { openConnection, type AmqpConnection } from './connection.js';
import type { EarlyAttach } from './early-attach.js';
import { encodeTelemetry } from './encode-telemetry.js';
import { toAgentError } from './errors.js';
import { MethodLink } from './methods.js';
import { SessionScope } from './scope.js';
import { SenderLink } from './sender-link.js';
import type { Endpoint } from './socket.js';
import type { TelemetryLink } from './telemetry-link.js';
import { TwinLink } from './twin.js';

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
  /** Milliseconds within which the hub has to answer on the links for methods and twin, or they are given up. */
  answerWithinMs?: number;
  idleTimeoutMs?: number | undefined;
  silenceMs?: number | undefined;
  /**
   * Whether who leaves waits for the hub's answer to its goodbye, a round trip: not when the process ends next.
   * Default: answered, so that a connection that follows is not taken for a second one.
   */
  goodbye?: 'said' | 'answered' | undefined;
  /** Attaches the links together with the token. Absent: when the hub has taken it. */
  early?: EarlyAttach | undefined;
}

/** One connection's worth of hub: authorised, with its links attached on one AMQP session. */
export interface HubSession extends AsyncDisposable {
  /** Aborted when the links or the connection are over; the reason is the `AgentError` that says why. */
  readonly over: AbortSignal;
  /** Throws when the session was opened without the telemetry link. */
  readonly telemetry: TelemetryLink;
  /** Throws when the session was opened without the command link. */
  readonly commands: CommandLink;
  /**
   * The link for direct methods, on an AMQP session of its own. It is opened when it is first asked for, and anew when
   * it was lost; it lasts when `over` is aborted and the connection is repaired.
   */
  openMethods(signal: AbortSignal): Promise<MethodLink>;
  /** The link for the device twin, in the same way. */
  openTwin(signal: AbortSignal): Promise<TwinLink>;
  /** The token that the connection lives on; undefined with a client certificate. */
  readonly token: Token | undefined;
  /** Replaces the token; no link is attached anew for it. */
  renewToken(token: Token, signal: AbortSignal): Promise<void>;
  /** Whether the links are over and the connection is not, so that `repair` can help. */
  readonly isRepairable: boolean;
  /** Attaches the links anew on the same connection. The one that is disposed of stays this one. */
  repair(signal: AbortSignal): Promise<HubSession>;
  /** Ends the connection at once, because of this. */
  fail(error: AgentError): void;
}

const defaultDeadlineMs = 20_000;
const defaultAnswerWithinMs = 30_000;
const mayBeTakenBackMs = 5_000;

/**
 * Connects, puts the token, and attaches the links, all within one deadline. Sessions: `$cbs` on its own, telemetry
 * and commands together on another (the shape of this product).
 */
export async function openHubSession(options: HubSessionOptions, signal: AbortSignal): Promise<HubSession> {
  const { early } = options;
  return withinDeadline(options, 'get us online', signal, async (until) => {
    if (early === undefined || early.isRefused) return openOnce(options, until);
    try {
      const session = await openOnce(options, until, { early: true });
      const openedAt = performance.now();
      // Links can be answered and taken back. What comes much later has another reason.
      session.over.addEventListener('abort', () => {
        if (performance.now() - openedAt < mayBeTakenBackMs) early.isRefusedBy(session.over.reason);
      });
      return session;
    } catch (error) {
      if (!early.isRefusedBy(error)) throw error;
      return await openOnce(options, until);
    }
  });
}

async function openOnce(
  options: HubSessionOptions,
  until: AbortSignal,
  { early = false } = {},
): Promise<HubSession> {
  const connection = await openConnection(options, until);
  try {
    using alive = anyOf(until, connection.over);
    const cbs = options.token && new Cbs(connection);
    const base = { connection, cbs, channels: channelsOf(connection, options), options };
    if (options.token === undefined || cbs === undefined) return await attachLinks(base, alive);
    const taken = cbs.putToken(options.token(), alive);
    const mayAttach: Promise<unknown> = early ? cbs.granted(alive) : taken;
    const attaching = mayAttach.then(() => attachLinks(base, alive));
    // A token that is refused is the reason for what becomes of the links.
    attaching.catch(() => undefined);
    await taken;
    return await attaching;
  } catch (error) {
    connection.fail(toAgentError(error));
    throw error;
  }
}

async function withinDeadline<T>(
  { deadlineMs = defaultDeadlineMs }: HubSessionOptions,
  what: string,
  signal: AbortSignal,
  open: (until: AbortSignal) => Promise<T>,
): Promise<T> {
  const deadline = AbortSignal.timeout(deadlineMs);
  using until = anyOf(signal, deadline);
  try {
    return await open(until);
  } catch (error) {
    if (!deadline.aborted || signal.aborted) throw error;
    throw new AgentError('unavailable', `the hub did not ${what} within ${String(deadlineMs / 1000)} s`, {
      cause: error,
      hint: 'it accepted the connection and then did not answer; a firewall or a proxy may be in between',
    });
  }
}

/** What outlasts the links of a session: it belongs to the connection. */
interface Base {
  connection: AmqpConnection;
  cbs: Cbs | undefined;
  channels: { methods: ChannelOpener<MethodLink>; twin: ChannelOpener<TwinLink> };
  options: HubSessionOptions;
}

function channelsOf(
  connection: AmqpConnection,
  { identity, log, answerWithinMs = defaultAnswerWithinMs }: HubSessionOptions,
): Base['channels'] {
  const path = devicePath(identity);
  const properties = linkProperties();
  return {
    methods: new ChannelOpener(
      connection,
      {
        kind: 'methods',
        address: `${path}/methods/devicebound`,
        properties,
        sender: { treat_modified_as_released: false },
        receiver: { credit_window: 0 },
      },
      (channel) => new MethodLink(channel, { identity, log, answerWithinMs }),
    ),
    twin: new ChannelOpener(
      connection,
      {
        kind: 'twin',
        address: `${path}/twin`,
        properties,
        // Settled as they are sent: the answer is what counts.
        sender: { snd_settle_mode: 1 },
        receiver: { credit_window: 50 },
      },
      (channel) => new TwinLink(channel, { answerWithinMs }),
    ),
  };
}

async function attachLinks(base: Base, signal: AbortSignal): Promise<HubSession> {
  const { connection, options } = base;
  const { identity, links, log } = options;
  const scope = new SessionScope(connection);
  const path = devicePath(identity);
  try {
    using until = anyOf(signal, scope.over);
    const [telemetry, commands] = await Promise.all([
      links.includes('telemetry') ? attachTelemetry(scope.session, path, until) : undefined,
      links.includes('commands') ? attachCommands(scope.session, path, until) : undefined,
    ]);
    return new OpenHubSession(base, {
      scope,
      telemetry: telemetry && new SenderLink(telemetry.name, scope),
      commands: commands && new CommandLink(commands.name, scope, identity, log),
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
  readonly #base: Base;
  readonly #links: Links;

  constructor(base: Base, links: Links) {
    this.#base = base;
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

  openMethods(signal: AbortSignal): Promise<MethodLink> {
    const { channels, options } = this.#base;
    return withinDeadline(options, 'attach the method links', signal, (until) =>
      channels.methods.open(until),
    );
  }

  openTwin(signal: AbortSignal): Promise<TwinLink> {
    const { channels, options } = this.#base;
    return withinDeadline(options, 'attach the twin links', signal, (until) => channels.twin.open(until));
  }

  get token(): Token | undefined {
    return this.#base.cbs?.token;
  }

  async renewToken(token: Token, signal: AbortSignal): Promise<void> {
    await this.#base.cbs?.putToken(token, signal);
  }

  get isRepairable(): boolean {
    return this.over.aborted && !this.#base.connection.over.aborted;
  }

  repair(signal: AbortSignal): Promise<HubSession> {
    const { connection, options } = this.#base;
    return withinDeadline(options, 'get us online', signal, async (until) => {
      using alive = anyOf(until, connection.over);
      await this.#links.scope.closed(alive);
      return await attachLinks(this.#base, alive);
    });
  }

  fail(error: AgentError): void {
    this.#base.connection.fail(error);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { connection, options } = this.#base;
    const answered = connection[Symbol.asyncDispose]();
    // rhea writes at the end of this turn.
    await (options.goodbye === 'said' ? nextTurn() : answered);
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

function present<T>(link: T | undefined, name: string): T {
  if (link === undefined) throw new TypeError(`this session was opened without its ${name} link`);
  return link;
}

/** `/devices/{id}[/modules/{module}]`, ids as they are: the Node SDK does not encode them here, and the hub decodes. */
export function devicePath({ deviceId, moduleId }: DeviceId): string {
  return moduleId === undefined ? `/devices/${deviceId}` : `/devices/${deviceId}/modules/${moduleId}`;
}

export async function attachTelemetry(session: Session, path: string, signal: AbortSignal): Promise<Sender> {
  const sender = session.attach_sender({
    name: `telemetry link/${randomUUID()}`,
    target: { address: `${path}/messages/events` },
    properties: linkProperties(),
    treat_modified_as_released: false,
  });
  await attached(sender, 'sender', signal);
  return sender;
}

export async function attachCommands(session: Session, path: string, signal: AbortSignal): Promise<Receiver> {
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
