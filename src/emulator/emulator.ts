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
import type { HubMessage } from './message.js';
import { openPorts } from './ports.js';
import type { PortOptions, Ports } from './ports.js';
import type { HubRecord, RecordEntry, WaitOptions } from './record.js';
import type { Seed } from './seed.js';
import { defaultSettings, wellKnownKey } from './settings.js';
import type { HubSettings } from './settings.js';
import type { Snapshots } from './snapshot.js';
import { StateDirectory } from './state.js';

export type { ConnectionView, Device, HubRecord, RecordEntry };
export type { ActiveFault, Fault, FaultAction, FaultFilter, Faults } from './faults.js';
export { makeTrouble } from './trouble.js';
export type { TroubleOptions } from './trouble.js';
export type { PortOptions } from './ports.js';
export type { HubSettings } from './settings.js';

export interface EmulatorOptions extends PortOptions, Partial<Omit<HubSettings, 'commands'>> {
  commands?: Partial<HubSettings['commands']>;
  /** Names that clients know it by, besides those of `hostNames`. */
  moreHostNames?: readonly string[];
  /** A key of its own instead of the well-known one; kept in the state directory. */
  randomKeys?: boolean;
  /** Devices to register. */
  devices?: readonly string[];
  /** What the hub begins with, besides `devices`. */
  seed?: Seed;
  /**
   * Where everything is kept: the certificate authority, the registry, twins, waiting commands and events. Without it
   * each start is a new hub.
   */
  stateDirectory?: string;
}

/** Starts a local IoT Hub; it is ready when the promise resolves. `await using` stops it at the end of the scope. */
export async function startEmulator(options: EmulatorOptions = {}): Promise<Emulator> {
  const { stateDirectory } = options;
  const state = stateDirectory === undefined ? undefined : await StateDirectory.open(stateDirectory);
  const settings = await settingsOf(options, state);
  const authority = await certificateAuthority(state, settings.clock);
  const server = await serverCertificate(authority, settings);

  const hub = new Hub(settings);
  const snapshots = await fill(hub, state, options);
  const connections = new Set<ClientConnection>();
  const faults = faultsOn(hub, connections);
  let accepted = 0;
  const accept = (peer: Peer): void => {
    const connection = new ClientConnection(++accepted, peer, hub, faults);
    connections.add(connection);
    peer.socket.once('close', () => connections.delete(connection));
  };
  const authorities = [authority.certificate, ...settings.deviceAuthorities];
  const ports = await openPorts(options, { hub, faults, server, authorities, accept });
  hub.address = { host: settings.hubName, port: ports.amqps };
  return new Emulator({ hub, faults, authority, ports, connections, snapshots });
}

/** What an emulator is made of. */
interface Parts {
  hub: Hub;
  faults: Faults;
  authority: CertificateAndKey;
  ports: Ports;
  connections: ReadonlySet<ClientConnection>;
  snapshots: Snapshots | undefined;
}

/** A running emulator; `startEmulator` makes them. */
export class Emulator implements AsyncDisposable {
  /** PEM of the certificate authority that signed the emulator's certificate. */
  readonly ca: string;
  readonly faults: Faults;
  readonly #hub: Hub;
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#hub = parts.hub;
    this.faults = parts.faults;
    this.ca = parts.authority.certificate;
  }

  /** AMQP over TLS. */
  get port(): number {
    return this.#parts.ports.amqps;
  }

  /** REST and AMQP over WebSocket; undefined unless a port was asked for. */
  get httpsPort(): number | undefined {
    return this.#parts.ports.https;
  }

  /** AMQP without TLS; undefined unless a port was asked for. */
  get plainPort(): number | undefined {
    return this.#parts.ports.plain;
  }

  /** Name and port, as connection strings carry them. */
  get hostName(): string {
    // Clients that take no port know the standard one.
    const port = this.port === 5671 ? '' : `:${this.port}`;
    return `${this.#hub.settings.hubName}${port}`;
  }

  /** Everything that happened, in order. */
  get record(): HubRecord {
    return this.#hub.record;
  }

  /** The connections that are open now, with their sessions and links. */
  get connections(): ConnectionView[] {
    return [...this.#parts.connections].map(({ view }) => view);
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
    return [...this.#parts.connections].reduce(
      (sum, connection) => sum + connection.expireTokens(deviceId),
      0,
    );
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

  /** What a device uploaded under this name; undefined when it did not, or a long time ago. */
  file(deviceId: string, name: string): Buffer | undefined {
    return this.#hub.files.read(`${deviceId}/${name}`);
  }

  /** A certificate for a device that the hub's own authority signs; register it as `certificateAuthority`. */
  async issueDeviceCertificate(deviceId: string): Promise<CertificateAndKey> {
    const { makeCertificate } = await import('./certificates.js');
    return await makeCertificate({
      commonName: deviceId,
      issuer: this.#parts.authority,
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

  async [Symbol.asyncDispose](): Promise<void> {
    const { connections, ports, snapshots } = this.#parts;
    for (const connection of connections) connection.drop();
    await ports[Symbol.asyncDispose]();
    await snapshots?.close();
    this.#hub.stop();
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

async function settingsOf(options: EmulatorOptions, state: StateDirectory | undefined): Promise<HubSettings> {
  const { commands, moreHostNames = [], randomKeys = false, host = '127.0.0.1' } = options;
  const settings: HubSettings = {
    ...defaultSettings,
    ...(randomKeys && { key: await ownKey(state) }),
    ...pick(options, Object.keys(defaultSettings) as (keyof HubSettings)[]),
    commands: { ...defaultSettings.commands, ...commands },
  };
  if (!isLoopback(host) && settings.key === wellKnownKey) {
    throw new AgentError('config', `the well-known key is not for ${host}, which others can reach`, {
      hint: 'give the hub a key of its own (--random-keys), or listen on 127.0.0.1',
    });
  }
  return { ...settings, hostNames: [...settings.hostNames, ...moreHostNames] };
}

function pick<Value extends object>(value: Value, names: readonly (keyof Value)[]): Partial<Value> {
  return Object.fromEntries(
    names.filter((name) => value[name] !== undefined).map((name) => [name, value[name]]),
  ) as Partial<Value>;
}

/** What was kept, what it is seeded with, what is asked for. */
async function fill(
  hub: Hub,
  state: StateDirectory | undefined,
  { seed, devices = [] }: EmulatorOptions,
): Promise<Snapshots | undefined> {
  const snapshots = state && (await (await import('./snapshot.js')).Snapshots.open(hub, state));
  if (seed) (await import('./seed.js')).plant(hub, seed);
  for (const deviceId of devices) if (!hub.find(deviceId)) hub.add({ deviceId });
  return snapshots;
}

function faultsOn(hub: Hub, connections: ReadonlySet<ClientConnection>): Faults {
  return new Faults(
    (ending, filter) => {
      let ended = 0;
      for (const connection of [...connections]) ended += connection.end(ending, filter);
      return ended;
    },
    (fault) => {
      hub.record.add({ event: 'fault', fault: JSON.stringify(fault) });
    },
  );
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
