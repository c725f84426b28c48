import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { AgentError, errorText, systemErrorCode } from '../../errors.js';
import type { EventKind } from '../../handlers/contract.js';
import type { Io } from '../io.js';
import { skeletonOf, type Language } from './handler-skeletons.js';

export interface NewFlags {
  sh?: boolean;
  js?: boolean;
  py?: boolean;
  on: EventKind;
  directory?: string;
}

const extensions: Record<Language, string> = { sh: '.sh', js: '.mjs', py: '.py' };

/** Writes a handler that works, and says how to try it. Its path goes to standard output. */
export async function newHandler(io: Io, name: string, flags: NewFlags): Promise<void> {
  if (!/^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/.test(name)) {
    throw new AgentError('usage', `"${name}" is no name for a handler`, {
      hint: 'up to 64 letters, digits, - and _, not beginning with - or _',
    });
  }
  const language = (['js', 'py'] as const).find((one) => flags[one] === true) ?? 'sh';
  const folder = flags.directory === undefined ? '.' : join(flags.directory, `${flags.on}.d`);
  const file = join(folder, `${name}${extensions[language]}`);
  try {
    await mkdir(folder, { recursive: true });
    // A module that could be executed would be taken for a program. Others must not be able to change either.
    await writeFile(file, skeletonOf(language, flags.on, name), {
      flag: 'wx',
      mode: language === 'js' ? 0o644 : 0o755,
    });
  } catch (error) {
    const why = systemErrorCode(error) === 'EEXIST' ? 'it is there already' : errorText(error);
    throw new AgentError('cannot-create', `cannot write ${file}: ${why}`);
  }
  const path = file.includes('/') ? file : `./${file}`;
  await io.stdout.write(`${path}\n`);
  await io.stderr.write(
    `try it: iothub-device handler test ${path}${example[flags.on].replace('NAME', name)}\n`,
  );
}

const example: Record<EventKind, string> = {
  command: ` --data '{"value":1}'`,
  method: ` --method NAME --data '{"value":1}'`,
  twin: ` --path NAME --data 1`,
};
