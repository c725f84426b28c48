import type { IncomingMessage } from 'node:http';
import type { Context, Hono, MiddlewareHandler } from 'hono';

import { certifies, covers, verifyToken } from '../access.js';
import { decoded, pathOf } from '../addresses.js';
import type { Device } from '../device.js';
import type { Hub } from '../hub.js';
import { certificateOf } from '../listener.js';
import { RestError, jsonObject, parameter } from './app.js';
import { existing } from './registry.js';

/** The container that all files go to, as a blob store addresses it. */
const container = 'uploads';

/** File upload, both sides of it: what the hub answers to devices, and the blob store that it sends them to. */
export function fileRoutes(app: Hono, hub: Hub): void {
  const isDevice = requiresDevice(hub);
  app.post('/devices/:id/files', isDevice, async (c) => {
    const { blobName } = await jsonObject(c);
    if (typeof blobName !== 'string' || blobName === '' || blobName.length > 1024) {
      throw new RestError(400, 'ArgumentInvalid', 'blobName is a text of 1 to 1024 characters');
    }
    const begun = hub.files.begin(deviceOf(c, hub), blobName);
    if (begun !== 'too many') return c.json({ ...begun, hostName: hostOf(c), containerName: container });
    const text = 'ten uploads of this device have not ended';
    throw new RestError(403, 'DeviceMaximumActiveFileUploadLimitExceeded', text);
  });
  // The id is in the body, or with older clients in the address.
  for (const path of ['/devices/:id/files/notifications', '/devices/:id/files/notifications/:upload']) {
    app.post(path, isDevice, async (c) => {
      const { correlationId, isSuccess } = await jsonObject(c);
      const id = c.req.param('upload') ?? (typeof correlationId === 'string' ? correlationId : '');
      const end = { succeeded: isSuccess === true, store: `https://${hostOf(c)}/${container}` };
      if (hub.files.end(deviceOf(c, hub), id, end)) return c.body(null, 204);
      throw new RestError(400, 'ArgumentInvalid', `this device has begun no upload "${id}"`);
    });
  }
  blobRoutes(app, hub);
}

/** As much of "Put Blob", "Put Block", "Put Block List" and "Get Blob" as clients use that upload a file. */
function blobRoutes(app: Hono, hub: Hub): void {
  /** Blocks that wait for the list that makes a blob of them. */
  const blocks = new Map<string, Map<string, Buffer>>();
  app.put(`/${container}/*`, async (c) => {
    const name = permittedBlob(c, hub);
    const body = Buffer.from(await c.req.arrayBuffer());
    const own = blocks.get(name) ?? new Map<string, Buffer>();
    switch (c.req.query('comp')) {
      case 'block':
        blocks.set(name, own.set(c.req.query('blockid') ?? '', body));
        break;
      case 'blocklist': {
        const ids = [...body.toString('utf8').matchAll(/<Latest>([^<]*)</g)].map(([, id = '']) => id);
        hub.files.write(name, Buffer.concat(ids.map((id) => own.get(id) ?? Buffer.alloc(0))));
        blocks.delete(name);
        break;
      }
      default:
        hub.files.write(name, body);
    }
    return c.body(null, 201);
  });
  app.get(`/${container}/*`, (c) => {
    const content = hub.files.read(permittedBlob(c, hub));
    if (content === undefined) throw new RestError(404, 'BlobNotFound', 'there is no such blob');
    return c.body(new Uint8Array(content), 200, { 'content-type': 'application/octet-stream' });
  });
}

function permittedBlob(c: Context, hub: Hub): string {
  const name = pathOf(c.req.path).slice(1).map(decoded).join('/');
  if (hub.files.allows(name, c.req.query())) return name;
  throw new RestError(403, 'AuthenticationFailed', 'the signature is not for this blob, or its time is over');
}

/** Asks for proof that the caller is the device that the path names, or may speak for all. */
function requiresDevice(hub: Hub): MiddlewareHandler {
  return async (c, next) => {
    const device = deviceOf(c, hub);
    const { incoming } = c.env as { incoming: IncomingMessage };
    const certificate = certificateOf(incoming.socket);
    const token = c.req.header('authorization');
    if (token !== undefined || certificate === undefined || !certifies(certificate, device)) {
      const verdict = verifyToken(token ?? '', hub);
      if (!verdict.ok) throw new RestError(401, 'IotHubUnauthorizedAccess', verdict.reason);
      const { holder, scope } = verdict.grant;
      const mayConnect =
        holder.kind === 'device' ? holder.device === device : holder.rights.includes('DeviceConnect');
      if (!mayConnect || !covers(scope, pathOf(c.req.path))) {
        throw new RestError(401, 'IotHubUnauthorizedAccess', 'the token is not for this device');
      }
    }
    if (hub.isDisabled(device))
      throw new RestError(401, 'IotHubUnauthorizedAccess', 'the device is disabled');
    await next();
  };
}

function deviceOf(c: Context, hub: Hub): Device {
  return existing(hub, { deviceId: parameter(c, 'id') });
}

/** As the client knows it: it is where its next request goes. */
function hostOf(c: Context): string {
  return c.req.header('host') ?? '';
}
