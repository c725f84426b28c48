import { appendFile, chmod, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { AgentError, errorText, systemErrorCode } from '../errors.js';

/** The emulator's directory: private to its owner, each file replaced as a whole. */
export class StateDirectory {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  static async open(path: string): Promise<StateDirectory> {
    try {
      await mkdir(path, { recursive: true, mode: 0o700 });
      await chmod(path, 0o700);
    } catch (error) {
      throw new AgentError('cannot-create', `cannot use the state directory ${path}: ${errorText(error)}`, {
        cause: error,
      });
    }
    return new StateDirectory(path);
  }

  async read(name: string): Promise<string | undefined> {
    try {
      return await readFile(join(this.path, name), 'utf8');
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  async append(name: string, text: string): Promise<void> {
    if (text !== '') await appendFile(join(this.path, name), text, { mode: 0o600 });
  }

  async write(name: string, text: string): Promise<void> {
    await writeAtomically(join(this.path, name), text);
  }
}

/** Readers see the old file or the new one, and only the owner sees either. */
export async function writeAtomically(path: string, text: string): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  await writeFile(temporary, text, { mode: 0o600 });
  await rename(temporary, path);
}
