import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';

/**
 * The body as a file without a name, for a program's standard input: unlike a pipe it can be left unread, read in
 * part, and opened again as `/dev/stdin`. In memory where there is `/dev/shm`.
 */
export interface BodyFile extends Disposable {
  /** Open for reading, at its start. */
  readonly descriptor: number;
}

/** Undefined where no such file can be made, and a pipe has to do. */
export function bodyFile(body: Buffer): BodyFile | undefined {
  for (const directory of ['/dev/shm', tmpdir()]) {
    try {
      const descriptor = namelessFile(directory, body);
      return {
        descriptor,
        [Symbol.dispose]: () => {
          closeSync(descriptor);
        },
      };
    } catch {
      // Read-only, full, not there, or without nameless files: the next may do.
    }
  }
  return undefined;
}

/** O_TMPFILE of open(2), which Node does not list: a file that never has a name, so that none can stay behind. */
const temporaryFile = 0o20000000 | constants.O_DIRECTORY;

function namelessFile(directory: string, body: Buffer): number {
  const writable = openSync(directory, temporaryFile | constants.O_RDWR, 0o600);
  try {
    for (let done = 0; done < body.length;) done += writeSync(writable, body, done);
    return openSync(`/proc/self/fd/${writable}`, 'r');
  } finally {
    closeSync(writable);
  }
}
