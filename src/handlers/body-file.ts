import { closeSync, constants, ftruncateSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

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
      // Read-only, full, or not there: the next may do.
    }
  }
  return undefined;
}

function namelessFile(directory: string, body: Buffer): number {
  const own = mkdtempSync(join(directory, 'iothub-body-'));
  const file = join(own, 'body');
  const { O_RDWR, O_CREAT, O_EXCL } = constants;
  const writable = openSync(file, O_RDWR | O_CREAT | O_EXCL, 0o600);
  try {
    for (let done = 0; done < body.length;) done += writeSync(writable, body, done);
    return openSync(file, 'r');
  } catch (error) {
    ftruncateSync(writable);
    throw error;
  } finally {
    closeSync(writable);
    rmSync(own, { recursive: true, force: true });
  }
}
