import { randomBytes } from 'node:crypto';

import type { Clock } from '../clock.js';
import { AgentError } from '../errors.js';
import type { DeviceId, SendOutcome } from '../model.js';
import type { CertificateAndKey } from './certificates.js';
import { ClientConnection } from './connection.js';
import type { ConnectionView, Peer } from './connection.js';
import type { Authentication, Device } from './device.js';
import { identityKey } from './device.js';
import { Faults } from './faults.js';
import { Hub, recorded } from './hub.js';
import { certificateOf, listen, listenHttp, listenHttps, listenTls } from './listener.js';
import type { Listener, PortChoice } from './listener.js';
import type { HubMessage } from './message.js';
import type { HubRecord, RecordEntry, WaitOptions } from './record.js';
import type { Seed } from './seed.js';
import { defaultSettings, wellKnownKey } from './settings.js';
import type { HubSettings } from './settings.js';
import type { Snapshots } from './snapshot.js';
import { StateDirectory } from './state.js';

export type { ConnectionView, Device, HubRecord, RecordEntry };
export type { ActiveFault, Fault, FaultAction, FaultFilter, Faults } from './faults.js';
export type { HubSettings } from './settings.js';

export interface EmulatorOptions extends Partial<Omit<HubSettings, 'commands'>> {
  commands?: Partial<HubSettings['commands']>;
  /** AMQP over TLS. Default 0: a free one. */
  port?: number;
  /** REST and AMQP over WebSocket. None by default; 0 takes a free one. Many SDKs know no other than 443. */
  httpsPort?: PortChoice;
  /** AMQP without TLS, as Event Hubs clients want it for `UseDevelopmentEmulator=true`. None by default. */
  plainPort?: PortChoice;
  /** Address to listen on. Default 127.0.0.1. */
  host?: string;
  /** Names that clients know it by, besides those of `hostNames`. */
  moreHostNames?: readonly string[];
  /** A key of its own instead of the well-known one; kept in the state directory. */
  randomKeys?: boolean;
  /** Devices to register. */
  devices?: readonly string[];
  /**
   * Where everything is kept: the certificate authority, the registry, twins, waiting commands and events. Without it
   * each start is a new hub.
   */
  stateDirectory?: string;
  /** What the hub begins with, besides `devices`. */
  seed?: Seed;
  clock?: Clock;
}

/** Starts a local IoT Hub; it is ready when the promise resolves. `await using` stops it at the end of the scope. */
export async function startEmulator(options: EmulatorOptions = {}): Promise<Emulator> {
  const {
    port = 0,
    host = '127.0.0.1',
    httpsPort,
    plainPort,
    devices = [],
    stateDirectory,
    seed,
    moreHostNames = [],
    randomKeys = false,
    commands,
    ...given
  } = options;
  const state = stateDirectory === undefined ? undefined : await StateDirectory.open(stateDirectory);
  const defaults = { ...defaultSettings, ...(randomKeys && { key: await ownKey(state) }) };
  const settings: HubSettings = {
    ...defaults,
    ...given,
    hostNames: [...(given.hostNames ?? defaults.hostNames), ...moreHostNames],
    commands: { ...defaults.commands, ...commands },
  };
  if (!isLoopback(host) && settings.key === wellKnownKey) {
    throw new AgentError('config', `the well-known key is not for ${host}, which others can reach`, {
      hint: 'give the hub a key of its own, or listen on 127.0.0.1',
    });
  }
  const authority = await certificateAuthority(state, settings.clock);
  const server = await serverCertificate(authority, settings);
  const emulator = new Emulator(new Hub(settings), authority);
  await emulator.restore(state, seed, devices);
  await emulator.listen(server, port, host);
  if (httpsPort !== undefined) await emulator.listenHttps(server, httpsPort, host);
  if (plainPort !== undefined) await emulator.listenPlain(plainPort, host);
  return emulator;
}

export class Emulator implements AsyncDisposable {
  /** PEM of the certificate authority that signed the emulator's certificate. */
  readonly ca: string;
  readonly faults: Faults;
  readonly #hub: Hub;
  readonly #authority: CertificateAndKey;
  readonly #connections = new Set<ClientConnection>();
  readonly #listeners: Listener[] = [];
  #snapshots: Snapshots | undefined;
  #port = 0;
  #httpsPort: number | undefined;
  #httpPort: number | undefined;
  #plainPort: number | undefined;
  #connectionsAccepted = 0;

  /** Not for use: `startEmulator` makes them. */
  constructor(hub: Hub, authority: CertificateAndKey) {
    this.#hub = hub;
    this.#authority = authority;
    this.ca = authority.certificate;
    this.faults = new Faults(
      (ending, filter) => {
        let ended = 0;
        for (const connection of [...this.#connections]) ended += connection.end(ending, filter);
        return ended;
      },
      (fault) => {
        hub.record.add({ event: 'fault', fault: JSON.stringify(fault) });
      },
    );
  }

  /** AMQP over TLS. */
  get port(): number {
    return this.#port;
  }

  /** REST and AMQP over WebSocket; undefined unless a port was asked for. */
  get httpsPort(): number | undefined {
    return this.#httpsPort;
  }

  /** Health and control; undefined unless it was asked for. */
  get httpPort(): number | undefined {
    return this.#httpPort;
  }

  /** AMQP without TLS; undefined unless a port was asked for. */
  get plainPort(): number | undefined {
    return this.#plainPort;
  }

  /** Name and port, as connection strings carry them. */
  get hostName(): string {
    // Clients that take no port know the standard one.
    const port = this.#port === 5671 ? '' : `:${this.#port}`;
    return `${this.#hub.settings.hubName}${port}`;
  }

  /** Everything that happened, in order. */
  get record(): HubRecord {
    return this.#hub.record;
  }

  /** The connections that are open now, with their sessions and links. */
  get connections(): ConnectionView[] {
    return [...this.#connections].map(({ view }) => view);
  }

  /** Waits until `found` gives something true of the record. */
  async waitFor<Found>(found: (record: HubRecord) => Found, options?: WaitOptions) {
    return await this.#hub.record.waitFor(found, options);
  }

  /** Moves the hub's clock: locks, expiry and tokens follow at once. */
  jumpClock(ms: number): void {
    this.#hub.clock.jump(ms);
  }

  /** Devices and modules that are registered. */
  get devices(): Device[] {
    return [...this.#hub.devices];
  }

  /** The hub's time, milliseconds since the epoch. */
  now(): number {
    return this.#hub.now();
  }

  /** Lets tokens expire at once, of one device or all; its links are detached. Returns how many there were. */
  expireTokens(deviceId?: string): number {
    return [...this.#connections].reduce((sum, connection) => sum + connection.expireTokens(deviceId), 0);
  }

  addDevice(id: DeviceId | string, authentication?: Authentication): Device {
    return this.#hub.add(typeof id === 'string' ? { deviceId: id } : id, authentication);
  }

  removeDevice(id: DeviceId | string): boolean {
    return this.#hub.remove(typeof id === 'string' ? { deviceId: id } : id);
  }

  setDeviceStatus(id: DeviceId | string, status: 'enabled' | 'disabled'): void {
    this.#hub.setStatus(this.device(id), status);
  }

  /** A registered identity; a `no-device` error when there is none. */
  device(id: DeviceId | string): Device {
    const identity = typeof id === 'string' ? { deviceId: id } : id;
    const device = this.#hub.find(identity.deviceId, identity.moduleId);
    if (device === undefined)
      throw new AgentError('no-device', `no device ${identityKey(identity)} is registered`);
    return device;
  }

  /** Queues a command as a service would; its `iothub-ack` and `to` are made here. */
  sendCommand(command: NewCommand): SendOutcome {
    const { deviceId, moduleId, messageId, body, properties = {}, ack, ...rest } = command;
    const message: HubMessage = {
      ...rest,
      id: messageId,
      correlation: rest.correlationId,
      messageId,
      to: `/devices/${identityKey({ deviceId, moduleId })}/messages/devicebound`,
      properties: ack === undefined ? properties : { ...properties, 'iothub-ack': ack },
      annotations: {},
      body: Buffer.from(body ?? ''),
    };
    const { outcome } = this.#hub.takeCommand(message);
    this.#hub.record.add({
      event: 'command',
      connection: 0,
      deviceId,
      moduleId,
      ...recorded(message),
      outcome,
    });
    return outcome;
  }

  /** How many commands wait for a device, delivered but unsettled ones among them. */
  queueDepth(id: DeviceId | string): number {
    return this.device(id).mailbox.depth;
  }

  /** A certificate for a device that the hub's own authority signs; register it as `certificateAuthority`. */
  async issueDeviceCertificate(deviceId: string): Promise<CertificateAndKey> {
    const { makeCertificate } = await import('./certificates.js');
    return await makeCertificate({
      commonName: deviceId,
      issuer: this.#authority,
      usage: 'client',
      now: Date.now(),
    });
  }

  deviceConnectionString(deviceId: string, moduleId?: string): string {
    const { authentication } = this.device({ deviceId, moduleId });
    const module = moduleId === undefined ? '' : `;ModuleId=${moduleId}`;
    const credential =
      authentication.type === 'sas' ? `SharedAccessKey=${authentication.primaryKey}` : 'x509=true';
    return `HostName=${this.hostName};DeviceId=${deviceId}${module};${credential}`;
  }

  /** Of the policy `iothubowner`, or another one. */
  serviceConnectionString(policyName = 'iothubowner'): string {
    return `HostName=${this.hostName};SharedAccessKeyName=${policyName};SharedAccessKey=${this.#policyKey(policyName)}`;
  }

  get eventHubConnectionString(): string {
    const key = `SharedAccessKeyName=service;SharedAccessKey=${this.#policyKey('service')}`;
    return `Endpoint=sb://${this.hostName}/;${key};EntityPath=${this.#hub.settings.eventHubName}`;
  }

  /** Not for use: part of starting. */
  async listen(tls: CertificateAndKey, port: PortChoice, host: string): Promise<void> {
    const listener = await listenTls(this.#tlsOptions(tls, port, host), (socket) => {
      this.#accept({ socket, transport: 'tls', certificate: certificateOf(socket) });
    });
    this.#listeners.push(listener);
    this.#port = listener.port;
    this.#hub.address = { host: this.#hub.settings.hubName, port: listener.port };
  }

  /** Not for use: part of starting. What was kept, what it is seeded with, what is asked for. */
  async restore(
    state: StateDirectory | undefined,
    seed: Seed | undefined,
    devices: readonly string[],
  ): Promise<void> {
    if (state) {
      const { Snapshots } = await import('./snapshot.js');
      this.#snapshots = await Snapshots.open(this.#hub, state);
    }
    if (seed) {
      const { plant } = await import('./seed.js');
      plant(this.#hub, seed);
    }
    for (const deviceId of devices) if (!this.#hub.find(deviceId)) this.#hub.add({ deviceId });
  }

  /** Not for use: part of starting. Plain TCP, for `UseDevelopmentEmulator=true`. */
  async listenPlain(port: PortChoice, host: string): Promise<void> {
    const listener = await listen({ port, host, faults: this.faults }, (socket) => {
      this.#accept({ socket, transport: 'tcp' });
    });
    this.#listeners.push(listener);
    this.#plainPort = listener.port;
  }

  /** Not for use: part of starting. Health and control, plain HTTP. */
  async listenHttp(port: PortChoice, environment: () => string): Promise<void> {
    const [{ getRequestListener }, { controlApp }] = await Promise.all([
      import('@hono/node-server'),
      import('./control.js'),
    ]);
    const answer = getRequestListener(controlApp(this, environment).fetch);
    const listener = await listenHttp(
      { port, host: '127.0.0.1' },
      (request, response) => void answer(request, response),
    );
    this.#listeners.push(listener);
    this.#httpPort = listener.port;
  }

  /** Not for use: part of starting. REST and AMQP over WebSocket. */
  async listenHttps(tls: CertificateAndKey, port: PortChoice, host: string): Promise<void> {
    const [{ getRequestListener }, { restApp }, { websocketUpgrades }] = await Promise.all([
      import('@hono/node-server'),
      import('./rest/app.js'),
      import('./websocket.js'),
    ]);
    const upgrades = websocketUpgrades((socket, { socket: tlsSocket }) => {
      this.#accept({ socket, transport: 'websocket', certificate: certificateOf(tlsSocket) });
    });
    const answer = getRequestListener(restApp(this.#hub).fetch);
    const listener = await listenHttps(
      this.#tlsOptions(tls, port, host),
      (request, response) => void answer(request, response),
      upgrades,
    );
    this.#listeners.push(listener);
    this.#httpsPort = listener.port;
  }

  #tlsOptions({ key, certificate: cert }: CertificateAndKey, port: PortChoice, host: string) {
    const ca = [this.ca, ...this.#hub.settings.deviceAuthorities];
    return { key, cert, ca, port, host, faults: this.faults };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const connection of this.#connections) connection.drop();
    for (const listener of this.#listeners) await listener[Symbol.asyncDispose]();
    await this.#snapshots?.close();
    this.#hub.stop();
  }

  #accept(peer: Peer): void {
    const number = ++this.#connectionsAccepted;
    const connection = new ClientConnection(number, peer, this.#hub, this.faults);
    this.#connections.add(connection);
    peer.socket.once('close', () => this.#connections.delete(connection));
  }

  #policyKey(name: string): string {
    const policy = this.#hub.policies.get(name);
    if (policy === undefined) throw new AgentError('usage', `there is no policy "${name}"`);
    return policy.primaryKey;
  }
}

export interface NewCommand extends DeviceId {
  messageId?: string;
  body?: string | Buffer;
  properties?: Record<string, string>;
  /** Which feedback is asked for. */
  ack?: 'none' | 'positive' | 'negative' | 'full';
  correlationId?: string;
  contentType?: string;
  contentEncoding?: string;
  /** Milliseconds since the epoch. */
  expiresAt?: number;
}

async function ownKey(state: StateDirectory | undefined): Promise<string> {
  const kept = await state?.read('hub.key');
  if (kept !== undefined) return kept;
  const key = randomBytes(32).toString('base64');
  await state?.write('hub.key', key);
  return key;
}

async function certificateAuthority(
  state: StateDirectory | undefined,
  clock: Clock,
): Promise<CertificateAndKey> {
  const [certificate, key] = [await state?.read('ca.pem'), await state?.read('ca.key')];
  if (certificate !== undefined && key !== undefined) return { certificate, key };
  const { makeCertificate } = await import('./certificates.js');
  const authority = await makeCertificate({
    commonName: 'iothub-emulator CA',
    usage: 'authority',
    now: clock.now(),
  });
  await state?.write('ca.key', authority.key);
  await state?.write('ca.pem', authority.certificate);
  return authority;
}

async function serverCertificate(
  issuer: CertificateAndKey,
  { hostNames, hubName, clock }: HubSettings,
): Promise<CertificateAndKey> {
  const { makeCertificate } = await import('./certificates.js');
  const names = new Set([hubName, ...hostNames.map((name) => name.replace(/^\[|\]$/g, ''))]);
  // The certificate is read by the clients' clocks, not by the hub's.
  const now = Math.min(clock.now(), Date.now());
  return await makeCertificate({
    commonName: hubName,
    issuer,
    hostNames: [...names, '::1'],
    usage: 'server',
    days: 825,
    now,
  });
}

function isLoopback(host: string): boolean {
  return ['localhost', '::1'].includes(host) || host.startsWith('127.');
}
