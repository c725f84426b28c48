import type { Context, Hono } from 'hono';

import type { Device } from '../device.js';
import type { Hub } from '../hub.js';
import type { MethodResult } from '../methods.js';
import { isObject } from '../twin.js';
import type { Json, TwinPatch, TwinResult } from '../twin.js';
import { RestError, checkEtag, jsonObject, requires } from './app.js';
import { existing, idOf, thumbprintsJson } from './registry.js';

/** Twins as the service sees them, and direct methods. */
export function twinRoutes(app: Hono, hub: Hub): void {
  const service = requires(hub, 'ServiceConnect');
  for (const path of ['/twins/:id', '/twins/:id/modules/:module']) {
    app.get(path, service, (c) => answer(c, existing(hub, idOf(c))));
    app.patch(path, service, async (c) => {
      const device = existing(hub, idOf(c));
      checkEtag(c, device.twin.etag);
      accepted(device.twin.patch(patchOf(await jsonObject(c)), hub.now()));
      hub.twinWritten(device);
      return answer(c, device);
    });
    app.put(path, service, async (c) => {
      const device = existing(hub, idOf(c));
      checkEtag(c, device.twin.etag);
      accepted(device.twin.replace(patchOf(await jsonObject(c)), hub.now()));
      hub.twinWritten(device);
      return answer(c, device);
    });
    app.post(`${path}/methods`, service, async (c) => {
      const call = methodCall(await jsonObject(c));
      const result = await existing(hub, idOf(c)).methods.call(call);
      return c.body(methodJson(result), 200, { 'content-type': 'application/json; charset=utf-8' });
    });
  }
}

/** A twin with all that the service sees of it. */
export function twinJson({ twin, ...device }: Device): Json {
  const { deviceId, moduleId, authentication } = device;
  return {
    deviceId,
    ...(moduleId !== undefined && { moduleId }),
    etag: twin.etag,
    deviceEtag: device.etag,
    status: device.status,
    statusReason: device.statusReason,
    statusUpdateTime: '0001-01-01T00:00:00Z',
    connectionState: device.owner === undefined ? 'Disconnected' : 'Connected',
    lastActivityTime: '0001-01-01T00:00:00Z',
    cloudToDeviceMessageCount: device.mailbox.depth,
    authenticationType: authentication.type,
    x509Thumbprint: thumbprintsJson(authentication.type === 'selfSigned' ? authentication : undefined),
    modelId: '',
    version: twin.version,
    tags: twin.tags,
    properties: twin.forService(),
    capabilities: device.capabilities ?? { iotEdge: false },
  };
}

function answer(c: Context, device: Device): Response {
  return c.json(twinJson(device), 200, { ETag: `"${device.twin.etag}"` });
}

function patchOf(body: Json): TwinPatch {
  const { tags, properties } = body;
  const desired = isObject(properties) ? properties['desired'] : undefined;
  return { ...(tags !== undefined && { tags }), ...(desired !== undefined && { desired }) };
}

function accepted(result: TwinResult): void {
  if (!result.ok) throw new RestError(result.status, 'ArgumentInvalid', result.message);
}

function methodCall(body: Json) {
  const { methodName, payload, responseTimeoutInSeconds = 30, connectTimeoutInSeconds = 0 } = body;
  if (typeof methodName !== 'string' || methodName === '') {
    throw new RestError(400, 'ArgumentInvalid', 'methodName is missing');
  }
  const text = JSON.stringify(payload ?? null);
  if (Buffer.byteLength(text) > 128 * 1024) {
    throw new RestError(413, 'MessageTooLarge', 'the payload of a method may have 128 KB');
  }
  return {
    name: methodName,
    payload: text,
    responseTimeoutMs: seconds('responseTimeoutInSeconds', responseTimeoutInSeconds, 5, 300) * 1000,
    connectTimeoutMs: seconds('connectTimeoutInSeconds', connectTimeoutInSeconds, 0, 300) * 1000,
  };
}

function seconds(name: string, value: unknown, least: number, most: number): number {
  const number = Number(value);
  if (number >= least && number <= most) return number;
  throw new RestError(400, 'ArgumentInvalid', `${name} is ${least} to ${most}`);
}

/** The device's payload is passed on as the text that it sent. */
function methodJson(result: MethodResult): string {
  switch (result.result) {
    case 'answered':
      if (result.payload !== '' && !isJson(result.payload)) {
        throw new RestError(502, 'InvalidResponse', "the device's answer is not JSON");
      }
      return `{"status":${result.status},"payload":${result.payload === '' ? 'null' : result.payload}}`;
    case 'offline':
      throw new RestError(404, 'DeviceNotOnline', 'the device does not listen for methods');
    case 'no-answer':
      throw new RestError(504, 'GatewayTimeout', 'the device did not answer in time');
  }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
