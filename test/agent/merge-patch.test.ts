import fc from 'fast-check';
import { expect, test } from 'vitest';

import { combined, descend, difference, merged, nested } from '../../src/agent/merge-patch.js';
import { json } from './json.js';

test('the difference is the patch that leads there, and nothing when there is none', () => {
  fc.assert(
    fc.property(json, json, (from, to) => {
      expect(merged(from, difference(from, to))).toEqual(to);
      expect(difference(to, to)).toEqual({});
    }),
  );
});

test('null deletes, objects merge, anything else replaces', () => {
  expect(merged({ a: 1, b: { c: 2, d: 3 }, e: [1] }, { a: null, b: { c: null, f: 4 }, e: [2] })).toEqual({
    b: { d: 3, f: 4 },
    e: [2],
  });
  expect(merged({ a: 1 }, { a: { b: null, c: 1 } })).toEqual({ a: { c: 1 } });
});

test('two patches combined do what they do one after the other', () => {
  const patches: [object, object, object][] = [
    [{ a: { b: 1 } }, { a: { c: 2 } }, { a: { b: 1, c: 2 } }],
    [{ a: { b: 1 } }, { a: null }, { a: null }],
    [{ a: 1 }, { a: { b: 2 } }, { a: { b: 2 } }],
    [{ a: null }, { b: 1 }, { a: null, b: 1 }],
  ];
  for (const [first, second, both] of patches) expect(combined(first, second)).toEqual(both);
});

test('names that an object has by birth are names like any other', () => {
  const hostile = JSON.parse(
    '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}',
  ) as object;
  const result = merged({}, hostile);
  expect(Object.keys(result)).toEqual(['__proto__', 'constructor']);
  expect('polluted' in {}).toBe(false);
  expect(Object.getPrototypeOf(result)).toBe(Object.prototype);
  expect(difference({}, {})).toEqual({});
  expect(descend({}, ['constructor', 'name'])).toBeUndefined();
  expect(Object.keys(nested(['__proto__'], 1))).toEqual(['__proto__']);
});

test('what is nested is found again', () => {
  expect(nested(['fan', 'speed'], 3)).toEqual({ fan: { speed: 3 } });
  expect(descend(nested(['fan', 'speed'], 3), ['fan', 'speed'])).toBe(3);
  expect(descend({ fan: 3 }, ['fan', 'speed'])).toBeUndefined();
});
