import { expect, test } from 'vitest';

import { Twin } from '../../src/emulator/twin.js';
import type { Json } from '../../src/emulator/twin.js';

const now = Date.parse('2026-01-01T00:00:00Z');

test('merges: null deletes, objects merge, anything else replaces', () => {
  const twin = new Twin();
  twin.patchReported({ a: 1, deep: { x: 1, y: [1, 2] } }, now);
  expect(twin.patchReported({ a: null, deep: { y: [3], z: { w: null, v: 1 } } }, now)).toEqual({
    ok: true,
    version: 3,
  });
  expect(twin.forDevice()).toEqual({
    desired: { $version: 1 },
    reported: { deep: { x: 1, y: [3], z: { v: 1 } }, $version: 3 },
  });
});

test('raises the version and tells the device even when nothing changes', () => {
  const { twin, told } = watched();
  twin.patch({ desired: { a: 1 } }, now);
  twin.patch({ desired: { a: 1 } }, now);
  expect(told).toEqual([
    { a: 1, $version: 2 },
    { a: 1, $version: 3 },
  ]);
});

test('removes a whole section, and tells null for each of its keys', () => {
  const { twin, told } = watched();
  twin.patch({ desired: { a: 1, b: { c: 2 } } }, now);
  twin.patch({ desired: null }, now);
  expect(told[1]).toEqual({ a: null, b: null, $version: 3 });
  expect(twin.desired.properties).toEqual({});
});

test('replaces: what is not named is gone', () => {
  const { twin, told } = watched();
  twin.patch({ tags: { t: 1 }, desired: { a: 1, b: { c: 2 } } }, now);
  twin.replace({ tags: { u: 1 }, desired: { b: { d: 3 } } }, now);
  expect(twin.tags).toEqual({ u: 1 });
  expect(twin.desired.properties).toEqual({ b: { d: 3 } });
  expect(told[1]).toEqual({ a: null, b: { d: 3 }, $version: 3 });
});

test('gives each change a new etag, and a connect none', () => {
  const twin = new Twin();
  const { etag } = twin;
  twin.watch(() => undefined);
  twin.forDevice();
  expect(twin.etag).toBe(etag);
  twin.patch({ tags: { a: 1 } }, now);
  expect(twin.etag).not.toBe(etag);
});

test('dates each property in its metadata', () => {
  const twin = new Twin();
  twin.patch({ desired: { a: { b: 1 } } }, now);
  expect(twin.forService()['desired']).toEqual({
    a: { b: 1 },
    $metadata: {
      $lastUpdated: '2026-01-01T00:00:00.000Z',
      $lastUpdatedVersion: 2,
      a: {
        $lastUpdated: '2026-01-01T00:00:00.000Z',
        $lastUpdatedVersion: 2,
        b: { $lastUpdated: '2026-01-01T00:00:00.000Z', $lastUpdatedVersion: 2 },
      },
    },
    $version: 2,
  });
});

test.for<[string, unknown]>([
  ['an array', []],
  ['text', 'x'],
  ['a key with a dot', { 'a.b': 1 }],
  ['a key with a blank', { 'a b': 1 }],
  ['a nested key with a dollar', { a: { $b: 1 } }],
  ['eleven levels', nested(11)],
  ['a long string', { a: 'x'.repeat(4097) }],
  ['a large integer', { a: 2 ** 53 }],
  ['33 KB', Object.fromEntries(Array.from({ length: 33 }, (_, i) => [`k${i}`, 'x'.repeat(1024)]))],
])('refuses %s', ([, patch]) => {
  const twin = new Twin();
  expect(twin.patchReported(patch, now)).toMatchObject({ ok: false, status: 400 });
  expect(twin.reported.version).toBe(1);
});

test('takes ten levels and arrays', () => {
  expect(new Twin().patchReported(nested(10), now).ok).toBe(true);
  expect(new Twin().patchReported({ a: [1, { b: 2 }] }, now).ok).toBe(true);
});

function nested(levels: number): Json {
  return levels === 1 ? { v: 1 } : { n: nested(levels - 1) };
}

function watched(): { twin: Twin; told: Json[] } {
  const twin = new Twin();
  const told: Json[] = [];
  twin.watch((notification) => told.push(notification));
  return { twin, told };
}
