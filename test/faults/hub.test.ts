/** Rows N8 to N14, N18, N20, N24 and H of the fault matrix, over a whole agent: a hub that says no, too little, or nothing. */
import { once } from 'node:events';
import { createServer as createTcpServer, type AddressInfo, type Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';

import { describe, expect, onTestFinished, test } from 'vitest';

import { makeCertificate, type NewCertificate } from '../../src/emulator/certificates.js';
import { device } from '../amqp/hub.js';
import { openWorld, type World } from './kit.js';

/** Every condition that the hub is known to use. */
const conditions = [
  'amqp:connection:forced',
  'amqp:connection:framing-error',
  'amqp:connection:redirect',
  'amqp:decode-error',
  'amqp:internal-error',
  'amqp:link:detach-forced',
  'amqp:link:message-size-exceeded',
  'amqp:link:redirect',
  'amqp:link:stolen',
  'amqp:link:transfer-limit-exceeded',
  'amqp:not-allowed',
  'amqp:not-found',
  'amqp:resource-limit-exceeded',
  'amqp:unauthorized-access',
  'com.microsoft:argument-error',
  'com.microsoft:device-container-throttled',
  'com.microsoft:iot-hub-not-found-error',
  'com.microsoft:iot-hub-suspended',
  'com.microsoft:timeout',
  'acme:nobody-knows',
];

/** Resolves when it is online once more, and a message and a command have come through. */
async function back(world: World, online: number): Promise<void> {
  await world.agent.online(online + 1);
  await world.recovered();
}

describe.concurrent('N8 to N10: the hub ends', () => {
  test.each(['close', 'end', 'detach'] as const)(
    'with %s, for every reason there is: the agent lives, and comes back each time',
    async (act) => {
      // Minutes are its waits when the hub says no; the connection's own times need not be that short.
      await using world = await openWorld({ factor: 100, sessionFactor: 20 });
      await world.agent.online();
      for (const condition of [undefined, ...conditions]) {
        const online = world.agent.times('online');
        const connecting = world.agent.times('connecting');
        await world.queue(20);
        const ending = condition === undefined ? { act } : { act, condition };
        const link =
          act === 'close' ? {} : ({ link: world.runs.length % 2 ? 'telemetry' : 'commands' } as const);
        expect(world.hub.faults.now(ending, link), condition).toBe(1);
        await back(world, online);
        expect(world.agent.times('connecting') - connecting, condition).toBe(1);
      }
      await world.settled();
      world.judge();
    },
  );

  test.each([
    ['a session', 'end', undefined],
    ['a session with an error', 'end', 'amqp:internal-error'],
    ['a link', 'detach', undefined],
    ['a link by force', 'detach', 'amqp:link:detach-forced'],
  ] as const)('%s under load: links are back without another connection', async (_title, act, condition) => {
    await using world = await openWorld();
    await world.agent.online();
    for (const link of ['telemetry', 'commands'] as const) {
      const online = world.agent.times('online');
      await world.queue(300);
      for (let n = 0; n < 5; n++) world.command();
      world.hub.faults.now(condition === undefined ? { act } : { act, condition }, { link });
      await back(world, online);
    }
    await world.settled();
    world.judge();
    expect(world.hub.record.of('connected')).toHaveLength(1);
    expect(world.agent.times('waiting')).toBe(0);
  });
});

test('A31: a hundred lost connections and repaired links leave no listener behind', async () => {
  const warnings: Error[] = [];
  const onWarning = (warning: Error) => warnings.push(warning);
  process.on('warning', onWarning);
  onTestFinished(() => void process.off('warning', onWarning));
  await using world = await openWorld({ factor: 200, sessionFactor: 20 });
  await world.agent.online();
  for (let n = 0; n < 100; n++) {
    const online = world.agent.times('online');
    if (n % 2 === 0) world.proxy.reset();
    else world.hub.faults.now({ act: 'detach' }, { link: 'telemetry' });
    await world.agent.online(online + 1);
    if (n % 10 === 0) await world.recovered();
  }
  expect(warnings).toEqual([]);
});

describe.concurrent('N11: a link', () => {
  test.each(['telemetry', 'commands'] as const)('%s that is refused means not online', async (link) => {
    await using world = await openWorld({ factor: 200, sessionFactor: 20 });
    const fault = world.hub.faults.add({
      at: 'attach',
      link,
      times: 'always',
      do: { act: 'refuse', condition: 'amqp:not-found' },
    });
    world.proxy.reset();
    await world.agent.until((agent) => agent.times('waiting') >= 2);
    const [refused] = world.agent.states.slice(-1);
    expect(refused?.state).not.toBe('online');
    expect(world.agent.lastError).toMatchObject({ condition: 'amqp:not-found', retry: 'late' });
    fault.clear();
    await world.recovered();
  });

  test.each(['telemetry', 'commands'] as const)(
    '%s that is not answered costs the deadline',
    async (link) => {
      await using world = await openWorld();
      await world.agent.online();
      world.hub.faults.add({ at: 'attach', link, do: { act: 'say-nothing' } });
      world.proxy.reset();
      await world.agent.until((agent) => agent.times('waiting') >= 2);
      expect(world.agent.lastError?.message).toMatch(/did not get us online within/);
      await world.recovered();
    },
  );
});

describe.concurrent('N13: a token', () => {
  test.each([
    [401, 'refused', 'late'],
    [404, 'no-device', 'late'],
    [429, 'try-again', 'soon'],
    [500, 'try-again', 'soon'],
  ] as const)('that is answered with %i is tried again: %s, %s', async (status, code, retry) => {
    await using world = await openWorld({ factor: 200, sessionFactor: 20 });
    await world.agent.online();
    await world.queue(50);
    world.hub.faults.add({ at: 'put-token', do: { act: 'refuse', status } });
    world.proxy.reset();
    await world.agent.until((agent) => agent.lastError?.condition === `cbs:${String(status)}`);
    expect(world.agent.lastError).toMatchObject({ code, retry });
    const waiting = world.agent.states.findLast((each) => each.state === 'waiting')!;
    if (retry === 'late') expect(waiting.until - waiting.since).toBeGreaterThanOrEqual(30_000);
    await world.recovered();
    await world.settled();
    world.judge();
  });

  test('that is not answered, or late, costs the attempt and nothing else', async () => {
    await using world = await openWorld();
    await world.agent.online();
    world.hub.faults.add({ at: 'put-token', do: { act: 'say-nothing' } });
    // By the hub's clock: after the deadline of 20 s.
    world.hub.faults.add({ at: 'put-token', do: { act: 'delay', ms: 30_000 } });
    world.proxy.reset();
    await world.agent.online(2);
    expect(world.agent.times('waiting')).toBe(3);
    await world.recovered();
  });
});

describe.concurrent('N14 and N24: a peer that', () => {
  /** A server with a certificate of the hub's authority, or of another, that says this and hangs up. */
  async function stub(says: string, certificate: Partial<NewCertificate> & { authority?: 'unknown' } = {}) {
    const ca = await makeCertificate({ commonName: 'test CA', usage: 'authority', now: Date.now() });
    const shown = await makeCertificate({
      commonName: 'localhost',
      hostNames: ['localhost'],
      usage: 'server',
      issuer: ca,
      now: Date.now(),
      ...certificate,
    });
    const heard: Buffer[] = [];
    const server = createTlsServer({ cert: shown.certificate, key: shown.key }, (socket) => {
      socket.on('error', () => undefined).on('data', (chunk: Buffer) => heard.push(chunk));
      if (says !== '') socket.end(says);
    });
    server.on('tlsClientError', () => undefined).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    return {
      port,
      ca: certificate.authority === 'unknown' ? undefined : ca.certificate,
      heard,
      [Symbol.asyncDispose]: async () => {
        server.close();
        await once(server, 'close');
      },
    };
  }
  const day = 86_400_000;

  test.each([
    ['answers in HTTP', 'HTTP/1.1 400 Bad Request\r\n\r\n'],
    ['has another protocol header', 'AMQP\0\0\x09\x01'],
    ['sends rubbish', '\x80\xff\x00\x01 rubbish rubbish rubbish'],
    ['hangs up', '\n'],
  ])('%s is left, and asked again', async (_title, says) => {
    await using server = await stub(says);
    await using world = await openWorld({ factor: 100, sessionFactor: 20, ...server });
    await world.agent.until((agent) => agent.times('waiting') >= 2);
    expect(world.agent.lastError?.code).toMatch(/^(protocol|unavailable)$/);
    expect(world.agent.lastError?.message).not.toMatch(/rubbish|Bad Request/);
  });

  test.each<[string, Parameters<typeof stub>[1], RegExp]>([
    ['has expired', { now: Date.now() - 20 * day, days: 10 }, /expired certificate/],
    ['is not valid yet', { now: Date.now() + 20 * day }, /not valid yet/],
    ['is for another name', { hostNames: ['elsewhere.example'] }, /certificate for another name/],
    ['nobody knows', { authority: 'unknown' }, /certificate that is not trusted/],
  ])('shows a certificate that %s hears no byte of AMQP', async (_title, certificate, reason) => {
    await using server = await stub('', certificate);
    await using world = await openWorld({ factor: 100, sessionFactor: 20, port: server.port, ca: server.ca });
    await world.agent.until((agent) => agent.times('waiting') >= 1);
    expect(world.agent.lastError).toMatchObject({ code: 'protocol', retry: 'late' });
    expect(world.agent.lastError?.message).toMatch(reason);
    if (/expired|valid yet/.test(reason.source)) expect(world.agent.lastError?.hint).toMatch(/clock/);
    expect(server.heard).toEqual([]);
  });

  test('sends a TLS alert is left', async () => {
    const sockets: Socket[] = [];
    const server = createTcpServer((socket) => {
      sockets.push(socket);
      // Alert, fatal, handshake failure.
      socket.on('error', () => undefined).end(Buffer.from('15030300020228', 'hex'));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    await using world = await openWorld({ factor: 100, port: (server.address() as AddressInfo).port });
    await world.agent.until((agent) => agent.times('waiting') >= 1);
    expect(world.agent.lastError).toMatchObject({ code: 'protocol', retry: 'late' });
    server.close();
  });
});

test.concurrent(
  'N18: a lost answer repeats its window, and thousands of messages pass after it',
  async () => {
    await using world = await openWorld();
    await world.agent.online();
    world.hub.faults.add({ at: 'disposition', link: 'telemetry', after: 1, do: { act: 'say-nothing' } });
    await world.queue(500);
    // The settle timeout is 30 s; more than what rhea can keep of one session.
    await world.queue(3_000);
    await world.settled();
    expect(world.judge().duplicates).toBeLessThanOrEqual(100);
    expect(world.hub.record.of('connected')).toHaveLength(1);
  },
);

describe.concurrent('N20: credit', () => {
  test('of two at a time is kept to, for ten thousand messages', async () => {
    await using world = await openWorld({ hub: { creditWindow: 2 } });
    for (let n = 0; n < 10; n++) await world.queue(1_000);
    await world.settled();
    expect(world.judge()).toEqual({ duplicates: 0, reordered: 0, lostLinks: 0 });
  });

  test('that is not granted is waited for: commands are done, tokens renewed, nothing is taken for lost', async () => {
    await using world = await openWorld({ tokenTtlMs: 20_000 });
    const fault = world.hub.faults.add({
      at: 'credit',
      link: 'telemetry',
      times: 'always',
      do: { act: 'withhold' },
    });
    world.proxy.reset();
    await world.agent.online();
    const connected = world.hub.record.of('connected').length;
    await world.queue(200);
    for (let n = 0; n < 10; n++) world.command();
    await world.clock.sleep(60_000);
    await world.hub.waitFor(() => world.hub.queueDepth(device) === 0);
    expect(world.hub.record.of('telemetry').length).toBe(0);
    expect(world.hub.record.of('token').length).toBeGreaterThanOrEqual(4);
    expect(world.hub.record.of('connected').length).toBe(connected);
    fault.clear();
    await world.settled();
    expect(world.judge().duplicates).toBe(0);
  });
});

describe.concurrent('H: while telemetry is', () => {
  test.each([
    ['throttled', 'com.microsoft:device-container-throttled'],
    ['over its quota', 'amqp:resource-limit-exceeded'],
    ['not allowed', 'amqp:unauthorized-access'],
  ])('%s, it waits in the spool, commands are done, and no connection is lost', async (_title, condition) => {
    await using world = await openWorld({ factor: 50, sessionFactor: 20 });
    await world.agent.online();
    const fault = world.hub.faults.add({
      at: 'transfer',
      link: 'telemetry',
      times: 'always',
      do: { act: 'refuse', condition },
    });
    await world.queue(300);
    await world.clock.sleep(30_000);
    const asked = world.hub.record.of('telemetry').length;
    for (let n = 0; n < 5; n++) world.command();
    await world.hub.waitFor(() => world.hub.queueDepth(device) === 0);
    // The window went out at once; from then on it is one message after each pause.
    expect(asked).toBeLessThanOrEqual(100 + 4);
    fault.clear();
    await world.settled();
    expect(world.judge().duplicates).toBe(0);
    expect(world.hub.record.of('connected')).toHaveLength(1);
  });
});
