import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { pathToFileURL } from 'node:url';

import { AgentError, errorText, systemErrorCode } from '../../../errors.js';
import { ownConfigPlace } from '../../config-files.js';
import type { Io } from '../../io.js';
import { packageFile } from '../../package-file.js';

/** Writes a configuration with every key and its default, for its owner alone, and prints its path; "-" prints the text. */
export async function initConfig(
  io: Io,
  file: string = ownConfigPlace(io),
  { force }: { force: boolean },
): Promise<void> {
  const example = await readFile(packageFile('config/agent.example.toml'), 'utf8');
  const schema = pathToFileURL(packageFile('config/agent.schema.json')).href;
  const text = example.replace(/^#:schema .*$/m, `#:schema ${schema}`);
  if (file === '-') {
    await io.stdout.write(text);
    return;
  }
  await write(file, text, force);
  await io.stdout.write(`${file}\n`);
  await io.stderr.write(`edit it, then: iothub-device config check --config ${file}\n`);
}

async function write(file: string, text: string, force: boolean): Promise<void> {
  try {
    await mkdir(dirname(file), { recursive: true });
    if (!force) {
      await writeFile(file, text, { flag: 'wx', mode: 0o600 });
      return;
    }
    // In one step: an agent may be about to read it.
    const written = `${file}.${String(process.pid)}`;
    await writeFile(written, text, { flag: 'wx', mode: 0o600 });
    await rename(written, file);
  } catch (error) {
    const isThere = systemErrorCode(error) === 'EEXIST';
    throw new AgentError(
      'cannot-create',
      `cannot write ${file}: ${isThere ? 'it is there already' : errorText(error)}`,
      {
        hint: isThere ? '--force puts the new one in its place' : undefined,
      },
    );
  }
}
