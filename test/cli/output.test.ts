import fc from 'fast-check';
import { expect, test } from 'vitest';

import { parseEnvelope } from '../../src/message-envelope.js';
import { openTelemetry } from '../../src/cli/message-input.js';
import { columns, createPrinter, humanTime } from '../../src/cli/output.js';
import { commandLine, messageLine, type ReceivedMessage } from '../../src/cli/output-message.js';
import { ExitTally, sentLine } from '../../src/cli/output-sent.js';
import { AgentError } from '../../src/errors.js';
import type { Command, TelemetryMessage } from '../../src/model.js';
import { fakeIo } from './fake-io.js';

const look = { columns: undefined, time: (ms: number) => humanTime(ms, true) };

const command: Command = {
  deviceId: 'dev1',
  messageId: 'm1',
  correlationId: 'c1',
  userId: 'u1',
  contentType: 'application/json',
  contentEncoding: 'utf-8',
  expiresAt: Date.parse('2026-11-20T06:00:00Z'),
  ack: 'full',
  enqueuedAt: Date.parse('2026-11-20T05:00:00.5Z'),
  sequenceNumber: 7,
  deliveryCount: 0,
  lockToken: 'f00',
  properties: { room: 'a', ['__proto__']: 'b' },
  body: Buffer.from('{"t": 21.50,\n "ts": 1763614800123456789}'),
};

test('a received command is one line of JSON, its body as it was written', () => {
  expect(commandLine(command).json()).toBe(
    '{"messageId":"m1","correlationId":"c1","userId":"u1","expiresAt":"2026-11-20T06:00:00.000Z",' +
      '"contentType":"application/json","contentEncoding":"utf-8","properties":{"room":"a","__proto__":"b"},' +
      '"body":{"t": 21.50,  "ts": 1763614800123456789},' +
      '"hub":{"deviceId":"dev1","enqueuedAt":"2026-11-20T05:00:00.500Z","sequenceNumber":7,"deliveryCount":0,"ack":"full"}}',
  );
});

test('and one line of text, cut to the terminal', () => {
  const { text } = commandLine(command);
  const line =
    '2026-11-20 05:00:00.500Z  m1                          room=a __proto__=b  {"t": 21.50,\\n "ts": 1763614800123456789}';
  expect(text(look)).toBe(line);
  expect(text({ ...look, columns: 40 })).toBe(`${line.slice(0, 39)}…`);
});

test.each([
  ['application/json', Buffer.from('{"a":1}'), '"body":{"a":1}'],
  ['application/json', Buffer.from('{"a":'), '"bodyText":"{\\"a\\":"'],
  ['application/vnd.x+json; charset=utf-8', Buffer.from('1'), '"body":1'],
  ['text/plain', Buffer.from('{"a":1}'), '"bodyText":"{\\"a\\":1}"'],
  [undefined, Buffer.from('häl\n'), '"bodyText":"häl\\n"'],
  ['text/plain', Buffer.from([0xff, 0]), '"bodyBase64":"/wA="'],
  ['application/json', Buffer.from([]), '"bodyText":""'],
])('a body of type %s is shown as what it is', (contentType, body, member) => {
  expect(messageLine({ properties: {}, contentType, body, hub: {} }).json()).toBe(
    `{${contentType === undefined ? '' : `"contentType":"${contentType}",`}"properties":{},${member},"hub":{}}`,
  );
});

test('what a device sends cannot drive the terminal, as text or as JSON', () => {
  const attack = '\u001b]0;x\u0007\u009b31m\u202e\nline two';
  const received: ReceivedMessage = {
    messageId: attack,
    contentType: 'application/json',
    properties: { [attack]: attack },
    body: Buffer.from(JSON.stringify(attack)),
    hub: {},
  };
  for (const line of [messageLine(received).json(), messageLine(received).text(look)]) {
    expect(line).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202e]/);
  }
  expect(JSON.parse(messageLine(received).json())).toMatchObject({ messageId: attack, body: attack });
});

/** Telemetry as a hub hands it on, with everything that a sender can give. */
const telemetry = fc.record({
  messageId: fc.string({ minLength: 1 }),
  correlationId: fc.string(),
  userId: fc.string(),
  contentType: fc.constantFrom('application/json', 'text/plain', 'application/octet-stream', 'x'),
  contentEncoding: fc.constantFrom('utf-8', 'utf-16'),
  creationTime: fc.constantFrom('2026-11-20T05:00:00.1234567Z', '2026-11-20T06:00:00+01:00'),
  expiresAt: fc.nat(2 ** 40),
  component: fc.string(),
  outputName: fc.string(),
  properties: fc.dictionary(fc.string(), fc.string()),
  body: fc.oneof(
    fc.uint8Array().map((bytes) => Buffer.from(bytes)),
    fc.string().map((text) => Buffer.from(text)),
    fc.json().map((text) => Buffer.from(text)),
  ),
});

test('what receive -o json prints send --ndjson takes, and it is the same message', async () => {
  await fc.assert(
    fc.asyncProperty(telemetry, async (sent: TelemetryMessage) => {
      const line = messageLine({ ...sent, hub: { deviceId: 'other', enqueuedAt: 5 } }).json();
      const { items } = await openTelemetry(fakeIo({ stdin: `${line}\n` }), { ndjson: true });
      for await (const { message, error } of items) {
        expect(error).toBeUndefined();
        expect({ ...message, properties: { ...message?.properties } }).toEqual(sent);
      }
    }),
  );
});

test('a received command can be sent again as a command', () => {
  expect(parseEnvelope(Buffer.from(commandLine(command).json()), 'command', 0)).toMatchObject({
    messageId: 'm1',
    form: 'json',
    expiresAt: command.expiresAt,
  });
});

test('the outcome of a message is one line', () => {
  const accepted = sentLine({ line: 1, messageId: 'm1', result: { outcome: 'accepted' }, ms: 41.4 });
  expect(accepted.json()).toBe('{"line":1,"messageId":"m1","outcome":"accepted","ms":41}');
  expect(accepted.text(look)).toBe('accepted  line 1 m1                   41 ms');

  const rejected = sentLine({
    messageId: 'm2',
    result: { outcome: 'rejected', condition: 'amqp:link:message-size-exceeded', description: 'too big' },
    ms: 3,
  });
  expect(JSON.parse(rejected.json())).toEqual({
    messageId: 'm2',
    outcome: 'rejected',
    ms: 3,
    condition: 'amqp:link:message-size-exceeded',
    error: expect.stringContaining('too big'),
    hint: expect.any(String),
    retryable: false,
  });
  expect(rejected.text(look)).toMatch(/^rejected {2}m2 +3 ms +.*too big/);

  const failed = sentLine({ line: 3, error: new AgentError('data', 'it is not JSON') });
  expect(failed.json()).toBe('{"line":3,"outcome":"failed","error":"it is not JSON","retryable":false}');
  const released = sentLine({ messageId: 'm4', result: { outcome: 'released' }, ms: 1 });
  expect(JSON.parse(released.json())).toMatchObject({ outcome: 'released', retryable: true });
});

test('many messages exit by the first failure, but by one that is final rather than one that may pass', () => {
  const tally = new ExitTally();
  expect(tally.exitCode).toBe(0);
  tally.add({ result: { outcome: 'accepted' }, ms: 1 });
  expect(tally.exitCode).toBe(0);
  tally.add({ result: { outcome: 'released' }, ms: 1 });
  expect(tally.exitCode).toBe(75);
  tally.add({ result: { outcome: 'rejected' }, ms: 1 });
  expect(tally.exitCode).toBe(65);
  tally.add({ result: { outcome: 'rejected', condition: 'amqp:unauthorized-access' }, ms: 1 });
  expect(tally.exitCode).toBe(65);
});

test('auto is text on a terminal and JSON elsewhere; none prints nothing', async () => {
  const what = { json: () => 'j', text: () => 't' };
  const printed = async (output: 'auto' | 'text' | 'json' | 'none', isTTY: boolean): Promise<string> => {
    const io = fakeIo({ isTTY });
    await createPrinter(io, { output }).print(what);
    return io.out;
  };
  expect(await printed('auto', true)).toBe('t\n');
  expect(await printed('auto', false)).toBe('j\n');
  expect(await printed('json', true)).toBe('j\n');
  expect(await printed('text', false)).toBe('t\n');
  expect(await printed('none', true)).toBe('');
});

test('times for people are local, or UTC with a Z', () => {
  const ms = Date.parse('2026-11-20T05:00:00.123Z');
  expect(humanTime(ms, true)).toBe('2026-11-20 05:00:00.123Z');
  const local = new Date(ms);
  expect(humanTime(ms, false)).toContain(`${String(local.getHours()).padStart(2, '0')}:00:00.123`);
});

test('a time that no calendar has is still printed', () => {
  const received = { properties: {}, body: Buffer.from('x'), expiresAt: 1e300, hub: { enqueuedAt: -1e300 } };
  expect(messageLine(received).text(look)).toContain('-1e+300');
  expect(JSON.parse(messageLine(received).json())).toEqual({ properties: {}, bodyText: 'x', hub: {} });
});

test('columns line up, and a cut never splits a character', () => {
  expect(columns(['a', 'bc', 'd'], [3, 3], undefined)).toBe('a    bc   d');
  expect(columns(['🌡🌡🌡🌡'], [], 3)).toBe('🌡🌡…');
});
