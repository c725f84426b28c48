import { randomBytes } from 'node:crypto';
import type { Context, Hono } from 'hono';

import { isValidId } from '../device.js';
import type { Authentication, Device } from '../device.js';
import type { DeviceId } from '../../model.js';
import type { Hub } from '../hub.js';
import { isObject } from '../twin.js';
import type { Json } from '../twin.js';
import { RestError, checkEtag, jsonBody, jsonObject, parameter, requires } from './app.js';

/** The identity registry: devices, modules, bulk changes, statistics, and the purge of a command queue. */
export function registryRoutes(app: Hono, hub: Hub): void {
  const read = requires(hub, 'RegistryRead');
  const write = requires(hub, 'RegistryWrite');
  const service = requires(hub, 'ServiceConnect');

  app.get('/statistics/devices', read, (c) => c.json(statistics(hub)));
  app.get('/statistics/service', service, (c) => c.json({ connectedDeviceCount: connectedDevices(hub) }));
  app.get('/devices', read, (c) => {
    const top = Number(c.req.query('top') ?? 1000);
    return c.json(rootDevices(hub).slice(0, Math.min(top, 1000)).map(deviceJson));
  });
  app.post('/devices', write, async (c) => c.json(bulk(hub, await jsonBody(c))));
  app.delete('/devices/:id/commands', service, (c) => {
    const device = existing(hub, { deviceId: parameter(c, 'id') });
    return c.json({ totalMessagesPurged: device.mailbox.purge(), deviceId: device.deviceId, moduleId: null });
  });
  app.get('/devices/:id/modules', read, (c) => {
    const { deviceId } = existing(hub, { deviceId: parameter(c, 'id') });
    const modules = [...hub.devices].filter(
      (each) => each.deviceId === deviceId && each.moduleId !== undefined,
    );
    return c.json(modules.map(deviceJson));
  });
  for (const path of ['/devices/:id', '/devices/:id/modules/:module']) {
    app.get(path, read, (c) => answer(c, existing(hub, idOf(c))));
    app.put(path, write, async (c) => answer(c, put(c, hub, idOf(c), await jsonObject(c))));
    app.delete(path, write, (c) => {
      const device = existing(hub, idOf(c));
      checkEtag(c, device.etag);
      hub.remove(device);
      return c.body(null, 204);
    });
  }
}

/** The identity that a path names. */
export function idOf(c: Context): DeviceId {
  const moduleId = c.req.param('module');
  return { deviceId: parameter(c, 'id'), moduleId };
}

export function existing(hub: Hub, { deviceId, moduleId }: DeviceId): Device {
  const device = hub.find(deviceId, moduleId);
  if (device !== undefined) return device;
  throw moduleId === undefined || hub.find(deviceId) === undefined
    ? new RestError(404, 'DeviceNotFound', `device "${deviceId}" is not registered`)
    : new RestError(404, 'ModuleNotFound', `module "${moduleId}" is not registered on device "${deviceId}"`);
}

/** Devices, without their modules. */
export function rootDevices(hub: Hub): Device[] {
  return [...hub.devices].filter(({ moduleId }) => moduleId === undefined);
}

function answer(c: Context, device: Device): Response {
  return c.json(deviceJson(device), 200, { ETag: `"${device.etag}"` });
}

/** Creates without `If-Match`, updates with it. */
function put(c: Context, hub: Hub, id: DeviceId, body: Json): Device {
  const named = { deviceId: body['deviceId'], moduleId: body['moduleId'] ?? undefined };
  if (named.deviceId !== id.deviceId || (id.moduleId !== undefined && named.moduleId !== id.moduleId)) {
    throw new RestError(400, 'ArgumentInvalid', 'the body names another identity than the address');
  }
  if (c.req.header('if-match') === undefined) return create(hub, id, body);
  const device = existing(hub, id);
  checkEtag(c, device.etag);
  return update(hub, device, body);
}

function create(hub: Hub, id: DeviceId, body: Json): Device {
  if (!isValidId(id.deviceId) || (id.moduleId !== undefined && !isValidId(id.moduleId))) {
    throw new RestError(400, 'ArgumentInvalid', 'the id has a character that no id may have, or is too long');
  }
  if (id.moduleId !== undefined) existing(hub, { deviceId: id.deviceId });
  if (hub.find(id.deviceId, id.moduleId) !== undefined) {
    const code = id.moduleId === undefined ? 'DeviceAlreadyExists' : 'ModuleAlreadyExistsOnDevice';
    throw new RestError(409, code, `"${id.moduleId ?? id.deviceId}" is registered already`);
  }
  const device = hub.add(id, authenticationOf(body['authentication'], undefined));
  applyStatus(hub, device, body);
  device.capabilities = capabilitiesOf(body);
  applyScopes(device, body);
  return device;
}

/** An edge device has a scope of its own; others may be given one when they are created. */
function applyScopes(device: Device, body: Json): void {
  const { deviceScope, parentScopes } = body;
  const given = typeof deviceScope === 'string' && deviceScope !== '' ? deviceScope : undefined;
  const isEdge = device.capabilities?.iotEdge === true;
  device.deviceScope = isEdge ? `ms-azure-iot-edge://${device.deviceId}-${device.generationId}` : given;
  if (Array.isArray(parentScopes)) device.parentScopes = parentScopes.map(String);
  else if (!isEdge && given !== undefined) device.parentScopes = [given];
}

function update(hub: Hub, device: Device, body: Json): Device {
  const { deviceScope } = body;
  if (typeof deviceScope === 'string' && deviceScope !== '' && deviceScope !== device.deviceScope) {
    throw new RestError(400, 'ArgumentInvalid', 'the scope of a device cannot be changed');
  }
  device.authentication = authenticationOf(body['authentication'], device.authentication);
  device.capabilities = capabilitiesOf(body);
  hub.updated(device);
  applyStatus(hub, device, body);
  return device;
}

function applyStatus(hub: Hub, device: Device, body: Json): void {
  const { status, statusReason } = body;
  if (status !== 'enabled' && status !== 'disabled') return;
  if (status === device.status && statusReason === device.statusReason) return;
  hub.setStatus(device, status, typeof statusReason === 'string' ? statusReason : undefined);
}

function capabilitiesOf(body: Json): { iotEdge: boolean } {
  const { capabilities } = body;
  return { iotEdge: isObject(capabilities) && capabilities['iotEdge'] === true };
}

/** Keys that are empty or missing are kept from before, or made. */
function authenticationOf(given: unknown, before: Authentication | undefined): Authentication {
  const fields = isObject(given) ? given : {};
  const thumbprints = isObject(fields['x509Thumbprint']) ? fields['x509Thumbprint'] : undefined;
  const keys = isObject(fields['symmetricKey']) ? fields['symmetricKey'] : {};
  const type =
    fields['type'] ?? (thumbprints?.['primaryThumbprint'] ? 'selfSigned' : (before?.type ?? 'sas'));
  switch (type) {
    case 'certificateAuthority':
      return { type: 'certificateAuthority' };
    case 'none':
      return { type: 'none' };
    case 'selfSigned': {
      const old = before?.type === 'selfSigned' ? before : undefined;
      const thumbprint = (name: 'primaryThumbprint' | 'secondaryThumbprint'): string =>
        textOr(thumbprints?.[name], old?.[name] ?? '');
      return {
        type: 'selfSigned',
        primaryThumbprint: thumbprint('primaryThumbprint'),
        secondaryThumbprint: thumbprint('secondaryThumbprint'),
      };
    }
    case 'sas': {
      const old = before?.type === 'sas' ? before : undefined;
      const key = (name: 'primaryKey' | 'secondaryKey'): string =>
        textOr(keys[name], old?.[name] ?? randomBytes(32).toString('base64'));
      return {
        type: 'sas',
        primaryKey: checkedKey(key('primaryKey')),
        secondaryKey: checkedKey(key('secondaryKey')),
      };
    }
    default:
      throw new RestError(
        400,
        'ArgumentInvalid',
        'authentication.type is sas, selfSigned, certificateAuthority or none',
      );
  }
}

function textOr(value: unknown, fallback: string): string {
  return typeof value === 'string' && value !== '' ? value : fallback;
}

function checkedKey(key: string): string {
  const bytes = Buffer.from(key, 'base64').length;
  if (/^[A-Za-z0-9+/]+={0,2}$/.test(key) && bytes >= 16 && bytes <= 64) return key;
  throw new RestError(400, 'ArgumentInvalid', 'a symmetric key is base64 of 16 to 64 bytes');
}

interface BulkError {
  deviceId: string;
  errorCode: string;
  errorStatus: string;
}

function bulk(hub: Hub, body: unknown): Json {
  if (!Array.isArray(body)) throw new RestError(400, 'ArgumentInvalid', 'the body is not a JSON array');
  if (body.length > 100) throw new RestError(400, 'TooManyDevices', 'a bulk operation may have 100 devices');
  const errors: BulkError[] = [];
  for (const entry of body.filter(isObject)) {
    const deviceId = textOr(entry['id'], '');
    try {
      change(hub, { deviceId, moduleId: entry['moduleId'] as string | undefined }, entry);
    } catch (error) {
      if (!(error instanceof RestError)) throw error;
      errors.push({ deviceId, errorCode: error.code, errorStatus: error.message });
    }
  }
  return { isSuccessful: errors.length === 0, errors, warnings: [] };
}

function change(hub: Hub, id: DeviceId, entry: Json): void {
  const mode = textOr(entry['importMode'], 'create').toLowerCase();
  if (mode === 'create') {
    create(hub, id, entry);
    return;
  }
  const device = existing(hub, id);
  if (mode.endsWith('ifmatchetag') && entry['etag'] !== device.etag) {
    throw new RestError(412, 'PreconditionFailed', 'the etag is another');
  }
  if (mode.startsWith('update')) update(hub, device, entry);
  else if (mode.startsWith('delete')) hub.remove(device);
  else throw new RestError(400, 'ArgumentInvalid', `there is no import mode "${mode}"`);
}

function statistics(hub: Hub): Json {
  const devices = rootDevices(hub);
  const enabled = devices.filter(({ status }) => status === 'enabled').length;
  return {
    totalDeviceCount: devices.length,
    enabledDeviceCount: enabled,
    disabledDeviceCount: devices.length - enabled,
  };
}

function connectedDevices(hub: Hub): number {
  return rootDevices(hub).filter(({ owner }) => owner !== undefined).length;
}

const never = '0001-01-01T00:00:00Z';

export function deviceJson(device: Device): Json {
  const { deviceId, moduleId, authentication } = device;
  const sas = authentication.type === 'sas' ? authentication : undefined;
  const x509 = authentication.type === 'selfSigned' ? authentication : undefined;
  return {
    deviceId,
    ...(moduleId !== undefined && { moduleId, managedBy: null }),
    generationId: device.generationId,
    etag: device.etag,
    connectionState: device.owner === undefined ? 'Disconnected' : 'Connected',
    ...(moduleId === undefined && { status: device.status, statusReason: device.statusReason ?? null }),
    connectionStateUpdatedTime: never,
    ...(moduleId === undefined && { statusUpdatedTime: never }),
    lastActivityTime: never,
    cloudToDeviceMessageCount: device.mailbox.depth,
    authentication: {
      symmetricKey: { primaryKey: sas?.primaryKey ?? null, secondaryKey: sas?.secondaryKey ?? null },
      x509Thumbprint: thumbprintsJson(x509),
      type: authentication.type,
    },
    ...(moduleId === undefined && { capabilities: device.capabilities ?? { iotEdge: false } }),
    ...(device.deviceScope !== undefined && { deviceScope: device.deviceScope }),
    ...(device.parentScopes !== undefined && { parentScopes: device.parentScopes }),
  };
}

export function thumbprintsJson(
  x509: { primaryThumbprint: string; secondaryThumbprint: string } | undefined,
): Json {
  return {
    primaryThumbprint: x509?.primaryThumbprint ?? null,
    secondaryThumbprint: x509?.secondaryThumbprint ?? null,
  };
}
