import fc from 'fast-check';
import { expect, test } from 'vitest';

import { shareOf } from '../../src/service/shares.js';

/** One table, a few readers, and any order in which they come by; each does what its share says. */
const situations = fc.record({
  partitions: fc.integer({ min: 1, max: 32 }),
  readers: fc.integer({ min: 1, max: 6 }),
  owners: fc.array(fc.option(fc.nat({ max: 7 }), { nil: undefined }), { minLength: 32, maxLength: 32 }),
  turns: fc.array(fc.nat({ max: 5 }), { minLength: 60, maxLength: 60 }),
});

test('whoever owns what at first, after a few rounds all have the same number or one more, and then nothing moves', () => {
  fc.assert(
    fc.property(situations, ({ partitions, readers, owners, turns }) => {
      const names = Array.from({ length: readers }, (_, n) => `r${String(n)}`);
      const table = new Map(
        Array.from({ length: partitions }, (_, n): [string, string | undefined] => {
          const owner = owners[n];
          return [String(n), owner === undefined ? undefined : names[owner]];
        }),
      );
      const visit = (reader: string): number => {
        const { take, giveUp } = shareOf(reader, names, table);
        for (const partition of take) {
          expect(table.get(partition)).toBeUndefined();
          table.set(partition, reader);
        }
        for (const partition of giveUp) {
          expect(table.get(partition)).toBe(reader);
          table.set(partition, undefined);
        }
        return take.length + giveUp.length;
      };
      for (const turn of turns) visit(names[turn % readers]!);
      for (let round = 0; round < 3; round++) names.forEach(visit);

      const counts = names.map((name) => [...table.values()].filter((owner) => owner === name).length);
      expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
      expect(counts.reduce((a, b) => a + b, 0)).toBe(partitions);
      expect(names.map(visit)).toEqual(names.map(() => 0));
    }),
  );
});

test('a reader that has enough keeps what it has when another one comes', () => {
  const owners = new Map([
    ['0', 'a'],
    ['1', 'a'],
    ['2', 'a'],
    ['3', 'a'],
  ]);
  expect(shareOf('a', ['a', 'b'], owners)).toEqual({ take: [], giveUp: ['2', '3'] });
  expect(shareOf('b', ['a', 'b'], owners)).toEqual({ take: [], giveUp: [] });
});
