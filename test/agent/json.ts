import fc from 'fast-check';

import type { JsonObject } from '../../src/agent/merge-patch.js';

const names = fc.constantFrom('a', 'b', 'c', 'd');
const scalar = fc.oneof(
  fc.integer({ min: 0, max: 3 }),
  fc.constantFrom('x', ''),
  fc.boolean(),
  fc.constant([1, { a: 2 }]),
);

/** Small objects that often have members in common. */
export const json: fc.Arbitrary<JsonObject> = fc.letrec<{ object: JsonObject; value: unknown }>((tie) => ({
  object: fc.dictionary(names, tie('value'), {
    maxKeys: 4,
    noNullPrototype: true,
  }),
  value: fc.oneof({ depthSize: 'small', withCrossShrink: true }, scalar, tie('object')),
})).object;
