import { crc32 } from 'node:zlib';

/** Below this, a view of the bytes and a call out of JavaScript take longer than the sum itself. */
const shortBytes = 64;
const polynomial = 0xedb88320;
const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let sum = byte;
  for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? polynomial : 0);
  return sum;
});

/** CRC32 of the bytes from `start` to `end`, as `zlib` counts it. */
export function crc32Of(bytes: Buffer, start: number, end: number): number {
  if (end - start > shortBytes) return crc32(bytes.subarray(start, end));
  let sum = 0xffffffff;
  for (let at = start; at < end; at++) {
    sum = (table[(sum ^ (bytes[at] ?? 0)) & 0xff] ?? 0) ^ (sum >>> 8);
  }
  return ~sum >>> 0;
}
