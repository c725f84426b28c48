import { expect, test } from 'vitest';

import { didYouMean } from '../src/did-you-mean.js';

const known = ['contentType', 'messageId', 'max_size', 'on', 'to'];

test.each([
  ['contentTyp', 'contentType'],
  ['content-type', 'contentType'],
  ['mesageId', 'messageId'],
  ['max_szie', 'max_size'],
  ['no', 'on'],
])('%s means %s', (given, meant) => {
  expect(didYouMean(given, known)).toBe(meant);
});

test.each(['banana', 'x', '', 'messageIdentifierOfSomething'])('"%s" means nothing we know', (given) => {
  expect(didYouMean(given, ['contentType', 'messageId', 'max_size'])).toBeUndefined();
});
