import { randomBytes } from 'node:crypto';

import type { DeviceId } from '../model.js';
import type { HubError } from './errors.js';
import type { Mailbox } from './mailbox.js';
import type { HubMessage } from './message.js';
import type { MethodChannel } from './methods.js';
import type { Twin } from './twin.js';

/** How a device or module proves who it is. */
export type Authentication =
  | { type: 'sas'; primaryKey: string; secondaryKey: string }
  /** SHA-1 (or SHA-256) thumbprints of its certificate, in hex. */
  | { type: 'selfSigned'; primaryThumbprint: string; secondaryThumbprint: string }
  /** A chain to one of the hub's device CAs, with its id as the common name. */
  | { type: 'certificateAuthority' }
  | { type: 'none' };

/** An identity in the hub's registry: a device, or a module of one. */
export interface Device extends DeviceId {
  /** Tells this identity from an earlier one with the same id. */
  readonly generationId: string;
  etag: string;
  status: 'enabled' | 'disabled';
  statusReason?: string | undefined;
  authentication: Authentication;
  capabilities?: { iotEdge: boolean };
  /** Of an edge device its own, of another the edge device's that it is a child of. */
  deviceScope?: string | undefined;
  parentScopes?: string[] | undefined;
  readonly mailbox: Mailbox<HubMessage>;
  readonly twin: Twin;
  readonly methods: MethodChannel;
  /** The connection that speaks for it; a newer one takes over. */
  owner?: DeviceOwner | undefined;
}

export interface DeviceOwner {
  /** Detaches the device's links there, telling why. */
  yield(device: Device, why: HubError): void;
}

/** The key of an identity in the registry. */
export function identityKey({ deviceId, moduleId }: DeviceId): string {
  return moduleId === undefined ? deviceId : `${deviceId}/modules/${moduleId}`;
}

/** The characters that IoT Hub allows in ids of devices, modules and messages, at most 128 of them. */
export function isValidId(id: string): boolean {
  return /^[A-Za-z0-9\-:.+%_#*?!(),=@;$']{1,128}$/.test(id);
}

export function newEtag(): string {
  return randomBytes(8).toString('base64');
}

/** The hub's own look: eighteen digits that grow with time. */
export function newGenerationId(now: number): string {
  return String(now * 10_000 + (randomBytes(2).readUInt16BE() % 10_000)).padStart(18, '6');
}
