import { randomUUID } from 'node:crypto';
import { access, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';

import { AgentError, errorText, systemErrorCode } from '../errors.js';

export interface NewFile {
  path: string;
  content: string | Buffer;
  /** Nobody else may read it: mode 0600. */
  isSecret: boolean;
}

/**
 * Writes files that belong together, in their order, into directories that are made when they are not there (mode 0700).
 * When one of them is there already, none is written, unless `force` says to replace them. Errors: `cannot-create`.
 */
export async function writeNewFiles(files: readonly NewFile[], { force = false }): Promise<void> {
  if (!force) for (const { path } of files) await refuseExisting(path);
  for (const { path, content, isSecret } of files) {
    // Beside it and then in its place: nobody finds half a file, and one that was open to others is not kept.
    const draft = `${path}.${randomUUID()}`;
    try {
      await mkdir(dirname(path), { recursive: true, mode: 0o700 });
      await writeFile(draft, content, { flag: 'wx', mode: isSecret ? 0o600 : 0o644 });
      await rename(draft, path);
    } catch (cause) {
      await rm(draft, { force: true });
      throw new AgentError('cannot-create', `cannot write ${path}: ${errorText(cause)}`, { cause });
    }
  }
}

async function refuseExisting(path: string): Promise<void> {
  const exists = await access(path).then(
    () => true,
    (error: unknown) => systemErrorCode(error) !== 'ENOENT',
  );
  if (!exists) return;
  throw new AgentError('cannot-create', `${path} is there already`, {
    hint: 'name another one, or replace it with --force',
  });
}
