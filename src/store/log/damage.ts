import { join } from 'node:path';

import { errorText, systemErrorCode } from '../../errors.js';
import type { Log } from '../../log.js';
import type { Files } from './files.js';
import type { Segment } from './segment.js';

/**
 * What a checksum did not fit is copied to `damaged/` before anything else happens, under a name that says where it
 * was found, and the log says so. It stays there: only a person may throw it away.
 */
export class DamageKeeper {
  #known: Set<string> | undefined;
  #regions = 0;
  #bytes = 0;

  constructor(
    private readonly files: Files,
    private readonly directory: string,
    private readonly log: Log,
  ) {}

  /** Found since the store was opened. */
  get found(): { regions: number; bytes: number } {
    return { regions: this.#regions, bytes: this.#bytes };
  }

  async setAside(segment: Pick<Segment, 'fileName'>, at: number, bytes: Buffer): Promise<void> {
    const name = `${segment.fileName.replace(/\.log$/, '')}-at-${at}-${bytes.length}.bin`;
    const facts = { segment: segment.fileName, offset: at, bytes: bytes.length, kept: join('damaged', name) };
    try {
      const known = await this.#names();
      if (known.has(name)) return;
      await this.#write(name, bytes);
      known.add(name);
      this.log.error('damaged bytes in the store: set aside, the rest goes on', facts);
    } catch (error) {
      this.log.error('damaged bytes in the store, and they could not be set aside', {
        ...facts,
        kept: undefined,
        error: errorText(error),
      });
    }
    this.#regions++;
    this.#bytes += bytes.length;
  }

  async #write(name: string, bytes: Buffer): Promise<void> {
    const path = join(this.directory, name);
    const unfinished = `${path}.part`;
    await this.files.remove(unfinished).catch(ignoreMissing);
    const file = await this.files.create(unfinished);
    try {
      await file.write(bytes, 0);
      await file.sync();
    } finally {
      await file.close();
    }
    await this.files.rename(unfinished, path);
    await this.files.syncDirectory(this.directory);
  }

  async #names(): Promise<Set<string>> {
    if (!this.#known) {
      await this.files.makeDirectory(this.directory);
      this.#known = new Set(await this.files.list(this.directory));
    }
    return this.#known;
  }
}

function ignoreMissing(error: unknown): void {
  if (systemErrorCode(error) !== 'ENOENT') throw error;
}
