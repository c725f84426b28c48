import { createHmac, randomUUID, timingSafeEqual } from 'node:crypto';

import type { Device } from './device.js';
import type { Hub } from './hub.js';
import { Mailbox } from './mailbox.js';
import type { HubMessage } from './message.js';
import { serviceBound, serviceBoundTtlMs } from './service-bound.js';

/** Most uploads that a device may have begun and not ended ("Upload files with IoT Hub"). */
const uploadsPerDevice = 10;
const uploadTtlMs = 3_600_000;
/** What all blobs together may take; the oldest go first. */
const storeBytes = 256 * 1024 * 1024;

/**
 * Files that devices upload: begun at the hub, written to a blob store with what the hub gave for that, ended at the hub,
 * which then tells a service. The store is part of the emulator: a map.
 */
export class Files {
  /** What services are told, each thing once. */
  readonly notifications: Mailbox<HubMessage>;
  readonly #hub: Hub;
  readonly #uploads = new Map<string, Upload>();
  readonly #blobs = new Map<string, Blob>();

  constructor(hub: Hub) {
    this.#hub = hub;
    this.notifications = new Mailbox({ ...hub.settings.commands, capacity: Infinity }, hub.clock, () => {
      // Nobody is told of what nobody wanted to know.
    });
  }

  /** Begins an upload: gives what the blob is written with, for an hour. */
  begin({ deviceId }: Device, name: string): BegunUpload | 'too many' {
    const now = this.#hub.now();
    for (const [id, { endsAt }] of this.#uploads) if (endsAt <= now) this.#uploads.delete(id);
    const own = [...this.#uploads.values()].filter((upload) => upload.deviceId === deviceId);
    if (own.length >= uploadsPerDevice) return 'too many';
    const correlationId = randomUUID();
    const blobName = `${deviceId}/${name}`;
    this.#uploads.set(correlationId, { deviceId, blobName, endsAt: now + uploadTtlMs });
    const expiry = new Date(now + uploadTtlMs).toISOString();
    const query = new URLSearchParams({
      ...{ sv: '2021-04-10', sr: 'b', sp: 'rw', se: expiry },
      sig: this.#signature(blobName, expiry),
    });
    return { correlationId, blobName, sasToken: `?${query.toString()}` };
  }

  /** Whether the query of a blob's address carries a signature of the hub that is still good. */
  allows(blobName: string, query: Record<string, string>): boolean {
    const { se = '', sig = '' } = query;
    const [given, wanted] = [Buffer.from(sig), Buffer.from(this.#signature(blobName, se))];
    const isSigned = given.length === wanted.length && timingSafeEqual(given, wanted);
    return isSigned && Date.parse(se) > this.#hub.now();
  }

  write(blobName: string, content: Buffer): void {
    this.#blobs.delete(blobName);
    this.#blobs.set(blobName, { content, writtenAt: this.#hub.now() });
    let bytes = 0;
    for (const [name, blob] of [...this.#blobs].reverse()) {
      bytes += blob.content.length;
      if (bytes > storeBytes && name !== blobName) this.#blobs.delete(name);
    }
  }

  read(blobName: string): Buffer | undefined {
    return this.#blobs.get(blobName)?.content;
  }

  /** Ends an upload; when it succeeded, services are told. False when the device has begun none of this id. */
  end(device: Device, correlationId: string, { succeeded, store }: UploadEnd): boolean {
    const upload = this.#uploads.get(correlationId);
    if (upload?.deviceId !== device.deviceId) return false;
    this.#uploads.delete(correlationId);
    const { deviceId, blobName } = upload;
    const blob = this.#blobs.get(blobName);
    const bytes = blob?.content.length ?? 0;
    this.#hub.record.add({ event: 'file', deviceId, blobName, bytes, succeeded });
    if (!succeeded) return true;
    const now = this.#hub.now();
    const notification = {
      deviceId,
      blobUri: `${store}/${blobName}`,
      blobName,
      lastUpdatedTime: new Date(blob?.writtenAt ?? now).toISOString(),
      blobSizeInBytes: bytes,
      enqueuedTimeUtc: new Date(now).toISOString(),
    };
    const message = serviceBound(this.#hub, 'filenotifications', notification);
    this.notifications.enqueue(message, now + serviceBoundTtlMs);
    return true;
  }

  #signature(blobName: string, expiry: string): string {
    const key = Buffer.from(this.#hub.settings.key, 'base64');
    return createHmac('sha256', key).update(`${blobName}\n${expiry}`).digest('base64');
  }
}

interface Upload {
  deviceId: string;
  blobName: string;
  /** Milliseconds since the epoch. */
  endsAt: number;
}

interface Blob {
  content: Buffer;
  /** Milliseconds since the epoch. */
  writtenAt: number;
}

/** What a device is told that begins an upload, but for where the store is. */
export interface BegunUpload {
  correlationId: string;
  /** `{device}/{name}`. */
  blobName: string;
  /** From its `?` on. */
  sasToken: string;
}

export interface UploadEnd {
  succeeded: boolean;
  /** Address of the container, without a slash at its end. */
  store: string;
}
