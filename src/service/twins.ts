import { AgentError } from '../errors.js';
import { memberText } from '../json-member.js';
import type { DeviceId } from '../model.js';
import { path, type RestClient } from './rest.js';

export interface TwinChange {
  /** JSON text of an object: what is desired. */
  desired?: string | undefined;
  /** JSON text of an object. */
  tags?: string | undefined;
  /** Only if the twin still has this etag. */
  etag?: string | undefined;
  /** Put it in the place of what is there, instead of merging it in. */
  replace?: boolean | undefined;
}

/** A call of a direct method. */
export interface MethodCall {
  name: string;
  /** JSON text. Default null. */
  payload?: string | undefined;
  /** Seconds that the device may take to answer, 5 to 300. Default 30. */
  responseTimeoutSeconds?: number | undefined;
  /** Seconds to wait for a device that is not there, 0 to 300. Default 0. */
  connectTimeoutSeconds?: number | undefined;
}

export interface MethodAnswer {
  /** As the device chose it. */
  status: number;
  /** JSON text, as the device wrote it. */
  payload: string;
}

/** Twins and direct methods from the hub's side. Twins are JSON text, as the hub wrote it. */
export class Twins {
  readonly #rest: RestClient;

  constructor(rest: RestClient) {
    this.#rest = rest;
  }

  async get(id: DeviceId, signal: AbortSignal): Promise<string> {
    const { text } = await this.#rest.send({ method: 'GET', path: twinPath(id) }, signal);
    return text;
  }

  /** Changes the twin; resolves with the whole of it. Errors: `try-again` when the etag is another. */
  async change(id: DeviceId, change: TwinChange, signal: AbortSignal): Promise<string> {
    const { replace = false } = change;
    const { desired, tags, etag = '*' } = replace ? await this.#completed(id, change, signal) : change;
    const parts = [
      ...(tags === undefined ? [] : [`"tags":${tags}`]),
      ...(desired === undefined ? [] : [`"properties":{"desired":${desired}}`]),
    ];
    const { text } = await this.#rest.send(
      {
        method: replace ? 'PUT' : 'PATCH',
        path: twinPath(id),
        headers: { 'if-match': `"${etag}"` },
        body: `{${parts.join(',')}}`,
      },
      signal,
    );
    return text;
  }

  /**
   * Calls a method of a device and waits for its answer. Errors: `unavailable` when the device is not there, or does
   * not answer in time.
   */
  async call(id: DeviceId, call: MethodCall, signal: AbortSignal): Promise<MethodAnswer> {
    const { name, payload = 'null', responseTimeoutSeconds = 30, connectTimeoutSeconds = 0 } = call;
    const { text } = await this.#rest.send(
      {
        method: 'POST',
        path: `${twinPath(id)}/methods`,
        body:
          `{"methodName":${JSON.stringify(name)},"payload":${payload},` +
          `"responseTimeoutInSeconds":${String(responseTimeoutSeconds)},` +
          `"connectTimeoutInSeconds":${String(connectTimeoutSeconds)}}`,
        answerWithinMs: (responseTimeoutSeconds + connectTimeoutSeconds) * 1000 + graceMs,
        once: true,
      },
      signal,
    );
    const { status } = JSON.parse(text) as { status?: unknown };
    if (typeof status !== 'number') throw new AgentError('protocol', 'the hub answered without a status');
    return { status, payload: memberText(text, 'payload') ?? 'null' };
  }

  /** To replace is to replace all, so what is not named is put back as it is; and only if it still is. */
  async #completed(
    id: DeviceId,
    { desired, tags, etag }: TwinChange,
    signal: AbortSignal,
  ): Promise<TwinChange> {
    const text = await this.get(id, signal);
    const twin = JSON.parse(text) as { etag?: string; properties?: { desired?: object } };
    const own = Object.entries(twin.properties?.desired ?? {}).filter(([name]) => !name.startsWith('$'));
    return {
      desired: desired ?? JSON.stringify(Object.fromEntries(own)),
      tags: tags ?? memberText(text, 'tags') ?? '{}',
      etag: etag ?? twin.etag,
    };
  }
}

/** The hub keeps the time itself; this is for what is between. */
const graceMs = 10_000;

function twinPath({ deviceId, moduleId }: DeviceId): string {
  const device = path('twins', deviceId);
  return moduleId === undefined ? device : `${device}${path('modules', moduleId)}`;
}
