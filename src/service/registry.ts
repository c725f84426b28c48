import type { DeviceId } from '../model.js';
import { path, type RestClient } from './rest.js';

/** An identity in the hub's registry, as far as it is looked at here; the rest is passed through. */
export interface RegisteredDevice extends DeviceId {
  etag?: string;
  generationId?: string;
  status?: 'enabled' | 'disabled';
  statusReason?: string | null;
  connectionState?: string;
  authentication?: {
    type?: 'sas' | 'selfSigned' | 'certificateAuthority' | 'none';
    symmetricKey?: { primaryKey?: string | null; secondaryKey?: string | null };
    x509Thumbprint?: { primaryThumbprint?: string | null; secondaryThumbprint?: string | null };
  };
  [more: string]: unknown;
}

/** What a new device is, or what of one is changed. */
export type DeviceFields = Partial<
  Pick<RegisteredDevice, 'status' | 'statusReason' | 'authentication' | 'capabilities'>
>;

/** The identity registry of a hub. */
export class Registry {
  readonly #rest: RestClient;

  constructor(rest: RestClient) {
    this.#rest = rest;
  }

  async get(id: DeviceId, signal: AbortSignal): Promise<RegisteredDevice> {
    const { text } = await this.#rest.send({ method: 'GET', path: devicePath(id) }, signal);
    return JSON.parse(text) as RegisteredDevice;
  }

  /** Registers a device or module. The hub makes the keys that are not given. Errors: `data` when it is there. */
  async add(id: DeviceId, fields: DeviceFields, signal: AbortSignal): Promise<RegisteredDevice> {
    return await this.#put(id, { ...fields, ...id }, {}, signal);
  }

  /** Changes these fields and leaves the others. */
  async set(id: DeviceId, fields: DeviceFields, signal: AbortSignal): Promise<RegisteredDevice> {
    const device = await this.get(id, signal);
    const { etag = '*' } = device;
    // What somebody else changed meanwhile is not written over.
    return await this.#put(id, { ...device, ...fields }, { 'if-match': `"${etag}"` }, signal);
  }

  async remove(id: DeviceId, signal: AbortSignal): Promise<void> {
    await this.#rest.send({ method: 'DELETE', path: devicePath(id), headers: { 'if-match': '"*"' } }, signal);
  }

  /** Takes all commands off the queue of a device. Resolves with how many there were. */
  async purge(deviceId: string, signal: AbortSignal): Promise<number> {
    const request = { method: 'DELETE', path: path('devices', deviceId, 'commands') } as const;
    const { text } = await this.#rest.send(request, signal);
    return (JSON.parse(text) as { totalMessagesPurged?: number }).totalMessagesPurged ?? 0;
  }

  /** What a query finds, page by page ("IoT Hub query language"). */
  async *query(sql: string, signal: AbortSignal): AsyncGenerator<Record<string, unknown>, void, undefined> {
    let continuation: string | undefined;
    do {
      const { headers, text } = await this.#rest.send(
        {
          method: 'POST',
          path: '/devices/query',
          headers: {
            'x-ms-max-item-count': '100',
            ...(continuation === undefined ? {} : { 'x-ms-continuation': continuation }),
          },
          body: JSON.stringify({ query: sql }),
        },
        signal,
      );
      yield* JSON.parse(text) as Record<string, unknown>[];
      continuation = headers['x-ms-continuation']?.toString();
    } while (continuation !== undefined);
  }

  async #put(
    id: DeviceId,
    device: RegisteredDevice,
    headers: Record<string, string>,
    signal: AbortSignal,
  ): Promise<RegisteredDevice> {
    const request = { method: 'PUT', path: devicePath(id), headers, body: JSON.stringify(device) } as const;
    const { text } = await this.#rest.send(request, signal);
    return JSON.parse(text) as RegisteredDevice;
  }
}

function devicePath({ deviceId, moduleId }: DeviceId): string {
  const device = path('devices', deviceId);
  return moduleId === undefined ? device : `${device}${path('modules', moduleId)}`;
}
