import fc from 'fast-check';
import { expect, test } from 'vitest';

import { jsonOnOneLine } from '../../src/cli/json-text.js';
import { memberText } from '../../src/json-member.js';

test('a member is found as it was written', () => {
  const text =
    '{"a":{"body":1}, "b\\u006fdy" : { "ts": 1763614800123456789, "s": "}\\",{" } ,"c":[{"body":2}]}';
  expect(memberText(text, 'body')).toBe('{ "ts": 1763614800123456789, "s": "}\\",{" }');
  expect(memberText(text, 'c')).toBe('[{"body":2}]');
  expect(memberText(text, 'missing')).toBeUndefined();
  expect(memberText('{"body":1,"body":2}', 'body')).toBe('2');
  expect(memberText('{"body":"a:b"}', 'body')).toBe('"a:b"');
  expect(memberText('{}', 'body')).toBeUndefined();
});

test('what it finds is what JSON.parse would have found', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.constantFrom(0, 2), (object, indent) => {
      const text = JSON.stringify(object, undefined, indent);
      for (const [name, value] of Object.entries(JSON.parse(text) as object)) {
        expect(JSON.parse(memberText(text, name) ?? '')).toEqual(value);
      }
    }),
  );
});

test('one line, no control characters, the same meaning', () => {
  const text = '{\r\n "a": "\u009b31m\u202e\u2028 \\n",\n "b": 1 }';
  const line = jsonOnOneLine(text);
  expect(line).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u2028\u202e]/);
  expect(JSON.parse(line)).toEqual(JSON.parse(text));
});

test('a megabyte of escapes is read too', () => {
  const value = '\\u0000\\n'.repeat(200_000);
  expect(memberText(`{"a":1,"body":"${value}"}`, 'body')).toBe(`"${value}"`);
});
