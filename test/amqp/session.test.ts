import { createServer } from 'node:net';
import { once } from 'node:events';
import type { AddressInfo, connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

import { beforeEach, describe, expect, test } from 'vitest';

import type { DeliveredCommand } from '../../src/amqp/command-link.js';
import { EarlyAttach } from '../../src/amqp/early-attach.js';
import type { HubSession } from '../../src/amqp/session.js';
import { encodeFor } from '../../src/amqp/session.js';
import { deviceTokens } from '../../src/identity/token.js';
import { silentLog } from '../../src/log.js';
import { parseDeviceConnectionString } from '../../src/identity/connection-string.js';
import { device, encode, failure, message, never, openSession, reasonOf, startHub } from './hub.js';

/** Takes the next `count` commands of the session. */
function commandsOf({ commands }: HubSession, count: number): Promise<DeliveredCommand[]> {
  return new Promise((resolve) => {
    const delivered: DeliveredCommand[] = [];
    commands.onCommand((command) => {
      delivered.push(command);
      if (delivered.length === count) resolve(delivered);
    });
    commands.grant(count);
  });
}

describe('opening', () => {
  test('telemetry and commands share one session, and $cbs has another', async () => {
    await using hub = await startHub();
    await using _session = await openSession(hub);
    const sessions = hub.connections[0]!.sessions.map(({ links }) =>
      links.map((l) => `${l.link} ${l.direction}`),
    );
    expect(sessions).toEqual([
      ['cbs out', 'cbs in'],
      ['telemetry out', 'commands in'],
    ]);
    expect(hub.record.of('attached').map(({ address }) => address)).toEqual([
      '$cbs',
      '$cbs',
      '/devices/dev-01/messages/events',
      '/devices/dev-01/messages/deviceBound',
    ]);
  });

  test('a module has its own addresses and token', async () => {
    await using hub = await startHub();
    hub.addDevice({ deviceId: device, moduleId: 'mod-a' });
    await using session = await openSession(hub, {
      connectionString: hub.deviceConnectionString(device, 'mod-a'),
    });
    await session.telemetry.send(encodeFor({ deviceId: device, moduleId: 'mod-a' })(message()));
    expect(hub.record.of('telemetry')[0]).toMatchObject({ deviceId: device, moduleId: 'mod-a' });
  });

  test('a wrong key is refused, with what the hub said and what to do', async () => {
    await using hub = await startHub();
    const wrong = hub
      .deviceConnectionString(device)
      .replace(/SharedAccessKey=.*/, 'SharedAccessKey=bm90IHRoZSBrZXk=');
    expect(await failure(openSession(hub, { connectionString: wrong }))).toMatchObject({
      code: 'refused',
      retry: 'late',
      message: expect.stringMatching(/the hub refused the token \(status 401\)/) as string,
      hint: expect.stringContaining('the key is wrong') as string,
    });
  });

  test('each link that the hub refuses is named with its condition', async () => {
    for (const link of ['telemetry', 'commands'] as const) {
      await using hub = await startHub();
      hub.faults.add({
        at: 'attach',
        link,
        do: { act: 'refuse', condition: 'amqp:resource-limit-exceeded' },
      });
      expect(await failure(openSession(hub))).toMatchObject({
        code: 'try-again',
        condition: 'amqp:resource-limit-exceeded',
      });
      await hub.waitFor((record) => record.of('disconnected').length === 1);
    }
  });

  test.each([
    ['connect', { act: 'freeze' }],
    ['open', { act: 'freeze' }],
    ['put-token', { act: 'say-nothing' }],
    ['attach', { act: 'say-nothing' }],
  ] as const)('the one deadline covers a hub that stops answering at %s', async (at, act) => {
    await using hub = await startHub();
    hub.faults.add({ at, do: act, times: 'always' });
    expect(await failure(openSession(hub, { deadlineMs: 300 }))).toMatchObject({
      code: 'unavailable',
      retry: 'soon',
      message: 'the hub did not get us online within 0.3 s',
    });
  });

  test('a server that accepts and never speaks TLS is given up on, and its socket closed', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const accepted = once(server, 'connection');
    await using hub = await startHub();
    const { port } = server.address() as AddressInfo;
    const opening = openSession(hub, { endpoint: { host: '127.0.0.1', port }, deadlineMs: 300 });
    const [socket] = (await accepted) as [ReturnType<typeof connect>];
    const closed = once(socket.on('error', () => undefined).resume(), 'close');
    expect(await failure(opening)).toMatchObject({ code: 'unavailable' });
    await closed;
    server.close();
  });

  test.each([
    ['nothing listens', { host: '127.0.0.1', port: 1 }, { code: 'unavailable' }],
    [
      'the name is unknown',
      { host: 'no-such-hub.invalid', port: 5671 },
      { code: 'host-unknown', retry: 'soon' },
    ],
  ])('when %s the error says so', async (_title, endpoint, expected) => {
    await using hub = await startHub();
    expect(await failure(openSession(hub, { endpoint }))).toMatchObject(expected);
  });

  test('a certificate that is not trusted ends it before any AMQP', async () => {
    await using hub = await startHub();
    const endpoint = { host: 'localhost', port: hub.port };
    expect(await failure(openSession(hub, { endpoint }))).toMatchObject({
      code: 'protocol',
      message: expect.stringContaining('certificate') as string,
    });
    expect(hub.record.of('connected')).toEqual([]);
  });
});

describe('attaching together with the token', () => {
  const logged: string[] = [];
  const log = { ...silentLog, warn: (text: string) => logged.push(text) };
  beforeEach(() => (logged.length = 0));

  test('the links are there before the hub has answered to the token, which is still waited for', async () => {
    await using hub = await startHub();
    hub.faults.add({ at: 'put-token', do: { act: 'delay', ms: 60_000 } });
    const given = new AbortController();
    let isOpen = false;
    const opening = openSession(hub, { early: new EarlyAttach(log), signal: given.signal });
    opening.then(
      () => (isOpen = true),
      () => undefined,
    );
    await hub.waitFor((record) => record.of('attached').length === 4);
    expect(isOpen).toBe(false);
    given.abort(new Error('seen enough'));
    expect(await failure(opening)).toMatchObject({ message: 'seen enough' });
    expect(logged).toEqual([]);
  });

  test('telemetry and commands pass over such a session', async () => {
    await using hub = await startHub();
    await using session = await openSession(hub, { early: new EarlyAttach(log) });
    expect(await session.telemetry.send(encode(message()))).toEqual({ outcome: 'accepted' });
    const taken = commandsOf(session, 1);
    hub.sendCommand({ deviceId: device, body: 'go', messageId: 'c1' });
    expect((await taken)[0]?.command.messageId).toBe('c1');
    expect(hub.connections).toHaveLength(1);
  });

  test.each(['refuse', 'close'] as const)(
    'a hub that answers with %s is asked in order, from then on and with one word about it',
    async (act) => {
      await using hub = await startHub();
      const condition = 'amqp:unauthorized-access';
      hub.faults.add({ at: 'attach', link: 'telemetry', do: { act, condition } });
      const early = new EarlyAttach(log);
      await using first = await openSession(hub, { early });
      expect(await first.telemetry.send(encode(message()))).toEqual({ outcome: 'accepted' });
      expect(early.isRefused).toBe(true);
      expect(logged).toHaveLength(1);
      const attached = hub.record.of('attached').length;
      hub.faults.add({ at: 'put-token', do: { act: 'refuse', status: 500 } });
      expect(await failure(openSession(hub, { early }))).toMatchObject({ condition: 'cbs:500' });
      // Those of `$cbs`, and none before the answer.
      expect(hub.record.of('attached')).toHaveLength(attached + 2);
      expect(logged).toHaveLength(1);
    },
  );

  test('so is one that detaches a link later', async () => {
    await using hub = await startHub();
    const early = new EarlyAttach(log);
    await using session = await openSession(hub, { early });
    hub.faults.now({ act: 'detach', condition: 'amqp:unauthorized-access' }, { link: 'telemetry' });
    await reasonOf(session.over);
    expect(early.isRefused).toBe(true);
  });

  test('what the hub has against the token is not taken for that, nor is a lost connection', async () => {
    await using hub = await startHub();
    const early = new EarlyAttach(log);
    const connectionString = hub
      .deviceConnectionString(device)
      .replace(/SharedAccessKey=.*/, 'SharedAccessKey=bm90IHRoZSBrZXk=');
    expect(await failure(openSession(hub, { early, connectionString }))).toMatchObject({
      condition: 'cbs:401',
    });
    hub.faults.add({ at: 'attach', link: 'telemetry', do: { act: 'drop' } });
    expect(await failure(openSession(hub, { early }))).toMatchObject({ code: 'unavailable' });
    expect(early.isRefused).toBe(false);
    expect(logged).toEqual([]);
  });
});

describe('leaving', () => {
  test('waits for the answer to its goodbye, or when nobody wants that only until it has been said', async () => {
    for (const goodbye of ['answered', 'said'] as const) {
      await using hub = await startHub();
      const session = await openSession(hub, { goodbye });
      let isOver = false;
      session.over.addEventListener('abort', () => (isOver = true));
      await session[Symbol.asyncDispose]();
      expect(isOver).toBe(goodbye === 'answered');
      await hub.waitFor((record) => record.of('disconnected').length === 1);
    }
  });
});

describe('telemetry', () => {
  test('carries every property that IoT Hub knows', async () => {
    await using hub = await startHub();
    await using session = await openSession(hub);
    const sent = message({
      messageId: 'm-7',
      correlationId: 'c-7',
      userId: 'ada',
      contentType: 'application/json',
      contentEncoding: 'utf-8',
      creationTime: '2026-11-20T05:00:00.000Z',
      component: 'thermostat1',
      outputName: 'alarms',
      properties: { room: 'kitchen', äöü: '✓' },
      body: Buffer.from([0, 255, 128]),
    });
    expect(await session.telemetry.send(encode(sent))).toEqual({ outcome: 'accepted' });
    expect(hub.record.of('telemetry')[0]).toMatchObject({
      deviceId: device,
      messageId: 'm-7',
      correlationId: 'c-7',
      contentType: 'application/json',
      contentEncoding: 'utf-8',
      userId: Buffer.from('ada'),
      properties: {
        room: 'kitchen',
        äöü: '✓',
        'iothub-creation-time-utc': '2026-11-20T05:00:00.000Z',
        'iothub-outputname': 'alarms',
      },
      annotations: { 'dt-subject': 'thermostat1' },
      body: Buffer.from([0, 255, 128]),
    });
  });

  test.each([
    [{ outcome: 'rejected', condition: 'amqp:link:message-size-exceeded' }],
    [{ outcome: 'released' }],
    [{ outcome: 'modified' }],
  ] as const)('reports %j as the hub gave it', async (answer) => {
    await using hub = await startHub();
    await using session = await openSession(hub);
    hub.faults.add({ at: 'transfer', link: 'telemetry', do: { act: 'answer', ...answer } });
    expect(await session.telemetry.send(encode(message()))).toMatchObject(answer);
  });

  test('keeps to the credit of the hub, and hears of more', async () => {
    await using hub = await startHub();
    const fault = hub.faults.add({
      at: 'credit',
      link: 'telemetry',
      do: { act: 'withhold' },
      times: 'always',
    });
    await using session = await openSession(hub);
    expect(session.telemetry.credit).toBe(0);
    const more = session.telemetry.moreCredit(AbortSignal.timeout(5000));
    fault.clear();
    await more;
    expect(session.telemetry.credit).toBeGreaterThan(0);
  });

  test('what has no answer when the connection drops is rejected with the reason', async () => {
    await using hub = await startHub();
    await using session = await openSession(hub);
    hub.faults.add({ at: 'transfer', link: 'telemetry', do: { act: 'say-nothing' }, times: 'always' });
    const sends = [1, 2, 3].map(() => failure(session.telemetry.send(encode(message()))));
    await hub.waitFor((record) => record.of('telemetry').length === 3);
    hub.faults.now({ act: 'drop' });
    const errors = await Promise.all(sends);
    expect(errors).toMatchObject([{ code: 'unavailable' }, { code: 'unavailable' }, { code: 'unavailable' }]);
    expect(session.over.reason).toBe(errors[0]);
    expect(await failure(session.telemetry.send(encode(message())))).toBe(errors[0]);
  });
});

describe('commands', () => {
  test('arrive with what their sender gave them and what the hub adds', async () => {
    await using hub = await startHub();
    await using session = await openSession(hub);
    hub.sendCommand({
      deviceId: device,
      body: 'go',
      messageId: 'c1',
      correlationId: 'r1',
      ack: 'full',
      properties: { room: 'kitchen', __proto__x: '1' },
    });
    const [{ command } = { command: undefined }] = await commandsOf(session, 1);
    expect(command).toMatchObject({
      deviceId: device,
      messageId: 'c1',
      correlationId: 'r1',
      ack: 'full',
      deliveryCount: 0,
      body: Buffer.from('go'),
      properties: { room: 'kitchen', __proto__x: '1' },
    });
    expect(command!.sequenceNumber).toEqual(expect.any(Number));
    expect(Math.abs(command!.enqueuedAt! - Date.now())).toBeLessThan(60_000);
    expect(command!.lockToken).toBe(hub.record.of('delivery')[0]!.lockToken);
  });

  test('none arrives without credit, and then as many as were granted', async () => {
    await using hub = await startHub();
    await using session = await openSession(hub);
    for (const messageId of ['a', 'b', 'c']) hub.sendCommand({ deviceId: device, body: 'go', messageId });
    const delivered = await commandsOf(session, 2);
    // A message that follows on the same session proves that no third command came before it.
    await session.telemetry.send(encode(message()));
    expect(delivered.map(({ command }) => command.messageId)).toEqual(['a', 'b']);
    expect(hub.record.of('delivery')).toHaveLength(2);
  });

  test('neighbours settled together each reach the hub with their own outcome', async () => {
    await using hub = await startHub();
    await using session = await openSession(hub);
    for (const n of [0, 1, 2, 3, 4, 5])
      hub.sendCommand({ deviceId: device, body: 'go', messageId: String(n) });
    const delivered = await commandsOf(session, 6);
    const modified = { outcome: 'modified', deliveryFailed: true, undeliverableHere: true } as const;
    const wanted = ['accept', 'reject', 'release', 'accept', modified, 'accept'] as const;
    delivered.forEach(({ settle }, n) => {
      const as = wanted[n]!;
      expect(settle(typeof as === 'string' ? { outcome: as } : as)).toBe(true);
    });
    const outcomes = await hub.waitFor((record) => {
      const all = record.of('outcome');
      return all.length === 6 && all.map(({ messageId, outcome }) => [messageId, outcome.outcome]);
    });
    expect(outcomes.sort()).toEqual([
      ['0', 'accepted'],
      ['1', 'rejected'],
      ['2', 'released'],
      ['3', 'accepted'],
      ['4', 'modified'],
      ['5', 'accepted'],
    ]);
  });

  test('settling after the connection is gone says so and does nothing', async () => {
    await using hub = await startHub();
    await using session = await openSession(hub);
    hub.sendCommand({ deviceId: device, body: 'go', messageId: 'c1' });
    const [delivered] = await commandsOf(session, 1);
    hub.faults.now({ act: 'drop' });
    await reasonOf(session.over);
    expect(delivered!.settle({ outcome: 'accept' })).toBe(false);
    expect(hub.record.of('outcome')).toEqual([]);
  });
});

describe('the end of a session', () => {
  test.each([
    ['closes', { act: 'close' }, /closed the connection/],
    ['closes with an error', { act: 'close', condition: 'amqp:connection:forced' }, /amqp:connection:forced/],
    ['closes with an error nobody knows', { act: 'close', condition: 'acme:odd' }, /acme:odd/],
    ['drops the socket', { act: 'drop' }, /dropped the connection/],
  ] as const)('when the hub %s it is over with its connection, and says why', async (_title, act, why) => {
    await using hub = await startHub();
    await using session = await openSession(hub);
    hub.faults.now(act);
    expect(await reasonOf(session.over)).toMatchObject({ message: expect.stringMatching(why) as string });
    expect(session.isRepairable).toBe(false);
    await hub.waitFor((record) => record.of('disconnected').length === 1);
  });

  test.each([
    ['detaches the telemetry link', { act: 'detach' }, 'telemetry', /detached the telemetry link/],
    [
      'detaches the command link with an error',
      { act: 'detach', condition: 'amqp:link:detach-forced' },
      'commands',
      /took the link down \(amqp:link:detach-forced\)/,
    ],
    ['ends the session', { act: 'end' }, 'telemetry', /ended the session/],
    ['ends it with an error', { act: 'end', condition: 'amqp:internal-error' }, 'commands', /internal error/],
  ] as const)(
    'when the hub %s, the links are attached anew on the same connection',
    async (_title, act, link, why) => {
      await using hub = await startHub();
      await using session = await openSession(hub);
      hub.faults.now(act, { link });
      expect(await reasonOf(session.over)).toMatchObject({ message: expect.stringMatching(why) as string });
      expect(session.isRepairable).toBe(true);
      const repaired = await session.repair(never);
      expect(await repaired.telemetry.send(encode(message()))).toEqual({ outcome: 'accepted' });
      hub.sendCommand({ deviceId: device, body: 'go', messageId: 'c1' });
      const [delivered] = await commandsOf(repaired, 1);
      expect(delivered!.settle({ outcome: 'accept' })).toBe(true);
      await hub.waitFor((record) => record.of('outcome').length === 1);
      expect(hub.record.of('connected')).toHaveLength(1);
      expect(hub.record.of('token')).toHaveLength(1);
    },
  );

  test('when the hub takes $cbs down nothing else is lost, and the next token goes over new links', async () => {
    await using hub = await startHub();
    await using session = await openSession(hub);
    const makeToken = deviceTokens(parseDeviceConnectionString(hub.deviceConnectionString(device)))!;
    for (const direction of ['out', 'in'] as const) {
      hub.faults.now({ act: 'detach', condition: 'amqp:link:detach-forced' }, { link: 'cbs', direction });
      await session.telemetry.send(encode(message()));
      await session.renewToken(makeToken(Date.now()), AbortSignal.timeout(5000));
    }
    expect(session.over.aborted).toBe(false);
    expect(hub.record.of('token')).toHaveLength(3);
    expect(hub.record.of('connected')).toHaveLength(1);
  });

  test('a hub that says nothing but what becomes of our messages is no silent one', async () => {
    await using hub = await startHub();
    await using session = await openSession(hub, { idleTimeoutMs: 400, links: ['telemetry'] });
    const since = performance.now();
    // rhea gives up after twice the idle time-out.
    while (performance.now() - since < 1_500) {
      await session.telemetry.send(encode(message()));
      await delay(50);
    }
    expect(session.over.aborted).toBe(false);
  });

  test('a hub that freezes is found by its silence', async () => {
    await using hub = await startHub();
    await using session = await openSession(hub, { idleTimeoutMs: 60_000, silenceMs: 500 });
    hub.faults.now({ act: 'freeze' });
    expect(await reasonOf(session.over)).toMatchObject({
      message: expect.stringContaining('silent') as string,
    });
  });

  test('leaving says goodbye with a close, and leaves no socket behind', async () => {
    await using hub = await startHub();
    {
      await using _session = await openSession(hub);
    }
    await hub.waitFor((record) => record.of('disconnected').length === 1);
    expect(hub.connections).toEqual([]);
  });
});

test('a token is renewed on the links it came over, and nothing else changes', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub);
  const makeToken = deviceTokens(parseDeviceConnectionString(hub.deviceConnectionString(device)))!;
  for (let n = 0; n < 20; n++) await session.renewToken(makeToken(Date.now()), AbortSignal.timeout(5000));
  expect(hub.record.of('token')).toHaveLength(21);
  expect(new Set(hub.record.of('token').map(({ session }) => session)).size).toBe(1);
  expect(hub.record.of('attached')).toHaveLength(4);
  expect(await session.telemetry.send(encode(message()))).toEqual({ outcome: 'accepted' });
});

test('tokens are renewed while the hub grants no credit for telemetry', async () => {
  await using hub = await startHub();
  hub.faults.add({ at: 'credit', link: 'telemetry', do: { act: 'withhold' }, times: 'always' });
  await using session = await openSession(hub);
  void failure(session.telemetry.send(encode(message())));
  const makeToken = deviceTokens(parseDeviceConnectionString(hub.deviceConnectionString(device)))!;
  await session.renewToken(makeToken(Date.now()), AbortSignal.timeout(5000));
  expect(hub.record.of('telemetry')).toEqual([]);
});
