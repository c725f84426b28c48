import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { request } from 'node:https';
import { text } from 'node:stream/consumers';
import { expect, test } from 'vitest';

import { startEmulator } from '../../src/emulator/emulator.js';
import type { Emulator } from '../../src/emulator/emulator.js';
import { connectDevice, openReceiver, openSender, sas } from './client.js';

test('purges a command queue, and says how many there were', async () => {
  await using hub = await startHub();
  for (let i = 0; i < 3; i++) hub.sendCommand({ deviceId: 'd', messageId: `c${i}`, ack: 'full' });
  const { status, body } = await ask(hub, 'DELETE', '/devices/d/commands');
  expect({ status, body }).toEqual({
    status: 200,
    body: { totalMessagesPurged: 3, deviceId: 'd', moduleId: null },
  });
  expect(hub.queueDepth('d')).toBe(0);
  expect(hub.record.of('dead-letter').map(({ reason }) => reason)).toEqual(['Purged', 'Purged', 'Purged']);
});

test('replaces a twin, and compares its etag', async () => {
  await using hub = await startHub();
  await ask(hub, 'PATCH', '/twins/d', { body: { tags: { a: 1 }, properties: { desired: { x: 1, y: 1 } } } });
  const { body } = await ask(hub, 'GET', '/twins/d');
  const stale = await ask(hub, 'PUT', '/twins/d', { etag: '"nonsense"', body: {} });
  expect(stale).toMatchObject({
    status: 412,
    body: { Message: expect.stringMatching(/^ErrorCode:PreconditionFailed;/) },
  });
  const replaced = await ask(hub, 'PUT', '/twins/d', {
    etag: `"${String(body['etag'])}"`,
    body: { tags: { b: 2 }, properties: { desired: { y: 2 } } },
  });
  expect(replaced.status).toBe(200);
  expect(replaced.body).toMatchObject({ tags: { b: 2 }, properties: { desired: { y: 2, $version: 3 } } });
  expect(replaced.body['properties']).not.toHaveProperty('desired.x');
});

test('says what became of a method: offline, no answer, no JSON', { timeout: 40_000 }, async () => {
  await using hub = await startHub();
  const invoke = (connectTimeoutInSeconds = 0) =>
    ask(hub, 'POST', '/twins/d/methods', {
      body: { methodName: 'go', payload: null, connectTimeoutInSeconds, responseTimeoutInSeconds: 5 },
    });
  expect(await invoke()).toMatchObject({ status: 404, code: 'DeviceNotOnline' });
  await using client = await connectDevice(hub, 'd');
  const session = await client.session();
  const receiver = await openReceiver(session, '/devices/d/methods/devicebound');
  expect(await invoke()).toMatchObject({ status: 504, code: 'GatewayTimeout' });
  const sender = await openSender(session, '/devices/d/methods/devicebound');
  receiver.on('message', ({ message }) => {
    const { correlation_id } = message!;
    expect(message!.application_properties).toEqual({ 'IoThub-methodname': 'go' });
    expect((correlation_id as unknown as Buffer).length).toBe(16);
    sender.send({
      correlation_id,
      application_properties: { 'IoThub-status': 200 },
      body: 'no JSON',
    });
  });
  expect(await invoke()).toMatchObject({ status: 502 });
});

test('waits for a device that comes within the connect timeout', async () => {
  await using hub = await startHub();
  const answer = ask(hub, 'POST', '/twins/d/methods', {
    body: { methodName: 'go', payload: { in: 5 }, connectTimeoutInSeconds: 20 },
  });
  await using client = await connectDevice(hub, 'd');
  const session = await client.session();
  const sender = await openSender(session, '/devices/d/methods/devicebound');
  const receiver = await openReceiver(session, '/devices/d/methods/devicebound', { credit: 0 });
  receiver.on('message', ({ message }) => {
    const { correlation_id, body } = message!;
    sender.send({ correlation_id, application_properties: { 'IoThub-status': 207 }, body });
  });
  receiver.add_credit(1);
  expect(await answer).toMatchObject({ status: 200, body: { status: 207, payload: { in: 5 } } });
});

test.for([
  ['no token', 'GET', '/devices/d', undefined, 401],
  ['a policy without the right', 'GET', '/devices/d', 'device', 401],
  ['a policy that may only read', 'DELETE', '/devices/d', 'registryRead', 401],
  ['a policy that may', 'GET', '/devices/d', 'registryRead', 200],
  ['what there is not', 'GET', '/nothing', 'iothubowner', 404],
] as const)('answers %s', async ([, method, path, policy, status]) => {
  await using hub = await startHub();
  const answer = await ask(hub, method, path, { policy: policy ?? null });
  expect(answer.status).toBe(status);
  if (status !== 200) expect(String(answer.body['Message'])).toMatch(/^ErrorCode:\w+;/);
});

async function startHub(): Promise<Emulator> {
  return await startEmulator({ devices: ['d'], httpsPort: 0 });
}

interface Ask {
  body?: object;
  etag?: string;
  /** Null sends no token. */
  policy?: string | null;
}

async function ask(
  hub: Emulator,
  method: string,
  path: string,
  { body, etag, policy = 'iothubowner' }: Ask = {},
) {
  const key = /SharedAccessKey=(.*)/.exec(hub.serviceConnectionString(policy ?? 'iothubowner'))![1]!;
  const asking = request({
    host: 'localhost',
    port: hub.httpsPort,
    ca: hub.ca,
    agent: false,
    method,
    path: `${path}?api-version=2021-04-12`,
    headers: {
      ...(policy !== null && { authorization: sas('localhost', key, { policyName: policy }) }),
      ...(etag !== undefined && { 'if-match': etag }),
      ...(body && { 'content-type': 'application/json' }),
    },
  });
  asking.end(body && JSON.stringify(body));
  const [response] = (await once(asking, 'response')) as [IncomingMessage];
  const answer = await text(response);
  return {
    status: response.statusCode,
    code: response.headers['iothub-errorcode'],
    body: (answer === '' ? {} : JSON.parse(answer)) as Record<string, unknown>,
  };
}
