import { getEventListeners } from 'node:events';

import { expect, test } from 'vitest';

import { anyOf } from '../src/signals.js';

test('the first of its sources aborts it, with its reason, and none is listened to any more', () => {
  const [a, b] = [new AbortController(), new AbortController()];
  const either = anyOf(a.signal, b.signal);
  expect(either.aborted).toBe(false);
  const reason = new Error('b');
  b.abort(reason);
  a.abort(new Error('a'));
  expect(either.reason).toBe(reason);
  expect([a, b].map(({ signal }) => getEventListeners(signal, 'abort').length)).toEqual([0, 0]);
});

test('a source that is aborted already counts', () => {
  const reason = new Error('before');
  expect(anyOf(new AbortController().signal, AbortSignal.abort(reason)).reason).toBe(reason);
});

test('it leaves nothing behind on a source that lives on', () => {
  const long = new AbortController();
  for (let n = 0; n < 100; n++) {
    using _until = anyOf(long.signal, new AbortController().signal);
  }
  expect(getEventListeners(long.signal, 'abort')).toEqual([]);
});
