import fc from 'fast-check';
import rhea from 'rhea';
import { expect, test } from 'vitest';

import { decodeCommand } from '../../src/amqp/decode-command.js';
import { Violation } from '../../src/amqp/guard/values.js';
import { encodeCommand } from '../../src/amqp/messages.js';
import * as wire from './guard-frames.js';

const to = { deviceId: 'dev-01' };

/** A command whose encoded message has these sections, somewhere in a larger buffer. */
function decode(...sections: Buffer[]) {
  const before = Buffer.from('what came before');
  const bytes = Buffer.concat([before, ...sections, Buffer.from('what comes next')]);
  const end = before.length + Buffer.concat(sections).length;
  const tag = Buffer.from('tag');
  const head = { id: 0, tag, isSettled: false, fault: undefined };
  return decodeCommand({ ...head, bytes, start: before.length, end }, to);
}

const annotations = (...entries: Buffer[]) => wire.described(0x72, wire.map(...entries));
const properties = (...fields: Buffer[]) => wire.described(0x73, wire.list(...fields));
const applicationProperties = (...entries: Buffer[]) => wire.described(0x74, wire.map(...entries));
const data = (bytes: Buffer | string) => wire.described(0x75, wire.binary(bytes));
const value = (body: Buffer) => wire.described(0x77, body);

const text = fc.string({ unit: 'grapheme' });
const maybe = <T>(one: fc.Arbitrary<T>) => fc.option(one, { nil: undefined });

test('a command is read as a service encodes it', () => {
  const commands = fc.record({
    messageId: maybe(text),
    correlationId: maybe(text),
    userId: maybe(text),
    contentType: maybe(fc.stringMatching(/^[a-z]+\/[a-z]+$/)),
    contentEncoding: maybe(fc.constantFrom('utf-8', 'utf-16')),
    expiresAt: maybe(fc.integer({ min: 0, max: 4e12 })),
    ack: fc.constantFrom('positive', 'negative', 'full'),
    properties: fc.dictionary(
      // rhea makes a plain object of the map that it writes, and loses `__proto__` on the way.
      text.filter((name) => !name.startsWith('iothub-') && name !== '__proto__'),
      text,
      { noNullPrototype: true },
    ),
    body: fc.uint8Array({ maxLength: 2_000 }).map((bytes) => Buffer.from(bytes)),
  });
  fc.assert(
    fc.property(commands, (command) => {
      const { expiresAt } = command;
      const encoded = rhea.message.encode({
        ...encodeCommand({ ...command, to }),
        // rhea writes a number as a uint.
        ...(expiresAt === undefined ? {} : { absolute_expiry_time: new Date(expiresAt) }),
      });
      expect(decode(encoded)).toMatchObject({ ...command, deviceId: 'dev-01' });
    }),
    { numRuns: 300 },
  );
});

test('what the hub adds is read in whatever width it comes', () => {
  const lockToken = wire.string('b5f3b1a8-0c3e-4d0e-9a3e-0d6a6c1c9f10');
  const wide = decode(
    annotations(
      ...[wire.symbol('iothub-enqueuedtime'), wire.hex('83 0000019a9f3c5d80')],
      ...[wire.symbol('x-opt-sequence-number'), wire.hex('81 001fffffffffffff')],
      ...[wire.symbol('iothub-deliverycount'), wire.hex('70 00000003')],
      ...[wire.symbol('x-opt-lock-token'), lockToken],
    ),
  );
  expect(wide).toMatchObject({
    enqueuedAt: 0x019a9f3c5d80,
    sequenceNumber: Number.MAX_SAFE_INTEGER,
    deliveryCount: 3,
    lockToken: 'b5f3b1a8-0c3e-4d0e-9a3e-0d6a6c1c9f10',
  });
  const narrow = decode(
    annotations(
      ...[wire.symbol('x-opt-sequence-number'), wire.hex('55 07')],
      ...[wire.symbol('iothub-deliverycount'), wire.hex('53 02')],
      ...[wire.symbol('x-opt-lock-token'), wire.hex('98 b5f3b1a80c3e4d0e9a3e0d6a6c1c9f10')],
    ),
  );
  expect(narrow).toMatchObject({
    sequenceNumber: 7,
    deliveryCount: 2,
    lockToken: 'b5f3b1a8-0c3e-4d0e-9a3e-0d6a6c1c9f10',
  });
});

test('what the hub adds in a type that it cannot have is as if it were not there', () => {
  const command = decode(
    annotations(
      ...[wire.symbol('iothub-enqueuedtime'), wire.string('yesterday')],
      ...[wire.symbol('x-opt-sequence-number'), wire.hex('55 ff')], // -1
      ...[wire.symbol('iothub-deliverycount'), wire.hex('80 ffffffffffffffff')],
      ...[wire.symbol('x-opt-lock-token'), wire.map()],
      ...[wire.list(), wire.string('a key that is a list')],
    ),
    data('x'),
  );
  expect(command).toMatchObject({ deliveryCount: 0, lockToken: Buffer.from('tag').toString('hex') });
  expect([command.enqueuedAt, command.sequenceNumber]).toEqual([undefined, undefined]);
  expect(command.body.toString()).toBe('x');
});

test.each([
  ['a float', wire.hex('72 44fa2000'), 2_001],
  ['the last that a calendar has', wire.hex('83 001eb208c2dc0000'), 8.64e15],
  ['a later one', wire.hex('83 001eb208c2dc0001'), undefined],
  ['earlier than the first', wire.hex('83 8000000000000000'), undefined],
  ['infinite', wire.hex('82 7ff0000000000000'), undefined],
  ['not a number', wire.hex('82 7ff8000000000000'), undefined],
])('a time that is %s is one, or nothing', (_what, encoded, expected) => {
  const command = decode(
    annotations(wire.symbol('iothub-enqueuedtime'), encoded),
    properties(...Array.from({ length: 8 }, () => wire.nul), encoded),
  );
  expect([command.enqueuedAt, command.expiresAt]).toEqual([expected, expected]);
});

test.each([
  ['a number of 32 bits', wire.uint(7), '7'],
  ['zero', wire.hex('44'), '0'],
  ['a number of 64 bits', wire.hex('80 ffffffffffffffff'), '18446744073709551615'],
  ['a negative one', wire.hex('81 ffffffffffffffff'), '-1'],
  ['the smallest', wire.hex('81 8000000000000000'), '-9223372036854775808'],
  ['a short one', wire.hex('61 fffe'), '-2'],
  ['a byte', wire.hex('51 ff'), '-1'],
  ['a fraction', wire.hex('82 3ff8000000000000'), '1.5'],
  ['a float', wire.hex('72 3fc00000'), '1.5'],
  ['true', wire.bool(true), 'true'],
  ['false', wire.hex('56 00'), 'false'],
  ['a time', wire.hex('83 0000000000000000'), '1970-01-01T00:00:00.000Z'],
  ['a time that no calendar has', wire.hex('83 7fffffffffffffff'), undefined],
  ['a UUID', wire.hex('98 00112233445566778899aabbccddeeff'), '00112233-4455-6677-8899-aabbccddeeff'],
  ['bytes', wire.binary('sixteen bytes ..'), 'sixteen bytes ..'],
  ['short bytes', wire.hex('a0 02 6869'), 'hi'],
  ['a short symbol', wire.hex('a3 02 6869'), 'hi'],
  ['null', wire.nul, undefined],
  ['a map', wire.map(wire.string('k'), wire.string('v')), undefined],
  ['a described value', wire.described(0x99, wire.string('x')), undefined],
  ['a decimal', wire.hex('74 00000000'), undefined],
  ['an array', wire.hex('e0 04 02 50 01 02'), undefined],
])('an id or a property that is %s is text, or nothing', (_what, encoded, expected) => {
  const command = decode(
    properties(encoded, wire.nul, wire.nul, wire.nul, wire.nul, encoded),
    applicationProperties(wire.string('p'), encoded, wire.string('last'), wire.string('one')),
  );
  expect([command.messageId, command.correlationId]).toEqual([expected, expected]);
  expect(command.properties).toEqual(expected === undefined ? { last: 'one' } : { p: expected, last: 'one' });
});

test("the hub's own properties are not the sender's, and a name may be __proto__", () => {
  const names = ['iothub-operation', 'iothub-message-schema', 'iothub-creation-time-utc', '__proto__', '7'];
  const { properties, ack } = decode(
    applicationProperties(
      wire.string('iothub-ack'),
      wire.string('full'),
      ...names.flatMap((name) => [wire.string(name), wire.string(`value of ${name}`)]),
    ),
  );
  expect(ack).toBe('full');
  expect(Object.entries(properties)).toEqual([
    ['7', 'value of 7'],
    ['__proto__', 'value of __proto__'],
  ]);
});

test.each([
  ['none', [properties()], ''],
  ['one piece of data', [data('one')], 'one'],
  ['several, which are joined', [data('one'), data(''), data(' and two')], 'one and two'],
  ['a text', [value(wire.string('täxt'))], 'täxt'],
  ['binary', [value(wire.binary('bytes'))], 'bytes'],
  ['null', [value(wire.nul)], ''],
  ['a map', [value(wire.map(wire.string('speed'), wire.uint(3)))], '{"speed":3}'],
  ['described', [value(wire.described(0x99, wire.uint(1)))], '{"descriptor":153,"value":1}'],
  ['a sequence', [wire.described(0x76, wire.list(wire.uint(1), wire.string('two')))], '[1,"two"]'],
])('a body can be %s', (_what, sections, expected) => {
  expect(decode(...sections).body.toString()).toBe(expected);
});

test('a body in as many pieces as fit in a message is read about as fast as in one', () => {
  const piece = wire.described(0x75, wire.hex('a0 01 78'));
  const pieces = Buffer.alloc(170_000 * piece.length, piece);
  const before = performance.now();
  const { body } = decode(pieces);
  expect(body).toHaveLength(170_000);
  // To join each with all before it takes several seconds.
  expect(performance.now() - before).toBeLessThan(2_000);
});

test('sections that are for nobody here, and descriptors of every kind, are passed over', () => {
  const command = decode(
    wire.described(0x70, wire.list(wire.bool(true), wire.hex('5004'))),
    wire.described(0x71, wire.map(wire.symbol('x'), wire.list(wire.uint(1)))),
    wire.described(wire.hex('80 0000000000000073'), wire.list(wire.string('m-1'))),
    wire.described(wire.symbol('amqp:data:binary'), wire.hex('a0 02 6869')),
    wire.described(0x78, wire.map()),
  );
  expect(command).toMatchObject({ messageId: 'm-1', body: Buffer.from('hi') });
});

test.each([
  ['nothing at all', [], 'it is empty'],
  ['no section', [wire.string('hello')], 'no section'],
  ['a section of an unknown kind', [wire.described(0x60, wire.list())], 'a section of an unknown kind'],
  ['annotations that are a string', [wire.described(0x72, wire.string('x'))], 'a map is missing'],
  ['properties that are null', [wire.described(0x73, wire.nul)], 'a list is missing'],
  ['data that are a string', [wire.described(0x75, wire.string('x'))], 'its data are a string'],
  ['a key without a value', [annotations(wire.symbol('x'))], 'a key without a value'],
  ['a section that ends behind it', [data('whole').subarray(0, -1)], 'does not fit in'],
  ['a descriptor and nothing else', [wire.hex('00 53 77')], 'cut off'],
  [
    'properties that say less than they are',
    [wire.described(0x73, wire.claiming({ code: 0xd0, size: 6, count: 1, content: wire.hex('40 40') }))],
    'do not fill its size',
  ],
  ['a skipped section that is broken', [wire.described(0x78, wire.hex('a1 05 41'))], 'does not fit in'],
])('%s is no message', (_what, sections, why) => {
  expect(() => decode(...sections)).toThrow(why);
  expect(() => decode(...sections)).toThrow(Violation);
});
