import { InvalidArgumentError } from 'commander';
import { expect, test } from 'vitest';

import { count, duration, durationOrForever, property, size, time } from '../../src/cli/values.js';

test('arguments become values', () => {
  expect(duration('5m')).toBe(300_000);
  expect([durationOrForever('0'), durationOrForever('1s')]).toEqual([Infinity, 1000]);
  expect(size('1KiB')).toBe(1024);
  expect(time('2026-11-20T05:00:00Z')).toBe(Date.UTC(2026, 10, 20, 5));
  expect(count(1, 10)('7')).toBe(7);
});

test('an argument that cannot be read is commander’s kind of error, with the right form in it', () => {
  for (const wrong of [() => duration('30'), () => size('x'), () => time('x'), () => count(1)('0')]) {
    expect(wrong).toThrow(InvalidArgumentError);
  }
  expect(() => count(1, 10)('11')).toThrow('write a whole number, 1 to 10');
  expect(() => count(1)('1.5')).toThrow('write a whole number, at least 1');
});

test('properties are collected, and a name such as __proto__ is only a name', () => {
  const properties = ['a=1', '__proto__=x', 'constructor=', 'b=c=d'].reduce<
    Record<string, string> | undefined
  >((soFar, text) => property(text, soFar), undefined);
  expect(Object.entries(properties ?? {})).toEqual([
    ['a', '1'],
    ['__proto__', 'x'],
    ['constructor', ''],
    ['b', 'c=d'],
  ]);
  expect(({} as Record<string, unknown>)['x']).toBeUndefined();
});

test('a property without a name, without a value or given twice is refused', () => {
  expect(() => property('room', undefined)).toThrow('write it as NAME=VALUE');
  expect(() => property('=a', undefined)).toThrow('write it as NAME=VALUE');
  expect(() => property('a=2', property('a=1', undefined))).toThrow('a is there twice');
});
