import { accessSync, constants, readdirSync, realpathSync, statSync } from 'node:fs';
import { join, sep } from 'node:path';

import { errorText, systemErrorCode } from '../errors.js';
import type { EventKind } from './contract.js';
import { permissionProblem } from './permissions.js';
import type { Match } from './route.js';

/**
 * Handlers found by the name of their file: `command.d/restart` takes commands whose property `command` is
 * `restart`, `method.d/reboot` the method of that name, `twin.d/interval` the desired property. What a message says
 * is compared with these names and never becomes part of a path.
 *
 * A name is letters, digits, `-` and `_`; `restart.sh` and `restart.js` are called `restart` too. Anything else
 * (`restart~`, `.restart.swp`, `restart.dpkg-old`) is what an editor or a package left behind, and is passed over.
 */

export interface FoundHandler {
  /** `command.d/restart`. */
  name: string;
  on: EventKind;
  file: string;
  form: 'program' | 'module';
  match: Match;
}

export interface HandlerListing {
  /** In the order of their names, to be placed behind the configured ones. */
  found: FoundHandler[];
  /** Files that have a handler's name and are not taken, and why. */
  refused: { file: string; why: string }[];
}

const kinds: readonly EventKind[] = ['command', 'method', 'twin'];
const namePattern = /^([A-Za-z0-9][A-Za-z0-9_-]{0,63})(\.(?:sh|py|rb|pl|js|mjs|ts))?$/;
const moduleExtensions = new Set(['.js', '.mjs', '.ts']);

/** Lists handler directories. Of two files for one name the one in the earlier directory counts. */
export function listHandlers(directories: readonly string[]): HandlerListing {
  const listing: HandlerListing = { found: [], refused: [] };
  for (const on of kinds) {
    for (const directory of directories) listKind(on, join(directory, `${on}.d`), listing);
  }
  return listing;
}

function listKind(on: EventKind, directory: string, listing: HandlerListing): void {
  let entries: string[];
  try {
    entries = readdirSync(directory).sort();
  } catch (error) {
    if (systemErrorCode(error) !== 'ENOENT') listing.refused.push({ file: directory, why: errorText(error) });
    return;
  }
  for (const entry of entries) {
    const [, word, extension = ''] = namePattern.exec(entry) ?? [];
    if (word === undefined) continue;
    const file = join(directory, entry);
    const form = moduleExtensions.has(extension) && !isExecutable(file) ? 'module' : 'program';
    const handler: FoundHandler = { name: `${on}.d/${word}`, on, file, form, match: matchOf(on, word) };
    const earlier = listing.found.find(({ name }) => name === handler.name);
    const why = earlier === undefined ? problemOf(handler, directory) : `${earlier.file} goes before it`;
    if (why === undefined) listing.found.push(handler);
    else listing.refused.push({ file, why });
  }
}

function matchOf(on: EventKind, word: string): Match {
  switch (on) {
    case 'command':
      return { property: { command: word } };
    case 'method':
      return { method: word };
    case 'twin':
      return { path: word };
  }
}

function problemOf({ file, form }: FoundHandler, directory: string): string | undefined {
  try {
    if (!realpathSync(file).startsWith(realpathSync(directory) + sep))
      return 'it is a link that leads elsewhere';
    if (!statSync(file).isFile()) return 'it is not a file';
    if (form === 'program' && !isExecutable(file)) return `it is not executable; chmod +x ${file}`;
  } catch (error) {
    return errorText(error);
  }
  return permissionProblem(file);
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
