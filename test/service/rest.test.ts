import { createServer, type Server } from 'node:https';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';

import { beforeAll, expect, test } from 'vitest';

import { systemClock, type Clock } from '../../src/clock.js';
import { makeCertificate, type CertificateAndKey } from '../../src/emulator/certificates.js';
import { silentLog } from '../../src/log.js';
import { Registry } from '../../src/service/registry.js';
import { RestClient } from '../../src/service/rest.js';
import { Twins } from '../../src/service/twins.js';
import { failure, never, startHub } from '../amqp/hub.js';
import { serviceOf } from './kit.js';

let authority: CertificateAndKey;
let own: CertificateAndKey;
beforeAll(async () => {
  const now = Date.now();
  authority = await makeCertificate({ commonName: 'test CA', usage: 'authority', now });
  own = await makeCertificate({
    commonName: 'localhost',
    hostNames: ['localhost'],
    issuer: authority,
    usage: 'server',
    now,
  });
});

/** A hub that gives these answers, one after the other. */
async function hubThatAnswers(
  ...answers: { status: number; headers?: Record<string, string>; text?: string }[]
) {
  const asked: string[] = [];
  const slept: number[] = [];
  const server: Server = createServer(
    { key: own.key, cert: own.certificate },
    (request: IncomingMessage, response: ServerResponse) => {
      const { status, headers = {}, text = '' } = answers[asked.length] ?? { status: 599 };
      asked.push(`${request.method ?? ''} ${request.url ?? ''}`);
      request.resume();
      response.writeHead(status, headers).end(text);
    },
  ).listen(0, 'localhost');
  await once(server, 'listening');
  const clock: Clock = {
    ...systemClock,
    sleep: (ms) => {
      slept.push(ms);
      return Promise.resolve();
    },
  };
  await using hub = await startHub();
  const rest = new RestClient({
    ...serviceOf(hub),
    endpoint: {
      host: 'localhost',
      port: (server.address() as AddressInfo).port,
      trust: { extraCa: authority.certificate },
    },
    clock,
    log: silentLog,
  });
  return {
    asked,
    slept,
    rest,
    async [Symbol.asyncDispose]() {
      rest[Symbol.dispose]();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

test('what is throttled is asked again after the time that the hub names, what fails in the hub after growing pauses', async () => {
  await using hub = await hubThatAnswers(
    { status: 429, headers: { 'retry-after': '7' } },
    { status: 503 },
    { status: 500 },
    { status: 200, text: '{"deviceId":"d/1"}' },
  );
  expect(await new Registry(hub.rest).get({ deviceId: 'd/1' }, never)).toEqual({ deviceId: 'd/1' });
  expect(hub.asked).toEqual(Array<string>(4).fill('GET /devices/d%2F1?api-version=2021-04-12'));
  const [named, first, second] = hub.slept;
  expect(named).toBe(7_000);
  expect(first).toBeLessThanOrEqual(1_000);
  expect(second).toBeGreaterThanOrEqual(1_000);
});

test('after five times it gives up with what the hub said', async () => {
  const throttled = { status: 429, text: '{"Message":"ErrorCode:ThrottlingException;slow down"}' };
  await using hub = await hubThatAnswers(...Array<typeof throttled>(6).fill(throttled));
  expect(await failure(new Registry(hub.rest).get({ deviceId: 'd' }, never))).toMatchObject({
    code: 'try-again',
    condition: 'ThrottlingException',
    message: 'the hub answered: slow down',
  });
  expect(hub.asked).toHaveLength(5);
});

test('a method is not called again when nobody knows whether it was done', async () => {
  await using hub = await hubThatAnswers(
    { status: 429 },
    { status: 504, text: '{"Message":"ErrorCode:GatewayTimeout;no"}' },
  );
  expect(await failure(new Twins(hub.rest).call({ deviceId: 'd' }, { name: 'm' }, never))).toMatchObject({
    code: 'unavailable',
    condition: 'GatewayTimeout',
  });
  expect(hub.asked).toHaveLength(2);
});

test('a query goes through all pages', async () => {
  await using hub = await hubThatAnswers(
    { status: 200, headers: { 'x-ms-continuation': 'next' }, text: '[{"deviceId":"a"}]' },
    { status: 200, text: '[{"deviceId":"b"}]' },
  );
  const found: unknown[] = [];
  for await (const { deviceId } of new Registry(hub.rest).query('SELECT * FROM devices', never))
    found.push(deviceId);
  expect(found).toEqual(['a', 'b']);
});

test.each([
  [
    '{"Message":"{\\"errorCode\\":404103,\\"message\\":\\"Timed out waiting for device (404103)\\"}"}',
    404,
    'unavailable',
  ],
  ['{"Message":"ErrorCode:DeviceNotFound;d"}', 404, 'no-device'],
  ['<html>', 404, 'no-device'],
  ['', 401, 'refused'],
  ['{"Message":"ErrorCode:PreconditionFailed;x"}', 412, 'try-again'],
  ['null', 400, 'data'],
])('the answer %s with status %d is an error of the kind %s', async (text, status, code) => {
  await using hub = await hubThatAnswers({ status, text });
  expect(await failure(new Registry(hub.rest).get({ deviceId: 'd' }, never))).toMatchObject({ code });
});
