import fc from 'fast-check';
import { expect, test } from 'vitest';

import { encodeTelemetry } from '../../src/amqp/encode-telemetry.js';
import { decodeTelemetry } from '../../src/amqp/messages.js';
import { AgentError } from '../../src/errors.js';

const text = fc.string({ unit: 'grapheme', minLength: 1 });
const maybe = <T>(one: fc.Arbitrary<T>) => fc.option(one, { nil: undefined });
const telemetry = fc.record({
  messageId: text,
  correlationId: maybe(text),
  userId: maybe(text),
  contentType: maybe(fc.stringMatching(/^[a-z]+\/[a-z]+$/)),
  contentEncoding: maybe(fc.constantFrom('utf-8', 'utf-16')),
  expiresAt: maybe(fc.integer({ min: 0, max: 4e12 })),
  creationTime: maybe(fc.constant('2026-11-20T05:00:00.1234567Z')),
  component: maybe(text),
  outputName: maybe(text),
  properties: fc.dictionary(
    // rhea makes a plain object of the map that it reads, and loses `__proto__` on the way.
    text.filter((name) => !name.startsWith('iothub-') && name !== '__proto__'),
    fc.string({ unit: 'grapheme' }),
    { noNullPrototype: true },
  ),
  body: fc.uint8Array({ maxLength: 2_000 }).map((bytes) => Buffer.from(bytes)),
});

test('telemetry that was encoded is read as it was', () => {
  fc.assert(
    fc.property(telemetry, (message) => {
      expect(decodeTelemetry(encodeTelemetry(message, '/devices/d/messages/events'))).toEqual(message);
    }),
    { numRuns: 300 },
  );
});

test('a property called __proto__ leaves like any other', () => {
  const properties = Object.fromEntries([['__proto__', 'x']]);
  const encoded = encodeTelemetry({ messageId: 'm', properties, body: Buffer.from('b') }, 'to');
  expect(encoded.includes(Buffer.from('\xa1\x09__proto__\xa1\x01x', 'latin1'))).toBe(true);
});

test('what is no message is a data error', () => {
  expect(() => decodeTelemetry(Buffer.from('hello'))).toThrow(AgentError);
});
