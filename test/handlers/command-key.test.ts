import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';

import { commandKey } from '../../src/handlers/command-key.js';
import { command } from './kit.js';

test('is made of facts and body alone, and stays what it is: ledgers on disk are full of it', () => {
  const known = command({ messageId: 'm1', sequenceNumber: 7, body: Buffer.from('restart') });
  const facts = '["dev1",null,7,1767225600000,"m1"]\0';
  const expected = createHash('sha256').update(facts).update('restart').digest('base64url');
  expect(commandKey(known)).toBe(expected);
  expect(commandKey({ ...known, deliveryCount: 3, lockToken: 'another', properties: { a: 'b' } })).toBe(
    expected,
  );
});

test('is the same for whatever facts as if they were made JSON by JavaScript itself', () => {
  const text = fc.option(fc.string({ unit: 'binary' }), { nil: undefined });
  const number = fc.option(fc.oneof(fc.nat(), fc.maxSafeNat(), fc.double(), fc.constant(-0)), {
    nil: undefined,
  });
  const facts = fc.record({
    deviceId: fc.string(),
    moduleId: text,
    sequenceNumber: number,
    enqueuedAt: number,
    messageId: fc.oneof(fc.string({ unit: 'binary' }), fc.constant('\u0001'.repeat(70_000))),
    body: fc.uint8Array({ maxLength: 100 }).map((bytes) => Buffer.from(bytes)),
  });
  fc.assert(
    fc.property(facts, (known) => {
      const { deviceId, moduleId, sequenceNumber, enqueuedAt, messageId, body } = known;
      const list = [deviceId, moduleId ?? null, sequenceNumber ?? null, enqueuedAt ?? null, messageId];
      const expected = createHash('sha256')
        .update(`${JSON.stringify(list)}\0`)
        .update(body);
      expect(commandKey(command(known))).toBe(expected.digest('base64url'));
    }),
  );
});

test('there is none for a command without sequence number and message id', () => {
  expect(commandKey(command({ messageId: undefined, sequenceNumber: undefined }))).toBeUndefined();
});
