import fc from 'fast-check';
import { expect, test } from 'vitest';

import { createBackoff } from '../src/backoff.js';

const seconds = (ms: number): number => ms / 1000;

const dice = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 60, maxLength: 60 });

function backoffWith(thrown: readonly number[]) {
  let throwNumber = 0;
  return createBackoff(() => thrown[throwNumber++ % thrown.length]!);
}

test('network trouble is tried again after 1, 2, 4 … 30 s at most, and half of that at least', () => {
  const longest = createBackoff(() => 1);
  const shortest = createBackoff(() => 0);
  expect(Array.from({ length: 7 }, () => seconds(longest.next('soon')))).toEqual([1, 2, 4, 8, 16, 30, 30]);
  expect(Array.from({ length: 7 }, () => seconds(shortest.next('soon')))).toEqual([0.5, 1, 2, 4, 8, 15, 15]);
});

test('a hub that said no is asked again after minutes, and never given up', () => {
  const backoff = createBackoff(() => 1);
  expect(Array.from({ length: 5 }, () => seconds(backoff.next('late')))).toEqual([60, 120, 240, 300, 300]);
});

test('health forgets the failures', () => {
  const backoff = createBackoff(() => 1);
  for (let n = 0; n < 5; n++) backoff.next('soon');
  backoff.reset();
  expect(seconds(backoff.next('soon'))).toBe(1);
});

test('whatever the dice say, at most ten attempts fall into the first minute and four into any later one', () => {
  fc.assert(
    fc.property(dice, (thrown) => {
      const backoff = backoffWith(thrown);
      const attempts = [0];
      while (attempts.at(-1)! < 600) attempts.push(attempts.at(-1)! + seconds(backoff.next('soon')));
      const within = (from: number): number => attempts.filter((at) => at >= from && at < from + 60).length;
      expect(within(0)).toBeLessThanOrEqual(10);
      for (const at of attempts.filter((at) => at >= 60)) expect(within(at)).toBeLessThanOrEqual(4);
    }),
  );
});

test.each([
  { faultSeconds: 2, backWithinSeconds: 5 },
  { faultSeconds: 10, backWithinSeconds: 16 },
  { faultSeconds: 600, backWithinSeconds: 35 },
])(
  'after $faultSeconds s of network trouble it is tried again within $backWithinSeconds s, whatever the dice say',
  ({ faultSeconds, backWithinSeconds }) => {
    fc.assert(
      fc.property(dice, (thrown) => {
        const backoff = backoffWith(thrown);
        let at = 0;
        while (at < faultSeconds) at += seconds(backoff.next('soon'));
        expect(at - faultSeconds).toBeLessThanOrEqual(backWithinSeconds);
      }),
    );
  },
);
