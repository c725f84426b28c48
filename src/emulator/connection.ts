import { randomBytes } from 'node:crypto';
import type { Duplex } from 'node:stream';

import { verifyPlain } from './access.js';
import type { ClientCertificate, Grant } from './access.js';
import { Admission } from './admission.js';
import { pathOf, routeOf } from './addresses.js';
import type { Direction, LinkKind, Route } from './addresses.js';
import { identityKey } from './device.js';
import type { Device, DeviceOwner } from './device.js';
import { hubError, refusal } from './errors.js';
import type { HubError } from './errors.js';
import { isEnding, matches } from './faults.js';
import type { Ending, FaultAction, FaultFilter, Faults, Moment } from './faults.js';
import { Grants } from './grants.js';
import type { Hub } from './hub.js';
import { watchIdleness } from './idle-watch.js';
import { givers, takers } from './link-table.js';
import { Inlet, Outlet, channelOf, maxMessageBytes } from './links.js';
import type { LinkContext } from './links.js';
import type { LinkFacts, Transport } from './record.js';
import { offerSasl } from './sasl.js';
import { Settler } from './settle.js';
import { closeLink, insides, rhea } from './wire.js';
import type { Connection, Receiver, Sender, Session } from './wire.js';

/** What the hub says of itself when a connection opens; frame logs of the real one. */
const openFields = { max_frame_size: 65_536, channel_max: 8191 };
/** A client that does not answer a close gets this long before its socket goes. */
const closePatienceMs = 2000;
const killPatienceMs = 200;

/**
 * One client's AMQP connection: its tokens, its sessions and its links. An attach is the centre of it: address →
 * route → may it? → open; everything else belongs to the link from then on.
 */
export class ClientConnection implements DeviceOwner {
  readonly number: number;
  readonly transport: Transport;
  readonly #containerId = `DeviceGateway_${randomBytes(16).toString('hex')}`;
  readonly #hub: Hub;
  readonly #faults: Faults;
  readonly #socket: Duplex;
  readonly #serverName: string | undefined;
  readonly #grants: Grants;
  readonly #admission: Admission;
  readonly #amqp: Connection;
  readonly #links = new Map<Sender | Receiver, Inlet | Outlet>();
  readonly #sessions = new Map<Session, { number: number; settler: Settler }>();
  #sessionsOpened = 0;
  /** Devices that it speaks for. */
  readonly #devices = new Set<Device>();

  constructor(
    number: number,
    { socket, transport, certificate, serverName }: Peer,
    hub: Hub,
    faults: Faults,
  ) {
    this.number = number;
    this.transport = transport;
    this.#hub = hub;
    this.#grants = new Grants(certificate, {
      clock: hub.clock,
      graceMs: hub.tokenGraceMs,
      onExpired: () => {
        this.#detachUncovered();
      },
    });
    this.#admission = new Admission(hub, this.#grants);
    this.#faults = faults;
    this.#socket = socket;
    this.#serverName = serverName;
    this.#amqp = this.#accept(socket, certificate !== undefined);
  }

  /** Its sessions, each with its links: what a test asserts the shape of a client by. */
  get view(): ConnectionView {
    const links = [...this.#links.values()].map(({ context }) => context);
    return {
      number: this.number,
      transport: this.transport,
      serverName: this.#serverName,
      hostName: hostNameOf(this.#amqp),
      tokens: this.#grants.accepted,
      sessions: [...this.#sessions.values()].map(({ number }) => ({
        number,
        links: links
          .filter(({ session }) => session === number)
          .map(({ facts: { link, direction, deviceId, moduleId } }) => ({
            link,
            direction,
            deviceId,
            moduleId,
          })),
      })),
    };
  }

  fault(moment: Moment, context?: LinkContext, whenCleared?: () => void): FaultAction | undefined {
    return this.#faults.at(moment, context?.facts ?? { connection: this.number }, whenCleared);
  }

  /** Remembers what a verified token allows, until it expires. */
  allow(grant: Grant): void {
    this.#grants.add(grant);
  }

  /**
   * The link that answers to requests of `context` go out on: of the same channel if the client named one, else of
   * the same session, else any of its kind.
   */
  siblingOf(context: LinkContext): Outlet | undefined {
    const candidates = [...this.#links.values()].filter(
      (link): link is Outlet =>
        link instanceof Outlet &&
        link.context.route.kind === context.route.kind &&
        link.context.device === context.device,
    );
    const channel = channelOf(context);
    return (
      candidates.find((link) => channel !== undefined && channelOf(link.context) === channel) ??
      candidates.find((link) => link.context.session === context.session) ??
      candidates[0]
    );
  }

  /** Lets its tokens (of one device, or all) expire now; returns how many there were. */
  expireTokens(deviceId?: string): number {
    return this.#grants.expire(deviceId);
  }

  /** Another connection speaks for the device now, or nobody may. */
  yield(device: Device, why: HubError): void {
    for (const [link, { context }] of [...this.#links]) {
      if (context.device === device) this.#detach(link, why);
    }
  }

  /** Does an ending to what matches; returns to how many. */
  end(ending: Ending, filter: FaultFilter): number {
    const links = [...this.#links].filter(([, { context }]) => matches(filter, context.facts));
    if (ending.act === 'detach') {
      for (const [link] of links) this.#detach(link, faultError(ending, this.#hub.now()));
      return links.length;
    }
    const concerned =
      filter.link === undefined && filter.direction === undefined && filter.deviceId === undefined
        ? matches(filter, { connection: this.number })
        : links.length > 0;
    if (!concerned) return 0;
    if (ending.act === 'end') {
      const sessions =
        links.length > 0 ? new Set(links.map(([link]) => link.session)) : new Set(this.#sessions.keys());
      for (const session of sessions) this.#endSession(session, faultError(ending, this.#hub.now()));
      return sessions.size;
    }
    this.#endConnection(ending);
    return 1;
  }

  /** Does the ending that a fault asks for to a link, its session or all; false when the fault is no ending. */
  suffer(fault: FaultAction, context: LinkContext): boolean {
    if (!isEnding(fault)) return false;
    const [link] = [...this.#links].find(([, open]) => open.context === context) ?? [];
    const error = faultError(fault, this.#hub.now());
    if (fault.act === 'detach' && link) this.#detach(link, error);
    else if (fault.act === 'end' && link) this.#endSession(link.session, error);
    else this.#endConnection(fault);
    return true;
  }

  detach(context: LinkContext, error: HubError): void {
    for (const [link, open] of [...this.#links]) if (open.context === context) this.#detach(link, error);
  }

  /**
   * Ends its sessions, closes and drops. The Node SDK waits 45 s for its links to be detached when a connection is
   * only closed, and notices a session's end at once.
   */
  kill(error: HubError | undefined): void {
    for (const session of this.#sessions.keys()) this.#endSession(session, error);
    this.#amqp.close(error);
    setTimeout(() => {
      this.drop();
    }, killPatienceMs).unref();
  }

  /** Rejects the telemetry of this connection for a while. */
  rejectTelemetry(condition: string, durationMs: number): void {
    const fault = this.#faults.add({
      at: 'transfer',
      link: 'telemetry',
      connection: this.number,
      times: 'always',
      do: { act: 'refuse', condition },
    });
    this.#hub.clock.at(this.#hub.now() + durationMs, () => {
      fault.clear();
    });
  }

  /** Closes cleanly; the socket goes when the client has answered, or soon. */
  close(error?: HubError): void {
    for (const link of [...this.#links.keys()]) this.#linkGone(link, 'hub', error?.condition);
    this.#amqp.close(error);
    setTimeout(() => {
      this.#socket.destroy();
    }, closePatienceMs).unref();
  }

  drop(): void {
    this.#socket.destroy();
  }

  #accept(socket: Duplex, withCertificate: boolean): Connection {
    const container = rhea.create_container({ id: this.#containerId });
    const amqp = container.create_connection({
      ...openFields,
      idle_time_out: this.#hub.settings.idleTimeoutMs,
      port: 0,
      receiver_options: { credit_window: 0, autoaccept: false, autosettle: false },
      sender_options: { autosettle: false, treat_modified_as_released: false },
    } as never);
    offerSasl(container.sasl_server_mechanisms, {
      withCertificate,
      verify: (user, password) => {
        const verdict = verifyPlain(user, password, this.#hub);
        if (verdict.ok) this.#grants.add(verdict.grant);
        return verdict;
      },
    });
    this.#listen(amqp);
    socket.once('close', () => {
      this.#gone();
    });
    this.#hub.record.add({ event: 'connected', connection: this.number, transport: this.transport });
    (amqp as unknown as { accept(socket: Duplex): void }).accept(socket);
    const { idleTimeoutMs } = this.#hub.settings;
    watchIdleness(socket, idleTimeoutMs, () => {
      const text = `The connection was inactive for more than the allowed ${idleTimeoutMs} milliseconds and is closed by container '${this.#containerId}'.`;
      this.close({ condition: 'amqp:connection:forced', description: text });
    });
    return amqp;
  }

  #listen(amqp: Connection): void {
    const nothing = (): void => {
      // What ends is noticed by the socket's close; rhea prints what nobody listens to.
    };
    const quiet = ['disconnected', 'connection_error', 'session_error', 'sender_error', 'receiver_error'];
    for (const event of [...quiet, 'error', 'protocol_error']) amqp.on(event, nothing);
    amqp.on('connection_open', () => {
      const fault = this.fault('open');
      if (fault && isEnding(fault)) this.#endConnection(fault);
    });
    amqp.on('session_open', ({ session }: { session: Session }) => {
      this.#sessions.set(session, { number: ++this.#sessionsOpened, settler: new Settler() });
    });
    amqp.on('session_close', ({ session }: { session: Session }) => {
      this.#sessionGone(session, 'client');
    });
    amqp.on('receiver_open', ({ receiver }: { receiver: Receiver }) => {
      this.#attached(receiver, 'out', receiver.target);
    });
    amqp.on('sender_open', ({ sender }: { sender: Sender }) => {
      this.#attached(sender, 'in', sender.source);
    });
    amqp.on('receiver_close', ({ receiver }: { receiver: Receiver }) => {
      this.#linkGone(receiver, 'client');
    });
    amqp.on('sender_close', ({ sender }: { sender: Sender }) => {
      this.#linkGone(sender, 'client');
    });
  }

  #attached(link: Sender | Receiver, direction: Direction, terminus: { address?: string } | null): void {
    const address = terminus?.address ?? '';
    const path = pathOf(address);
    const route = routeOf(address, direction);
    const facts = this.#factsOf(link, direction, route);
    if (route === undefined) {
      const text = `The link address '${address}' did not match any of the expected formats.`;
      this.#refuse(link, facts, address, refusal('address-unknown', text, this.#hub.now()));
      return;
    }
    const device = this.#admission.deviceOf(route, path);
    const context: LinkContext = {
      connection: this,
      route,
      session: facts.session,
      direction,
      device,
      properties: (insides(link).remote.attach?.['properties'] ?? {}) as Record<string, unknown>,
      filter: ((link.source as { filter?: object } | null)?.filter ?? {}) as Record<string, unknown>,
      desiredCapabilities: [link.desired_capabilities].flat(),
      settler: this.#sessionOf(link).settler,
      facts,
    };
    const fault = this.fault('attach', context);
    switch (fault?.act) {
      case 'say-nothing':
        withholdAttach(link);
        break;
      case 'delay':
        withholdAttach(link);
        this.#hub.clock.at(this.#hub.now() + fault.ms, () => {
          link.open();
          this.#answer(link, context, address);
        });
        break;
      case 'refuse': {
        const now = this.#hub.now();
        const error = faultError(fault, now) ?? refusal('internal', 'a fault was asked for', now);
        this.#refuse(link, facts, address, error);
        break;
      }
      default:
        this.#answer(link, context, address);
        if (fault) this.suffer(fault, context);
    }
  }

  #answer(link: Sender | Receiver, context: LinkContext, address: string): void {
    const { route, device, facts } = context;
    const error =
      this.#admission.objectionTo(route, pathOf(address), device) ?? this.#admission.elsewhere(context);
    if (error) this.#refuse(link, facts, address, error);
    else this.#open(link, context, address);
  }

  #open(link: Sender | Receiver, context: LinkContext, address: string): void {
    const { local, remote } = insides(link);
    link.set_source(link.source);
    link.set_target(link.target);
    const theirLimit = Number(remote.attach?.['max_message_size'] ?? 0);
    local.attach['max_message_size'] =
      theirLimit > 0 ? Math.min(theirLimit, maxMessageBytes) : maxMessageBytes;
    local.attach['snd_settle_mode'] = remote.attach?.['snd_settle_mode'];
    local.attach['rcv_settle_mode'] = remote.attach?.['rcv_settle_mode'];
    this.#takeOver(link, context);
    this.#hub.record.add({ event: 'attached', ...context.facts, name: link.name, address });
    if (context.direction === 'out') this.#openInlet(link as Receiver, context);
    else this.#openOutlet(link as Sender, context);
  }

  #openInlet(link: Receiver, context: LinkContext): void {
    const take = takers[context.route.kind]?.(context, this.#hub);
    const inlet = new Inlet(link, context, this.#hub.settings.creditWindow, (transfer) => {
      const fault = this.fault(context.route.kind === 'cbs' ? 'put-token' : 'transfer', context);
      if (fault && this.suffer(fault, context)) return;
      if (take) take(transfer, fault);
      else transfer.settle({ outcome: 'accepted' });
    });
    this.#links.set(link, inlet);
  }

  #openOutlet(link: Sender, context: LinkContext): void {
    const outlet = new Outlet(link, context);
    this.#links.set(link, outlet);
    givers[context.route.kind]?.(outlet, this.#hub);
  }

  /** Another link of the same kind, here or on another connection of the device, gives way to the newest. */
  #takeOver(newest: Sender | Receiver, context: LinkContext): void {
    const { device } = context;
    if (device === undefined) return;
    const now = this.#hub.now();
    const why = refusal(
      'taken-over',
      `a newer connection of ${identityKey(device)} has taken this link`,
      now,
    );
    if (device.owner !== undefined && device.owner !== this) device.owner.yield(device, why);
    device.owner = this;
    this.#devices.add(device);
    for (const [link, { context: older }] of [...this.#links]) {
      const same = older.device === device && older.route.kind === context.route.kind;
      if (link !== newest && same && older.direction === context.direction) this.#detach(link, why);
    }
  }

  #refuse(link: Sender | Receiver, facts: LinkFacts, address: string, error: HubError): void {
    const { condition, description } = error;
    this.#hub.record.add({ event: 'refused', ...facts, address, condition, reason: description });
    closeLink(link, error);
  }

  #detach(link: Sender | Receiver, error: HubError | undefined): void {
    closeLink(link, error);
    this.#linkGone(link, 'hub', error?.condition);
  }

  #detachUncovered(): void {
    const why = refusal('token-invalid', 'Token Invalid.', this.#hub.now());
    for (const [link, { context }] of [...this.#links]) {
      const address = (context.direction === 'out' ? link.target : link.source) as {
        address?: string;
      } | null;
      const path = pathOf(address?.address ?? '');
      const objection = this.#admission.objectionTo(context.route, path, context.device);
      if (objection) this.#detach(link, why);
    }
  }

  #endConnection(ending: Ending): void {
    if (ending.act === 'close') this.close(faultError(ending, this.#hub.now()));
    else if (ending.act === 'drop') this.drop();
    else if (ending.act === 'freeze') {
      this.#socket.removeAllListeners('data');
      this.#socket.pause();
      // rhea writes only while it believes that the socket is ready.
      Object.assign(this.#amqp, { socket_ready: false });
    }
  }

  #linkGone(link: Sender | Receiver, by: 'client' | 'hub', condition?: string): void {
    const open = this.#links.get(link);
    if (open === undefined) return;
    this.#links.delete(link);
    this.#hub.record.add({ event: 'detached', ...open.context.facts, by, condition });
    open.closed();
  }

  #endSession(session: Session, error: HubError | undefined): void {
    session.end(error);
    this.#sessionGone(session, 'hub', error?.condition);
  }

  /** What its links held returns now, whether the client has heard of the end or not. */
  #sessionGone(session: Session, by: 'client' | 'hub', condition?: string): void {
    this.#sessions.delete(session);
    for (const link of [...this.#links.keys()]) {
      if (link.session === session) this.#linkGone(link, by, condition);
    }
  }

  #gone(): void {
    // rhea stops its idle timer, of minutes, when it hears of the end; it would keep the process.
    this.#socket.emit('end');
    for (const link of [...this.#links.keys()]) this.#linkGone(link, 'client');
    this.#grants.stop();
    for (const device of this.#devices) if (device.owner === this) device.owner = undefined;
    this.#sessions.clear();
    this.#hub.record.add({ event: 'disconnected', connection: this.number });
  }

  #sessionOf(link: Sender | Receiver): { number: number; settler: Settler } {
    return this.#sessions.get(link.session) ?? { number: 0, settler: new Settler() };
  }

  #factsOf(link: Sender | Receiver, direction: Direction, route: Route | undefined): LinkFacts {
    const facts = {
      connection: this.number,
      session: this.#sessionOf(link).number,
      link: route?.kind ?? 'unknown',
      direction,
    } as const;
    return route !== undefined && 'deviceId' in route
      ? { ...facts, deviceId: route.deviceId, moduleId: route.moduleId }
      : facts;
  }
}

export interface ConnectionView {
  number: number;
  transport: Transport;
  /** The name that the client asked for in its TLS handshake. */
  serverName: string | undefined;
  /** The name that the client wrote into its `open`. */
  hostName: string | undefined;
  /** Tokens that were accepted on it. */
  tokens: number;
  sessions: {
    number: number;
    links: LinkView[];
  }[];
}

export interface LinkView {
  link: LinkKind;
  direction: Direction;
  deviceId?: string | undefined;
  moduleId?: string | undefined;
}

/** Who is at the other end of a socket. */
export interface Peer {
  socket: Duplex;
  transport: Transport;
  certificate?: ClientCertificate | undefined;
  serverName?: string | undefined;
}

function hostNameOf(amqp: Connection): string | undefined {
  const { remote } = amqp as unknown as { remote: { open?: { hostname?: string } } };
  return remote.open?.hostname;
}

/** The error of a fault, or none when it names no condition. */
function faultError(fault: FaultAction, now: number): HubError | undefined {
  if (!('condition' in fault)) return undefined;
  const { condition, description } = fault;
  if (description !== undefined) return { condition, description };
  return hubError(condition, 500_001, 'a fault was asked for', now);
}

/** rhea answers an attach by itself at the end of the tick; this takes the answer back. */
function withholdAttach(link: Sender | Receiver): void {
  Object.assign((link as unknown as { state: object }).state, { local_open: false, open_requests: 0 });
}
