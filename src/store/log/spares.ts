import { randomBytes } from 'node:crypto';
import { join } from 'node:path';

import { systemErrorCode } from '../../errors.js';
import { removeDurably, type Files, type StoreFile } from './files.js';

/** The ballast, and the one that the writer takes next. */
const enough = 2;

/**
 * Files that are ready to become segments: all their blocks belong to us already, so that writing to them can neither
 * fail for want of space nor wait for the file system to find some. They are filled with zeros once, and used again
 * when their segment is dead.
 *
 * The last one is the ballast: telemetry never takes it, so that removals, outcomes of commands and compaction go on
 * when the disk is full.
 */
export class Spares {
  readonly #ready: string[] = [];
  #making: Promise<void> | undefined;

  constructor(
    private readonly files: Files,
    private readonly directory: string,
    private readonly segmentBytes: number,
  ) {}

  get count(): number {
    return this.#ready.length;
  }

  /** Takes one; its file is the caller's to rename. */
  take(): string | undefined {
    return this.#ready.shift();
  }

  /** Gives one back that was not renamed after all. */
  putBack(fileName: string): void {
    this.#ready.unshift(fileName);
  }

  /** Makes one more. Fails when the disk is full or broken. Callers at the same time share the work. */
  make(): Promise<void> {
    this.#making ??= this.#make().finally(() => {
      this.#making = undefined;
    });
    return this.#making;
  }

  /** Turns a file that is of no use any more into a spare, or removes it when enough are there. */
  async recycle(fileName: string): Promise<void> {
    if (this.#ready.length >= enough || (await this.#size(fileName)) !== this.segmentBytes) {
      await removeDurably(this.files, this.directory, fileName);
      return;
    }
    const spare = isSpareName(fileName) ? fileName : newSpareName();
    if (fileName !== spare) {
      await this.files.rename(join(this.directory, fileName), join(this.directory, spare));
    }
    // Before anyone writes to it: the old name with new bytes behind it would be a damaged segment.
    await this.files.syncDirectory(this.directory);
    this.#ready.push(spare);
  }

  async #size(fileName: string): Promise<number | undefined> {
    try {
      const file = await this.files.open(join(this.directory, fileName), 'read');
      return await file.size().finally(() => file.close());
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  async #make(): Promise<void> {
    const name = newSpareName();
    const path = join(this.directory, name);
    const file = await this.files.create(path);
    try {
      await fillWithZeros(file, this.segmentBytes);
      await file.sync();
      await this.files.syncDirectory(this.directory);
    } catch (error) {
      await this.files.remove(path).catch(() => undefined);
      throw error;
    } finally {
      await file.close();
    }
    this.#ready.push(name);
  }
}

export function isSpareName(fileName: string): boolean {
  return /^spare-[0-9a-f]{12}$/.test(fileName);
}

function newSpareName(): string {
  return `spare-${randomBytes(6).toString('hex')}`;
}

const zeros = Buffer.alloc(256 * 1024);

async function fillWithZeros(file: StoreFile, bytes: number): Promise<void> {
  for (let at = 0; at < bytes; at += zeros.length) {
    await file.write(zeros.subarray(0, Math.min(zeros.length, bytes - at)), at);
  }
}
