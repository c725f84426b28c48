import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { request } from 'node:https';
import { buffer } from 'node:stream/consumers';

import type { Emulator } from '../../src/emulator/emulator.js';
import { sas } from './client.js';

/** Uploads a file as a device does: asks the hub, writes to the store, tells the hub. The hub has a port for HTTPS. */
export async function uploadFile(
  hub: Emulator,
  deviceId: string,
  name: string,
  content: string,
): Promise<void> {
  const [, key = ''] = /SharedAccessKey=(.*)/.exec(hub.deviceConnectionString(deviceId)) ?? [];
  const token = sas(`localhost/devices/${deviceId}`, key);
  const files = `/devices/${deviceId}/files`;
  const begun = await ask(hub, 'POST', files, { token, body: JSON.stringify({ blobName: name }) });
  const { correlationId, containerName, blobName, sasToken } = JSON.parse(begun.bytes.toString()) as Record<
    string,
    string
  >;
  const address = `/${containerName ?? ''}/${encodeURI(blobName ?? '')}${sasToken ?? ''}`;
  await ask(hub, 'PUT', address, { body: content });
  const end = JSON.stringify({ correlationId, isSuccess: true, statusCode: 201 });
  await ask(hub, 'POST', `${files}/notifications`, { token, body: end });
}

/** One HTTPS request to the hub. */
export async function ask(
  hub: Emulator,
  method: string,
  path: string,
  { body, token }: { body?: string; token?: string } = {},
): Promise<{ status: number | undefined; bytes: Buffer }> {
  const asking = request({
    ...{ host: 'localhost', port: hub.httpsPort, ca: hub.ca, agent: false, method },
    path: `${path}${path.includes('?') ? '&' : '?'}api-version=2021-04-12`,
    headers: token === undefined ? {} : { authorization: token },
  });
  asking.end(body);
  const [response] = (await once(asking, 'response')) as [IncomingMessage];
  return { status: response.statusCode, bytes: await buffer(response) };
}
