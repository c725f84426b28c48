import '../../src/no-debug.js';

import rhea, { type Message } from 'rhea';
import { describe, expect, test } from 'vitest';

import type { MethodLink, MethodRequest } from '../../src/amqp/methods.js';
import type { Emulator } from '../../src/emulator/emulator.js';
import { recordingLog } from '../handlers/kit.js';
import { startBareHub } from './bare-hub.js';
import { device, failure, message, encode, never, openSession, reasonOf, startHub } from './hub.js';

/** Invokes a method of the device as a service would. */
function invoke(hub: Emulator, name: string, payload = 'null') {
  return hub
    .device(device)
    .methods.call({ name, payload, responseTimeoutMs: 10_000, connectTimeoutMs: 10_000 });
}

/** Answers every request of the link with status 200 and the payload that it came with. */
function echo(methods: MethodLink): MethodRequest[] {
  const requests: MethodRequest[] = [];
  methods.serve((request) => {
    requests.push(request);
    void request.respond(200, request.payload).catch(() => undefined);
  });
  return requests;
}

test('the links are a pair on a session of their own, opened when they are asked for', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub);
  expect(hub.connections[0]!.sessions).toHaveLength(2);
  await session.openMethods(never);
  expect(hub.connections[0]!.sessions[2]!.links.map(({ link, direction }) => `${link} ${direction}`)).toEqual(
    ['methods out', 'methods in'],
  );
  const [first, second] = hub.record.of('attached').filter(({ link }) => link === 'methods');
  expect([first!.address, second!.address]).toEqual(Array(2).fill('/devices/dev-01/methods/devicebound'));
});

test('while it is open it is the same one', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub);
  const methods = await session.openMethods(never);
  expect(await session.openMethods(never)).toBe(methods);
});

test('a request comes with its method and payload, and its caller gets status and payload', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub);
  const methods = await session.openMethods(never);
  const settled = new Promise((resolve) => {
    methods.serve((request) => {
      expect(request).toMatchObject({ deviceId: device, method: 'reboot', payload: Buffer.from('{"in":5}') });
      expect(request.requestId).toMatch(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
      resolve(request.respond(-207, Buffer.from('{"ok":true}')));
    });
  });
  expect(await invoke(hub, 'reboot', '{"in":5}')).toEqual({
    result: 'answered',
    status: -207,
    payload: '{"ok":true}',
  });
  expect(await settled).toEqual({ outcome: 'accepted' });
});

test('a module has methods of its own', async () => {
  await using hub = await startHub();
  hub.addDevice({ deviceId: device, moduleId: 'mod-a' });
  await using session = await openSession(hub, {
    connectionString: hub.deviceConnectionString(device, 'mod-a'),
  });
  const requests = echo(await session.openMethods(never));
  const call = { name: 'x', payload: '1', responseTimeoutMs: 5_000, connectTimeoutMs: 0 };
  expect(await hub.device({ deviceId: device, moduleId: 'mod-a' }).methods.call(call)).toMatchObject({
    result: 'answered',
  });
  expect(requests).toMatchObject([{ deviceId: device, moduleId: 'mod-a' }]);
});

test('128 KB go both ways', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub);
  echo(await session.openMethods(never));
  const payload = JSON.stringify('é'.repeat((128 * 1024 - 2) / 2));
  expect(Buffer.byteLength(payload)).toBe(128 * 1024);
  expect(await invoke(hub, 'big', payload)).toEqual({ result: 'answered', status: 200, payload });
});

test('two hundred callers at once are all answered, no more than thirty-two at a time', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub);
  const methods = await session.openMethods(never);
  let open = 0;
  let most = 0;
  methods.serve((request) => {
    most = Math.max(most, ++open);
    setTimeout(() => {
      open--;
      void request.respond(200, request.payload);
    }, 5);
  });
  const answers = await Promise.all(Array.from({ length: 200 }, (_, n) => invoke(hub, 'm', String(n))));
  expect(answers.map((answer) => answer.result === 'answered' && answer.payload)).toEqual(
    Array.from({ length: 200 }, (_, n) => String(n)),
  );
  expect(most).toBeLessThanOrEqual(32);
  expect(most).toBeGreaterThan(1);
});

test('all that arrived is answered before the link counts as idle', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub);
  const methods = await session.openMethods(never);
  await methods.allAnswered();
  const arrived = new Promise<MethodRequest>((resolve) => {
    methods.serve(resolve);
  });
  const answer = invoke(hub, 'm');
  const request = await arrived;
  let idle = false;
  const waiting = methods.allAnswered().then(() => {
    idle = true;
  });
  expect(idle).toBe(false);
  await request.respond(200, Buffer.from('1'));
  await waiting;
  expect(await answer).toMatchObject({ status: 200 });
});

test('a request without a name is refused, and the next one is served', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub);
  const requests = echo(await session.openMethods(never));
  expect(await invoke(hub, '')).toMatchObject({ status: 400 });
  expect(await invoke(hub, 'good')).toMatchObject({ status: 200 });
  expect(requests.map(({ method }) => method)).toEqual(['good']);
});

describe('a channel that is lost', () => {
  test.each([
    ['detached', { act: 'detach', condition: 'amqp:link:detach-forced' }],
    ['ended with its session', { act: 'end' }],
  ] as const)(
    'because it was %s leaves telemetry and commands alone, and can be opened anew',
    async (_title, act) => {
      await using hub = await startHub();
      await using session = await openSession(hub);
      const methods = await session.openMethods(never);
      const arrived = new Promise<MethodRequest>((resolve) => {
        methods.serve(resolve);
      });
      void invoke(hub, 'lost');
      const request = await arrived;
      hub.faults.now(act, { link: 'methods', direction: 'in' });
      expect(await reasonOf(methods.over)).toMatchObject({ code: 'unavailable', retry: 'soon' });
      expect(await failure(request.respond(200, Buffer.from('1')))).toBe(methods.over.reason);

      const again = await session.openMethods(never);
      expect(again).not.toBe(methods);
      echo(again);
      expect(await invoke(hub, 'found')).toMatchObject({ status: 200 });
      expect(session.over.aborted).toBe(false);
      expect(await session.telemetry.send(encode(message()))).toEqual({ outcome: 'accepted' });
      expect(hub.record.of('connected')).toHaveLength(1);
      expect(
        hub.record.of('detached').filter(({ link }) => link === 'telemetry' || link === 'commands'),
      ).toEqual([]);
    },
  );

  test('is not opened anew before the hub has ended the former one', async () => {
    await using hub = await startHub();
    await using session = await openSession(hub);
    for (let turn = 0; turn < 5; turn++) {
      const methods = await session.openMethods(never);
      hub.faults.now({ act: 'detach' }, { link: 'methods', direction: 'out' });
      await reasonOf(methods.over);
    }
    echo(await session.openMethods(never));
    expect(await invoke(hub, 'm')).toMatchObject({ status: 200 });
    const views = hub.connections[0]!.sessions.flatMap(({ links }) => links);
    expect(views.filter(({ link }) => link === 'methods')).toHaveLength(2);
  });
});

test('a hub that refuses the links says why; all else goes on', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub);
  hub.faults.add({
    at: 'attach',
    link: 'methods',
    direction: 'in',
    do: { act: 'refuse', condition: 'amqp:not-allowed' },
  });
  expect(await failure(session.openMethods(never))).toMatchObject({
    condition: 'amqp:not-allowed',
    retry: 'late',
  });
  expect(await session.telemetry.send(encode(message()))).toEqual({ outcome: 'accepted' });
  echo(await session.openMethods(never));
  expect(await invoke(hub, 'm')).toMatchObject({ status: 200 });
});

test('a hub that does not answer the attach is given up on, and asked again', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub, { deadlineMs: 300 });
  hub.faults.add({ at: 'attach', link: 'methods', do: { act: 'say-nothing' } });
  expect(await failure(session.openMethods(never))).toMatchObject({
    code: 'unavailable',
    message: 'the hub did not attach the method links within 0.3 s',
  });
  expect(session.over.aborted).toBe(false);
  echo(await session.openMethods(never));
  expect(await invoke(hub, 'm')).toMatchObject({ status: 200 });
});

test('an answer that the hub does not take ends the channel in time', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub, { answerWithinMs: 200 });
  const methods = await session.openMethods(never);
  hub.faults.add({ at: 'disposition', link: 'methods', do: { act: 'say-nothing' } });
  echo(methods);
  await invoke(hub, 'm');
  expect(await reasonOf(methods.over)).toMatchObject({
    message: 'the hub did not take the answer of a method within 0.2 s',
  });
  echo(await session.openMethods(never));
  expect(await invoke(hub, 'm')).toMatchObject({ status: 200 });
});

test('it lasts when the links for telemetry and commands are lost and repaired', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub);
  const methods = await session.openMethods(never);
  echo(methods);
  hub.faults.now({ act: 'detach' }, { link: 'telemetry' });
  await reasonOf(session.over);
  const repaired = await session.repair(never);
  expect(await repaired.openMethods(never)).toBe(methods);
  expect(await invoke(hub, 'm')).toMatchObject({ status: 200 });
});

test('it ends with its connection', async () => {
  await using hub = await startHub();
  await using session = await openSession(hub);
  const methods = await session.openMethods(never);
  hub.faults.now({ act: 'drop' });
  expect(await reasonOf(methods.over)).toMatchObject({ code: 'unavailable' });
  expect(await failure(session.openMethods(never))).toMatchObject({ code: 'unavailable' });
});

describe('a request that is not as it should be', () => {
  const uuid = Buffer.from('00112233445566778899aabbccddeeff', 'hex');
  const text = '00112233-4455-6677-8899-aabbccddeeff';
  const named = { 'IoThub-methodname': 'm' };
  const data = (bytes: string): unknown => rhea.message.data_section(Buffer.from(bytes));
  const requests: [string, object, number, string][] = [
    [
      'a correlation id that is a text, as IoT Edge sends it',
      { correlation_id: text, application_properties: named, body: data('1') },
      200,
      '1',
    ],
    ['no payload', { correlation_id: uuid, application_properties: named, body: data('') }, 200, 'null'],
    [
      'a payload that is a text value',
      { correlation_id: uuid, application_properties: named, body: '{"a":1}' },
      200,
      '{"a":1}',
    ],
    [
      'a payload in two sections',
      {
        correlation_id: uuid,
        application_properties: named,
        body: rhea.message.data_sections([Buffer.from('{"a"'), Buffer.from(':1}')]),
      },
      200,
      '{"a":1}',
    ],
    ['no name', { correlation_id: uuid, body: data('1') }, 400, '{"message":"the request names no method"}'],
    [
      'a name that is a number',
      { correlation_id: uuid, application_properties: { 'IoThub-methodname': 7 }, body: data('1') },
      400,
      '{"message":"the request names no method"}',
    ],
  ];

  test.each(requests)('%s: is answered', async (_title, request, status, payload) => {
    await using hub = await startBareHub();
    const session = await hub.open();
    echo(await session.openMethods(never));
    await hub.send(request as Message);
    const answer = await hub.next();
    expect(answer.application_properties).toEqual({ 'IoThub-status': status });
    expect(String((answer.body as { content: Buffer }).content)).toBe(payload);
    expect(answer.correlation_id).toEqual((request as Message).correlation_id);
  });

  test('that nobody could answer is dropped, with a word in the log, and the next one is answered', async () => {
    await using hub = await startBareHub();
    const log = recordingLog();
    const session = await hub.open(log);
    echo(await session.openMethods(never));
    // More than there is credit for at once: what is dropped must give its credit back.
    for (let n = 0; n < 40; n++) await hub.send({ application_properties: named, body: data('1') });
    await hub.send({ correlation_id: uuid, application_properties: named, body: data('2') });
    expect(String(((await hub.next()).body as { content: Buffer }).content)).toBe('2');
    expect(log.entries.filter(({ level }) => level === 'warn')).toHaveLength(40);
  });

  test('a message that cannot be decoded at all does no harm', async () => {
    await using hub = await startBareHub();
    const log = recordingLog();
    const session = await hub.open(log);
    echo(await session.openMethods(never));
    await hub.send(Buffer.from([0x00, 0x53, 0x77, 0xff]));
    await hub.send({ correlation_id: uuid, application_properties: named, body: data('2') });
    expect(String(((await hub.next()).body as { content: Buffer }).content)).toBe('2');
    expect(log.entries.filter(({ level }) => level === 'warn')).toHaveLength(1);
  });
});
