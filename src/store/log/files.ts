import * as fs from 'node:fs';
import { mkdir, readdir, rename, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';

import { AgentError, errorText, systemErrorCode } from '../../errors.js';

/**
 * The file operations that the log stands on. They are a parameter so that a test can put a file system beneath it
 * that fails at the k-th call, or forgets what was not synced.
 */
export interface Files {
  /** Makes the directory (mode 0700) if it is not there, and refuses one that belongs to another user. */
  makeDirectory(path: string): Promise<void>;
  list(path: string): Promise<string[]>;
  /** Opens an existing file, never through a symbolic link. */
  open(path: string, access: 'read' | 'write'): Promise<StoreFile>;
  /** Makes a new file, mode 0600. */
  create(path: string): Promise<StoreFile>;
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Makes what was created, renamed and removed in the directory outlast a power cut. */
  syncDirectory(path: string): Promise<void>;
}

export interface StoreFile {
  /** Fills `into` from `position`; returns the bytes read, fewer only at the end of the file. */
  read(into: Buffer, position: number): Promise<number>;
  /** Writes all of `from`. */
  write(from: Buffer, position: number): Promise<void>;
  /** `fdatasync`: what was written outlasts a power cut when this has returned. */
  sync(): Promise<void>;
  size(): Promise<number>;
  truncate(bytes: number): Promise<void>;
  close(): Promise<void>;
}

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_RDWR } = fs.constants;

export const diskFiles: Files = {
  makeDirectory,
  list: (path) => readdir(path),
  open: (path, access) => open(path, (access === 'read' ? O_RDONLY : O_RDWR) | O_NOFOLLOW),
  create: (path) => open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW),
  rename,
  remove: unlink,
  async syncDirectory(path) {
    const directory = await open(path, O_RDONLY | O_DIRECTORY);
    try {
      await call((done) => {
        fs.fsync(directory.fd, done);
      });
    } finally {
      await directory.close();
    }
  },
};

/** What a store and its directory of damaged bytes consist of; see `durable-log.ts`. */
const ownNames = /^(\d{8,}-\d{8,}\.|spare-|owner-|damaged$|lost\+found$)/;

async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
    const { uid, mode } = await stat(path);
    const us = process.getuid?.() ?? uid;
    if (uid !== us) {
      throw new AgentError('config', `the store ${path} belongs to user ${uid}, and this is user ${us}`, {
        hint: 'run this as the user that the agent runs as, or name another directory',
      });
    }
    if ((mode & 0o077) !== 0) {
      // Closing `/tmp` or a home directory to others because someone named it by mistake would break a machine.
      if ((await readdir(path)).some((name) => !ownNames.test(name))) {
        throw new AgentError('config', `${path} holds other things than a store, and others may read it`, {
          hint: 'name a directory that is not there yet, or an empty one',
        });
      }
      fs.chmodSync(path, 0o700);
    }
  } catch (error) {
    if (error instanceof AgentError) throw error;
    throw new AgentError('cannot-create', `cannot use ${path} as a store: ${errorText(error)}`, {
      cause: error,
    });
  }
}

async function open(path: string, flags: number): Promise<DiskFile> {
  return new DiskFile(
    await call<number>((done) => {
      fs.open(path, flags, 0o600, done);
    }),
  );
}

/** A descriptor rather than `FileHandle`: half the cost of a small commit would be the handle's bookkeeping. */
class DiskFile implements StoreFile {
  constructor(readonly fd: number) {}

  async read(into: Buffer, position: number): Promise<number> {
    let filled = 0;
    while (filled < into.length) {
      const from = filled;
      const got = await call<number>((done) => {
        fs.read(this.fd, into, from, into.length - from, position + from, done);
      });
      if (got === 0) break;
      filled += got;
    }
    return filled;
  }

  async write(from: Buffer, position: number): Promise<void> {
    let written = 0;
    while (written < from.length) {
      const start = written;
      const put = await call<number>((done) => {
        fs.write(this.fd, from, start, from.length - start, position + start, done);
      });
      if (put === 0) throw new Error('the file takes no more bytes');
      written += put;
    }
  }

  sync(): Promise<void> {
    return call((done) => {
      fs.fdatasync(this.fd, done);
    });
  }

  async size(): Promise<number> {
    const { size } = await call<fs.Stats>((done) => {
      fs.fstat(this.fd, done);
    });
    return size;
  }

  truncate(bytes: number): Promise<void> {
    return call((done) => {
      fs.ftruncate(this.fd, bytes, done);
    });
  }

  close(): Promise<void> {
    return call((done) => {
      fs.close(this.fd, done);
    });
  }
}

/** A call in Node's thread pool as a promise. */
function call<T = void>(
  start: (done: (error: NodeJS.ErrnoException | null, result?: T) => void) => void,
): Promise<T> {
  return new Promise((resolve, reject) => {
    start((error, result) => {
      if (error) reject(error);
      else resolve(result as T);
    });
  });
}

/** Whether there was no room for it: `ENOSPC`, or the quota of the user. */
export function isDiskFull(error: unknown): boolean {
  const code = systemErrorCode(error);
  return code === 'ENOSPC' || code === 'EDQUOT';
}

/** For a file that is of no use any more, and does no harm if it stays. */
export async function removeQuietly(files: Files, path: string): Promise<void> {
  await files.remove(path).catch(() => undefined);
}

/** Removes a file so that it stays removed; it may be gone already. */
export async function removeDurably(files: Files, directory: string, fileName: string): Promise<void> {
  await files.remove(join(directory, fileName)).catch((error: unknown) => {
    if (systemErrorCode(error) !== 'ENOENT') throw error;
  });
  await files.syncDirectory(directory);
}

/** Cuts a file off at `bytes`, durably; it may be gone already. */
export async function cutOff(files: Files, path: string, bytes: number): Promise<void> {
  let file: StoreFile;
  try {
    file = await files.open(path, 'write');
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return;
    throw error;
  }
  try {
    if ((await file.size()) > bytes) await file.truncate(bytes);
    await file.sync();
  } finally {
    await file.close();
  }
}
