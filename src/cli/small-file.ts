import { close, open, read, stat } from 'node:fs';
import { promisify } from 'node:util';

import { AgentError, errorText, systemErrorCode } from '../errors.js';

/** Far more than a connection string, a configuration or a bundle of certificates needs, and an end for /dev/zero. */
const longestFileBytes = 1024 * 1024;
const chunkBytes = 16 * 1024;

/** The text of a file; `no-input` when it is missing, `io` when it cannot be read. `what` says what it should hold. */
export async function readSmallFile(file: string, what: string): Promise<string> {
  return (await readSmallBytes(file, what)).toString('utf8');
}

/** The same for what may not be text. Not with `fs/promises` and a stream, which take 2 ms to load. */
export async function readSmallBytes(file: string, what: string): Promise<Buffer> {
  try {
    const descriptor = await promisify(open)(file, 'r');
    try {
      const chunks: Buffer[] = [];
      for (let left = longestFileBytes; left > 0;) {
        const chunk = Buffer.allocUnsafe(Math.min(left, chunkBytes));
        const { bytesRead } = await promisify(read)(descriptor, chunk, 0, chunk.length, null);
        if (bytesRead === 0) break;
        chunks.push(chunk.subarray(0, bytesRead));
        left -= bytesRead;
      }
      return Buffer.concat(chunks);
    } finally {
      await promisify(close)(descriptor);
    }
  } catch (error) {
    const missing = systemErrorCode(error) === 'ENOENT';
    const why = missing ? 'there is no such file' : errorText(error);
    throw new AgentError(missing ? 'no-input' : 'io', `cannot read ${what} from ${file}: ${why}`);
  }
}

/** The mode of a file that others than its owner may read or write, as `644`; undefined when none may. */
export async function openToOthers(file: string): Promise<string | undefined> {
  // Windows keeps its permissions elsewhere.
  if (process.platform === 'win32') return undefined;
  const { mode } = await promisify(stat)(file);
  return (mode & 0o077) === 0 ? undefined : (mode & 0o777).toString(8);
}
