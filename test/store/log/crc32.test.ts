import { crc32 } from 'node:zlib';

import fc from 'fast-check';
import { expect, test } from 'vitest';

import { crc32Of } from '../../../src/store/log/crc32.js';

test('a checksum is that of zlib, for few bytes and for many', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(50), fc.nat(50), (all, before, after) => {
      const bytes = Buffer.from(all);
      const start = Math.min(before, bytes.length);
      const end = Math.max(start, bytes.length - after);
      expect(crc32Of(bytes, start, end)).toBe(crc32(bytes.subarray(start, end)));
    }),
  );
});
