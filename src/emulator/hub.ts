import { hubLimits } from '../model.js';
import type { DeviceId, SendOutcome } from '../model.js';
import { covers, derivedKey, policyRights } from './access.js';
import type { KeyRing, Policy } from './access.js';
import { decoded, pathOf } from './addresses.js';
import { HubClock } from './clock.js';
import { identityKey, newEtag, newGenerationId } from './device.js';
import type { Authentication, Device } from './device.js';
import { refusal } from './errors.js';
import type { HubError } from './errors.js';
import { Readers } from './event-links.js';
import { Feedback } from './feedback.js';
import { Files } from './files.js';
import { Mailbox } from './mailbox.js';
import type { DeadReason, Entry } from './mailbox.js';
import { countedBytes } from './message.js';
import type { HubMessage } from './message.js';
import { MethodChannel } from './methods.js';
import { Partitions } from './partitions.js';
import { HubRecord } from './record.js';
import type { RecordedMessage } from './record.js';
import type { HubSettings } from './settings.js';
import { Twin } from './twin.js';

/** The hub itself, without its wire: who exists, what waits for whom, and what happened. */
export class Hub implements KeyRing {
  readonly settings: HubSettings;
  readonly clock: HubClock;
  readonly record: HubRecord;
  readonly policies: ReadonlyMap<string, Policy>;
  readonly feedback: Feedback;
  readonly files: Files;
  readonly partitions: Partitions;
  readonly readers = new Readers();
  /** Where clients reach it; known once it listens. */
  address = { host: 'localhost', port: 5671 };
  readonly #devices = new Map<string, Device>();

  constructor(settings: HubSettings) {
    this.settings = settings;
    this.clock = new HubClock(settings.clock);
    this.record = new HubRecord(() => this.clock.now(), settings.record);
    this.policies = new Map(
      Object.entries(policyRights).map(([name, rights]) => [
        name,
        { name, rights, primaryKey: settings.key, secondaryKey: derivedKey(settings.key, 'secondary') },
      ]),
    );
    this.feedback = new Feedback(this);
    this.files = new Files(this);
    this.partitions = new Partitions(settings.partitions, settings.retention, this.clock);
  }

  now(): number {
    return this.clock.now();
  }

  get tokenGraceMs(): number {
    return this.settings.tokenGraceMs;
  }

  knowsHost(host: string): boolean {
    const name = host.replace(/:\d+$/, '').toLowerCase();
    return this.settings.hostNames.includes(name);
  }

  get devices(): Iterable<Device> {
    return this.#devices.values();
  }

  find(deviceId: string, moduleId?: string): Device | undefined {
    return this.#devices.get(identityKey({ deviceId, moduleId }));
  }

  /** Registers a device, or a module of one; its keys are derived from the hub's when none are given. */
  add(id: DeviceId, authentication?: Authentication): Device {
    const key = identityKey(id);
    const device: Device = {
      deviceId: id.deviceId,
      moduleId: id.moduleId,
      generationId: newGenerationId(this.now()),
      etag: newEtag(),
      status: 'enabled',
      authentication: authentication ?? {
        type: 'sas',
        primaryKey: derivedKey(this.settings.key, key),
        secondaryKey: derivedKey(this.settings.key, `${key}/secondary`),
      },
      twin: new Twin(),
      methods: new MethodChannel(),
      mailbox: new Mailbox<HubMessage>(
        { ...this.settings.commands, capacity: hubLimits.commandQueueDepth },
        this.clock,
        (entry, reason) => {
          this.#commandDied(device, entry, reason);
        },
      ),
    };
    this.#devices.set(key, device);
    this.#registryChanged(device, 'created');
    return device;
  }

  /** Takes an identity away, its modules and its waiting commands with it, and its links. */
  remove(id: DeviceId): boolean {
    const device = this.find(id.deviceId, id.moduleId);
    if (device === undefined) return false;
    const gone =
      id.moduleId === undefined
        ? [...this.#devices.values()].filter(({ deviceId }) => deviceId === id.deviceId)
        : [device];
    for (const each of gone) {
      this.#devices.delete(identityKey(each));
      each.mailbox.stop();
      this.#registryChanged(each, 'deleted');
      each.owner?.yield(
        each,
        refusal('device-unknown', `device ${identityKey(each)} was deleted`, this.now()),
      );
    }
    return true;
  }

  /** Enables or disables; a disabled device loses its links. */
  setStatus(device: Device, status: Device['status'], reason?: string): void {
    device.status = status;
    device.statusReason = reason;
    this.updated(device);
    if (status === 'disabled') device.owner?.yield(device, this.disabledError(device));
  }

  /** An identity was changed: it gets a new etag. */
  updated(device: Device): void {
    device.etag = newEtag();
    this.#registryChanged(device, 'updated');
  }

  /** A module is, when its device is. */
  isDisabled(device: Device): boolean {
    return device.status === 'disabled' || this.find(device.deviceId)?.status === 'disabled';
  }

  disabledError(device: Device): HubError {
    return refusal('device-disabled', `device ${identityKey(device)} is disabled`, this.now());
  }

  /** Device-to-cloud messages of one transfer: all are kept for those who read events, or none. */
  takeTelemetry(device: Device, messages: readonly HubMessage[]): SendOutcome {
    const bytes = messages.reduce((sum, message) => sum + countedBytes(message), 0);
    if (bytes > hubLimits.telemetryBytes) {
      return this.#rejected(
        'message-too-large',
        `${bytes} bytes are more than the 256 KB of a message or batch`,
      );
    }
    const stamps = stampsOf(device);
    const partition = this.partitions.of(device.deviceId);
    for (const message of messages) {
      const annotations = { ...message.annotations, ...stamps };
      partition.append(device.deviceId, { ...message, annotations });
    }
    return { outcome: 'accepted' };
  }

  /** A twin's desired properties or tags were written. */
  twinWritten({ deviceId, moduleId, twin }: Device): void {
    const { version } = twin.desired;
    this.record.add({ event: 'twin', deviceId, moduleId, operation: 'service', version, status: 200 });
  }

  /** A cloud-to-device message from a service: into the mailbox that its `to` names. */
  takeCommand(message: HubMessage): { outcome: SendOutcome; device?: Device | undefined } {
    const id = message.to === undefined ? undefined : recipientOf(message.to);
    if (id === undefined) {
      return {
        outcome: this.#rejected('argument-invalid', `"${message.to ?? ''}" is not the address of a device`),
      };
    }
    const device = this.find(id.deviceId, id.moduleId);
    if (device === undefined) {
      return { outcome: this.#rejected('device-unknown', `there is no device ${identityKey(id)}`) };
    }
    return { outcome: this.#enqueueCommand(device, message), device };
  }

  stop(): void {
    this.clock.stop();
  }

  #enqueueCommand(device: Device, message: HubMessage): SendOutcome {
    if (countedBytes(message) > hubLimits.commandBytes) {
      return this.#rejected('message-too-large', 'a cloud-to-device message may have 64 KB');
    }
    const now = this.now();
    const expiresAt = message.expiresAt ?? now + this.settings.defaultTtlMs;
    if (expiresAt <= now) return this.#rejected('expiry-invalid', 'the message has expired already');
    if (device.mailbox.enqueue(message, expiresAt) === 'full') {
      const depth = hubLimits.commandQueueDepth;
      return this.#rejected('queue-full', `${depth} messages wait for this device; it may have no more`);
    }
    return { outcome: 'accepted' };
  }

  #commandDied(
    device: Device,
    { item, sequenceNumber, deliveryCount }: Entry<HubMessage>,
    reason: DeadReason,
  ): void {
    const { deviceId, moduleId } = device;
    const { messageId } = item;
    this.record.add({
      event: 'dead-letter',
      deviceId,
      moduleId,
      reason,
      messageId,
      sequenceNumber,
      deliveryCount,
    });
    this.feedback.report(device, item, reason);
  }

  #registryChanged({ deviceId, moduleId }: Device, change: 'created' | 'updated' | 'deleted'): void {
    this.record.add({ event: 'registry', deviceId, moduleId, change });
  }

  #rejected(kind: Parameters<typeof refusal>[0], message: string): SendOutcome {
    const { condition, description } = refusal(kind, message, this.now());
    return { outcome: 'rejected', condition, description };
  }
}

/**
 * What the hub writes on every message of a device ("System properties of device-to-cloud messages"); made once per
 * device and way of proving itself, because it goes on every message.
 */
function stampsOf(device: Device): Record<string, string> {
  const { deviceId, moduleId, generationId, authentication } = device;
  const known = stamps.get(authentication);
  if (known?.['iothub-connection-auth-generation-id'] === generationId) return known;
  const type = authentication.type === 'sas' ? 'sas' : 'x509';
  const scope = moduleId === undefined ? 'device' : 'module';
  const made = {
    'iothub-connection-device-id': deviceId,
    ...(moduleId !== undefined && { 'iothub-connection-module-id': moduleId }),
    'iothub-connection-auth-method': JSON.stringify({
      scope,
      type,
      issuer: 'iothub',
      acceptingIpFilterRule: null,
    }),
    'iothub-connection-auth-generation-id': generationId,
    'iothub-message-source': 'Telemetry',
  };
  stamps.set(authentication, made);
  return made;
}

const stamps = new WeakMap<Authentication, Record<string, string>>();

/** The device that a cloud-to-device message's `to` names: `/devices/{id}[/modules/{id}]/messages/devicebound`. */
function recipientOf(to: string): DeviceId | undefined {
  const path = pathOf(to);
  const [, id, , module] = path;
  if (id === undefined) return undefined;
  if (covers(path, ['devices', id, 'messages', 'devicebound'])) return { deviceId: decoded(id) };
  if (module === undefined || !covers(path, ['devices', id, 'modules', module, 'messages', 'devicebound'])) {
    return undefined;
  }
  return { deviceId: decoded(id), moduleId: decoded(module) };
}

/** A message as the record shows it. */
export function recorded({ id: _id, correlation: _correlation, ...message }: HubMessage): RecordedMessage {
  return message;
}
