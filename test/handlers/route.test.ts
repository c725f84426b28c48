import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import type { HandlerEvent } from '../../src/handlers/contract.js';
import { findRoute, fitsGlob, matches, type Match } from '../../src/handlers/route.js';
import { commandEvent } from './kit.js';

const method: HandlerEvent = {
  event: 'method',
  method: 'reboot',
  deviceId: 'd',
  properties: {},
  body: Buffer.from('{"a":1}'),
};
const twin: HandlerEvent = {
  event: 'twin',
  path: 'fan.speed',
  version: 1,
  deviceId: 'd',
  properties: {},
  body: Buffer.from('3'),
};
const json = commandEvent({
  deviceId: 'dev1',
  messageId: 'job-17',
  contentType: 'application/json',
  properties: { command: 'restart', room: 'a*b' },
  body: Buffer.from(
    '{"action":"go","deep":{"n":5,"on":true,"none":null,"a/b":{"c~d":"x"}},"list":["p","q"]}',
  ),
});

test.each<[Match, boolean]>([
  [{}, true],
  [{ property: { command: 'restart' } }, true],
  [{ property: { command: 'Restart' } }, false],
  [{ property: { command: 're*' } }, true],
  [{ property: { command: 're?tar?' } }, true],
  [{ property: { command: 'rest' } }, false],
  [{ property: { command: ['stop', 're*'] } }, true],
  [{ property: { command: ['stop', 'start'] } }, false],
  [{ property: { room: 'a\\*b' } }, true],
  [{ property: { command: 'restart', room: 'none' } }, false],
  [{ property: { toString: '*' } }, false],
  [{ property: { missing: '*' } }, false],
  [{ contentType: 'application/*' }, true],
  [{ contentType: 'text/*' }, false],
  [{ messageId: 'job-*' }, true],
  [{ deviceId: ['dev1', 'dev2'] }, true],
  [{ deviceId: 'dev2' }, false],
  [{ body: { '/action': 'go' } }, true],
  [{ body: { '/action': 'g*' } }, true],
  [{ body: { '/action': 'stop' } }, false],
  [{ body: { '/action': ['stop', 'go'] } }, true],
  [{ body: { '/deep/n': 5, '/deep/on': true, '/deep/none': null } }, true],
  [{ body: { '/deep/n': '5' } }, false],
  [{ body: { '/deep/a~1b/c~0d': 'x' } }, true],
  [{ body: { '/list/1': 'q' } }, true],
  [{ body: { '/list/length': 2 } }, false],
  [{ body: { '/constructor/name': '*' } }, false],
  [{ method: 'reboot' }, false],
  [{ path: 'fan' }, false],
])('%j takes the command: %s', (match, expected) => {
  expect(matches(match, json)).toBe(expected);
});

test.each<[Match, HandlerEvent, boolean]>([
  [{ method: 'reboot' }, method, true],
  [{ method: 're*' }, method, true],
  [{ method: 'other' }, method, false],
  [{ body: { '/a': 1 } }, method, true],
  [{ path: 'fan.speed' }, twin, true],
  [{ path: 'fan' }, twin, true],
  [{ path: 'fa' }, twin, false],
  [{ path: 'speed' }, twin, false],
])('%j against a method or a twin', (match, event, expected) => {
  expect(matches(match, event)).toBe(expected);
});

test('the first handler of the right kind that fits gets the event', () => {
  const handlers = [
    { name: 'twin', on: 'twin' as const },
    { name: 'narrow', on: 'command' as const, match: { property: { command: 'stop' } } },
    { name: 'wide', on: 'command' as const },
    { name: 'never', on: 'command' as const },
  ];
  expect(findRoute(handlers, json)?.name).toBe('wide');
  expect(findRoute(handlers, twin)?.name).toBe('twin');
  expect(findRoute(handlers, method)).toBeUndefined();
});

test.each([
  ['not JSON', 'nonsense'],
  ['JSON nested 32 000 deep', '['.repeat(32_000) + ']'.repeat(32_000)],
  ['empty', ''],
  ['the prototype as a key', '{"__proto__":{"action":"go"}}'],
])('a body that is %s fits no pointer and does no harm', (_, text) => {
  const event = commandEvent({ body: Buffer.from(text) });
  expect(matches({ body: { '/action': 'go' } }, event)).toBe(false);
  expect(matches({ body: { '/__proto__/action': 'go' } }, event)).toBe(false);
});

describe('a glob', () => {
  test('fits what the same regular expression fits', () => {
    const pattern = fc.string({ unit: fc.constantFrom('a', 'b', '*', '?', '.', '💥'), maxLength: 8 });
    const text = fc.string({ unit: fc.constantFrom('a', 'b', '.', '\n', '💥'), maxLength: 12 });
    fc.assert(
      fc.property(pattern, text, (glob, subject) => {
        const source = Array.from(glob, (c) =>
          c === '*' ? '.*' : c === '?' ? '.' : c === '.' ? '\\.' : c,
        ).join('');
        expect(fitsGlob(glob, subject)).toBe(new RegExp(`^${source}$`, 'su').test(subject));
      }),
    );
  });

  test('takes no time that a sender could choose', () => {
    const started = performance.now();
    expect(fitsGlob('*a*a*a*a*a*a*a*a*b', 'a'.repeat(60_000))).toBe(false);
    expect(performance.now() - started).toBeLessThan(5_000);
  });
});
