import { expect, test } from 'vitest';

import { commandKey } from '../../src/handlers/command-key.js';
import { command } from './kit.js';

const known = command({ messageId: 'm1', sequenceNumber: 7, body: Buffer.from('restart') });

test('is made of facts and body alone, and stays what it is: ledgers on disk are full of it', () => {
  expect(commandKey(known)).toBe('7.1767225600000.7.1838682101');
  expect(commandKey({ ...known, sequenceNumber: undefined })).toBe(
    'spxLreoW7liA6xjH9ghCN0mYdBg-wAC9YDQlXRfRK1M',
  );
});

test.each([7, undefined])(
  'is the same for each delivery of a command with sequence number %s',
  (sequenceNumber) => {
    const first = { ...known, sequenceNumber };
    const second = { ...first, deliveryCount: 3, lockToken: 'another', properties: { a: 'b' } };
    expect(commandKey(second)).toBe(commandKey(first));
  },
);

test.each([7, undefined])(
  'is another one as soon as a fact or the body is, with sequence number %s',
  (sequenceNumber) => {
    const first = { ...known, sequenceNumber };
    const others = [
      { ...first, sequenceNumber: 8 },
      { ...first, enqueuedAt: 1 },
      { ...first, enqueuedAt: undefined },
      { ...first, messageId: 'm2' },
      { ...first, deviceId: 'another' },
      { ...first, moduleId: 'a module' },
      { ...first, body: Buffer.from('restarT') },
      { ...first, messageId: 'm1r', body: Buffer.from('estart') },
    ];
    const keys = new Set([first, ...others].map((one) => commandKey(one)));
    // The first of the others has a number in either case.
    expect(keys.size).toBe(1 + others.length);
  },
);

test('there is none for a command without sequence number and message id', () => {
  expect(commandKey(command({ messageId: undefined, sequenceNumber: undefined }))).toBeUndefined();
});
