import { createHash } from 'node:crypto';
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

test('there is none for a command without sequence number and message id', () => {
  expect(commandKey(command({ messageId: undefined, sequenceNumber: undefined }))).toBeUndefined();
});
