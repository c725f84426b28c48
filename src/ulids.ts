import { randomFillSync } from 'node:crypto';
import { monotonicFactory } from 'ulid';

/** Makes ULIDs, to be ids of messages: sorted as they were made, even within a millisecond. */
export function ulids(): () => string {
  const next = monotonicFactory(random);
  return () => next();
}

/**
 * What `ulid` would find by itself is Web Crypto, which takes longer to load than the modules of a `send`. And it is
 * asked for each of sixteen characters: at a hundred messages a second that was an eighth of what an agent did.
 */
function random(): number {
  if (used === bytes.length) {
    randomFillSync(bytes);
    used = 0;
  }
  return (bytes[used++] ?? 0) / 256;
}

const bytes = new Uint8Array(512);
let used = bytes.length;
