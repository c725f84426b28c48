import { crc32 } from 'node:zlib';

/** Below this, a view of the bytes and a call out of JavaScript take longer than the sum itself. */
const shortBytes = 128;
const polynomial = 0xedb88320;
/** What a byte adds to the sum, and what it adds when one, two and three more have come behind it. */
const table = Int32Array.from({ length: 256 }, (_, byte) => {
  let sum = byte;
  for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? polynomial : 0);
  return sum;
});
const second = table.map(behind);
const third = second.map(behind);
const fourth = third.map(behind);

function behind(sum: number): number {
  return (sum >>> 8) ^ (table[sum & 0xff] ?? 0);
}

/** CRC32 of the bytes from `start` to `end`, as `zlib` counts it. */
export function crc32Of(bytes: Buffer, start: number, end: number): number {
  if (end - start > shortBytes) return crc32(bytes.subarray(start, end));
  let sum = -1;
  let at = start;
  for (; at + 4 <= end; at += 4) {
    sum ^= bytes.readInt32LE(at);
    sum =
      (fourth[sum & 0xff] ?? 0) ^
      (third[(sum >>> 8) & 0xff] ?? 0) ^
      (second[(sum >>> 16) & 0xff] ?? 0) ^
      (table[sum >>> 24] ?? 0);
  }
  for (; at < end; at++) sum = (table[(sum ^ (bytes[at] ?? 0)) & 0xff] ?? 0) ^ (sum >>> 8);
  return ~sum >>> 0;
}
