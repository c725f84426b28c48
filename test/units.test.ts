import fc from 'fast-check';
import { expect, test } from 'vitest';

import { formatDuration, formatSeconds, parseDuration, parseSize, parseTime } from '../src/units.js';

test.each([
  ['500ms', 500],
  ['30s', 30_000],
  ['1.5s', 1500],
  ['5m', 300_000],
  ['1h30m', 5_400_000],
  ['2d', 172_800_000],
  ['1d2h3m4s5ms', 93_784_005],
  ['PT5M', 300_000],
  ['P1DT2H', 93_600_000],
  ['PT0.5S', 500],
  ['0', 0],
  ['0s', 0],
])('the duration %s is %i ms', (text, ms) => {
  expect(parseDuration(text)).toBe(ms);
});

test.each(['', 's', '30 s', '-5s', '5M', '30m1h', '1h1h', 'P', 'PT', 'P1M', '1e3s', '9999999999999999d'])(
  '"%s" is not a duration',
  (text) => {
    expect(() => parseDuration(text)).toThrow(SyntaxError);
  },
);

test('a bare number is asked for its unit', () => {
  expect(() => parseDuration('30')).toThrow('a duration needs a unit: write 30s or 30ms');
});

test('a time for people does not show what a clock is late by', () => {
  expect([45_003, 44_997, 298, 52, 0].map(formatSeconds)).toEqual([
    '45 s',
    '45 s',
    '0.3 s',
    '0.052 s',
    '0 s',
  ]);
});

test('what formatDuration writes parseDuration reads back', () => {
  expect([0, 45_000, 5_400_000, 1500].map(formatDuration)).toEqual(['0s', '45s', '1h30m', '1s500ms']);
  fc.assert(
    fc.property(fc.nat({ max: 10 ** 12 }), (ms) => {
      expect(parseDuration(formatDuration(ms))).toBe(ms);
    }),
  );
});

test.each([
  ['512', 512],
  ['0', 0],
  ['64KB', 64_000],
  ['256KiB', 262_144],
  ['256 kib', 262_144],
  ['1.5MiB', 1_572_864],
  ['2GB', 2e9],
])('the size %s is %i bytes', (text, bytes) => {
  expect(parseSize(text)).toBe(bytes);
});

test.each(['', 'KiB', '-1', '5K', '5 elephants', '1,5MB', '9999999999GiB'])('"%s" is not a size', (text) => {
  expect(() => parseSize(text)).toThrow(SyntaxError);
});

const now = Date.parse('2026-11-20T05:00:00Z');

test.each([
  ['2026-11-20T05:00:00Z', now],
  ['2026-11-20t05:00:00.250z', now + 250],
  ['2026-11-20 06:00:00+01:00', now],
  ['1763614800', 1_763_614_800_000],
  ['1763614800123', 1_763_614_800_123],
  ['-15m', now - 900_000],
  ['now-1h', now - 3_600_000],
  ['now+1h', now + 3_600_000],
  ['+30s', now + 30_000],
  ['now', now],
])('the time %s is read', (text, ms) => {
  expect(parseTime(text, now)).toBe(ms);
});

test.each([
  '',
  'yesterday',
  '2026-02-30T00:00:00Z',
  '2026-11-20',
  '2026-11-20T25:00:00Z',
  '12345',
  'now-',
  'now-1',
])('"%s" is not a time', (text) => {
  expect(() => parseTime(text, now)).toThrow(SyntaxError);
});

test('a time without a zone is asked for it', () => {
  expect(() => parseTime('2026-11-20T05:00:00', now)).toThrow(
    'a time needs its zone: write 2026-11-20T05:00:00Z',
  );
});
