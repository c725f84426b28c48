import fc from 'fast-check';
import { expect, test } from 'vitest';

import { IdSet } from '../../src/store/id-set.js';

test('a set of ids has what was added and not deleted, as a Set does', () => {
  // Near each other and far apart, beyond 32 bits too.
  const id = fc.oneof(
    fc.nat(20),
    fc.integer({ min: 4090, max: 4100 }),
    fc.integer({ min: 2 ** 40, max: 2 ** 40 + 5 }),
  );
  const steps = fc.array(fc.tuple(fc.constantFrom('add', 'delete'), id), { maxLength: 60 });
  fc.assert(
    fc.property(steps, (all) => {
      const ids = new IdSet();
      const model = new Set<number>();
      for (const [step, number] of all) {
        ids[step](number);
        model[step](number);
        for (const [, other] of all) expect(ids.has(other)).toBe(model.has(other));
      }
    }),
  );
});
