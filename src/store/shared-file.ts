import { mkdir } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';

import { AgentError, errorText, systemErrorCode } from '../errors.js';
import { diskFiles, removeQuietly } from './log/files.js';
import { own, StoreInUse, type Owner } from './log/owner.js';

/**
 * A small file that several processes of one machine read and change. A change is whole or not there, whenever the
 * process or the power ends, and none is lost to another's: it is read, changed and written under a lock, as a new
 * file that takes the place of the old one when it is on disk.
 *
 * The lock is the sockets in `{file}.lock`, a directory that stays (see `log/owner.ts`).
 */
export class SharedFile {
  readonly #file: string;
  readonly #directory: string;
  readonly #lock: string;

  constructor(file: string) {
    this.#file = resolve(file);
    this.#directory = dirname(this.#file);
    this.#lock = `${this.#file}.lock`;
  }

  /**
   * Calls `change` with the text of the file, undefined when there is none yet, and writes the text that it returns;
   * undefined leaves the file as it is. Errors: `io`, `cannot-create`; `try-again` when another process does not let
   * go of the lock.
   */
  async change(change: (text: string | undefined) => string | undefined): Promise<void> {
    try {
      await mkdir(this.#lock, { mode: 0o700 }).catch((error: unknown) => {
        if (systemErrorCode(error) !== 'EEXIST') throw error;
      });
      const owner = await this.#locked();
      try {
        const text = change(await this.#read());
        if (text !== undefined) await this.#write(text);
      } finally {
        await owner.release();
      }
    } catch (error) {
      if (error instanceof AgentError) throw error;
      const missing = systemErrorCode(error) === 'ENOENT' || systemErrorCode(error) === 'ENOTDIR';
      throw new AgentError(
        missing ? 'cannot-create' : 'io',
        `${this.#file} cannot be written: ${errorText(error)}`,
        { cause: error },
      );
    }
  }

  async #locked(): Promise<Owner> {
    const giveUpAt = performance.now() + patienceMs;
    for (;;) {
      try {
        return await own(this.#lock);
      } catch (error) {
        if (!(error instanceof StoreInUse)) throw error;
        if (performance.now() < giveUpAt) continue;
        throw new AgentError('try-again', `process ${error.pid} does not let go of ${this.#file}`, {
          hint: 'it may be stopped or its disk may hang',
        });
      }
    }
  }

  async #read(): Promise<string | undefined> {
    let file;
    try {
      file = await diskFiles.open(this.#file, 'read');
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return undefined;
      throw error;
    }
    try {
      const bytes = Buffer.alloc(await file.size());
      await file.read(bytes, 0);
      return bytes.toString('utf8');
    } finally {
      await file.close();
    }
  }

  async #write(text: string): Promise<void> {
    const next = join(this.#directory, `.${basename(this.#file)}.new`);
    // What an interrupted change left.
    await removeQuietly(diskFiles, next);
    const file = await diskFiles.create(next);
    try {
      await file.write(Buffer.from(text), 0);
      await file.sync();
    } finally {
      await file.close();
    }
    await diskFiles.rename(next, this.#file);
    await diskFiles.syncDirectory(this.#directory);
  }
}

/** A change takes milliseconds. */
const patienceMs = 10_000;
