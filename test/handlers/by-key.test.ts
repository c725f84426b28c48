import fc from 'fast-check';
import { expect, test } from 'vitest';

import { ByKey } from '../../src/handlers/by-key.js';

interface Thing {
  readonly key: string;
  next: Thing | undefined;
}

test('finds what was added and not removed, whatever the keys and however many', () => {
  const steps = fc.array(fc.record({ key: fc.string({ maxLength: 4 }), adds: fc.boolean() }), {
    size: 'large',
  });
  fc.assert(
    fc.property(fc.oneof(fc.nat(20), fc.constant(Infinity)), steps, (expected, all) => {
      const byKey = new ByKey<Thing>(expected);
      const known = new Map<string, Thing>();
      for (const { key, adds } of all) {
        const thing = known.get(key);
        expect(byKey.get(key)).toBe(thing);
        if (adds && thing === undefined) {
          const fresh = { key, next: undefined };
          known.set(key, fresh);
          byKey.add(fresh);
        } else if (!adds && thing !== undefined) {
          known.delete(key);
          byKey.remove(thing);
        }
        expect(byKey.size).toBe(known.size);
      }
      expect(new Set(byKey)).toEqual(new Set(known.values()));
    }),
  );
});
