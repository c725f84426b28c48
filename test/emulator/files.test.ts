import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { request } from 'node:https';
import { buffer } from 'node:stream/consumers';
import { expect, test } from 'vitest';

import { startEmulator } from '../../src/emulator/emulator.js';
import type { Emulator } from '../../src/emulator/emulator.js';
import { sas } from './client.js';
import { ask, uploadFile } from './upload.js';

test('a file is written in one piece or in blocks, read back, and told of when it is ended', async () => {
  await using hub = await startHub();
  await uploadFile(hub, 'd', 'one.bin', 'hello');
  expect(hub.file('d', 'one.bin')?.toString()).toBe('hello');

  const begun = await begin(hub, 'in blocks');
  const address = `/${begun.containerName}/d/in%20blocks${begun.sasToken}`;
  for (const [id, text] of ['left', 'right'].entries()) {
    expect(await ask(hub, 'PUT', `${address}&comp=block&blockid=${id}`, { body: text })).toMatchObject({
      status: 201,
    });
  }
  expect(hub.file('d', 'in blocks')).toBeUndefined();
  const list = '<BlockList><Latest>1</Latest><Latest>0</Latest></BlockList>';
  await ask(hub, 'PUT', `${address}&comp=blocklist`, { body: list });
  expect((await ask(hub, 'GET', address)).bytes.toString()).toBe('rightleft');
  await end(hub, begun.correlationId);
  expect(hub.record.of('file').map(({ blobName, bytes }) => [blobName, bytes])).toEqual([
    ['d/one.bin', 5],
    ['d/in blocks', 9],
  ]);
});

test('nobody is told of an upload that failed, and an id ends one upload only', async () => {
  await using hub = await startHub();
  const { correlationId } = await begin(hub, 'x');
  expect(await end(hub, correlationId, false)).toBe(204);
  expect(await end(hub, correlationId)).toBe(400);
  expect(hub.record.of('file')).toMatchObject([{ succeeded: false }]);
});

test('a device may have ten uploads at a time', async () => {
  await using hub = await startHub();
  const begun = await Promise.all(Array.from({ length: 10 }, (_, n) => begin(hub, `f${n}`)));
  const body = JSON.stringify({ blobName: 'one more' });
  const refused = await ask(hub, 'POST', '/devices/d/files', { body, token: tokenOf(hub) });
  expect(refused.status).toBe(403);
  expect(refused.bytes.toString()).toMatch(/DeviceMaximumActiveFileUploadLimitExceeded/);
  await end(hub, begun[0]!.correlationId);
  await begin(hub, 'one more');
});

test('only the device itself begins, and only what the hub signed is written, for an hour', async () => {
  await using hub = await startHub();
  hub.addDevice('other');
  const body = JSON.stringify({ blobName: 'x' });
  expect(await ask(hub, 'POST', '/devices/d/files', { body })).toMatchObject({ status: 401 });
  expect(await ask(hub, 'POST', '/devices/other/files', { body, token: tokenOf(hub) })).toMatchObject({
    status: 401,
  });
  const { sasToken } = await begin(hub, 'x');
  expect(await ask(hub, 'PUT', `/uploads/d/y${sasToken}`, { body })).toMatchObject({ status: 403 });
  hub.jumpClock(3_600_000);
  expect(await ask(hub, 'PUT', `/uploads/d/x${sasToken}`, { body })).toMatchObject({ status: 403 });
});

test('a device with a certificate needs no token', async () => {
  await using hub = await startHub();
  hub.addDevice('x509', { type: 'certificateAuthority' });
  const { certificate, key } = await hub.issueDeviceCertificate('x509');
  const asking = request({
    ...{ host: 'localhost', port: hub.httpsPort, ca: hub.ca, agent: false, cert: certificate, key },
    ...{ method: 'POST', path: '/devices/x509/files?api-version=2021-04-12' },
  });
  asking.end(JSON.stringify({ blobName: 'x' }));
  const [response] = (await once(asking, 'response')) as [IncomingMessage];
  expect(JSON.parse((await buffer(response)).toString())).toMatchObject({ blobName: 'x509/x' });
});

async function startHub(): Promise<Emulator> {
  return await startEmulator({ devices: ['d'], httpsPort: 0 });
}

function tokenOf(hub: Emulator): string {
  const [, key = ''] = /SharedAccessKey=(.*)/.exec(hub.deviceConnectionString('d'))!;
  return sas('localhost/devices/d', key);
}

async function begin(hub: Emulator, name: string) {
  const body = JSON.stringify({ blobName: name });
  const { status, bytes } = await ask(hub, 'POST', '/devices/d/files', { body, token: tokenOf(hub) });
  expect(status).toBe(200);
  return JSON.parse(bytes.toString()) as { correlationId: string; containerName: string; sasToken: string };
}

async function end(hub: Emulator, correlationId: string, isSuccess = true): Promise<number | undefined> {
  const body = JSON.stringify({ correlationId, isSuccess });
  return (await ask(hub, 'POST', '/devices/d/files/notifications', { body, token: tokenOf(hub) })).status;
}
