import { existsSync } from 'node:fs';
import { resolve } from 'node:path';

import { visible } from '../../../visible.js';
import { type ConfigFlags, configPlaces, dropInsOf, findConfig } from '../../config-files.js';
import { exitCodeFor, exitCodes } from '../../exit-codes.js';
import type { Io } from '../../io.js';
import { jsonOnOneLine } from '../../json-text.js';
import type { Printer } from '../../output.js';

/** A file, and what becomes of it: `unused` is there, and another one comes before it. */
interface Looked {
  path: string;
  state: 'read' | 'absent' | 'unused';
}

/** Prints which files would be read, and where else one was looked for. Returns the exit code. */
export async function printPaths(io: Io, flags: ConfigFlags, printer: Printer): Promise<number> {
  const file = findConfig(io, flags);
  const places =
    flags.config === undefined ? configPlaces(io) : [flags.config].filter((one) => one !== false);
  const looked: Looked[] = places.map((path) => ({ path: resolve(path), state: stateOf(path, file) }));
  const found = looked.findIndex(({ state }) => state === 'read');
  const dropIns = found === -1 || file === undefined ? [] : await dropInsOf(resolve(file));
  looked.splice(found + 1, 0, ...dropIns.map((path): Looked => ({ path, state: 'read' })));
  for (const one of looked) {
    await printer.print({
      json: () => jsonOnOneLine(JSON.stringify(one)),
      text: () => `${one.state.padEnd(6)}  ${visible(one.path)}`,
    });
  }
  return found === -1 ? exitCodeFor('no-input') : exitCodes.ok;
}

function stateOf(path: string, file: string | undefined): Looked['state'] {
  if (!existsSync(path)) return 'absent';
  return path === file ? 'read' : 'unused';
}
