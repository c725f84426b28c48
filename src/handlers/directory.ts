import { accessSync, constants, readdirSync, realpathSync, statSync } from 'node:fs';
import { join, sep } from 'node:path';

import { AgentError, errorText, systemErrorCode } from '../errors.js';
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
  /** Why it must not be run, if so. */
  refused: string | undefined;
}

const kinds: readonly EventKind[] = ['command', 'method', 'twin'];
const namePattern = /^([A-Za-z0-9][A-Za-z0-9_-]{0,63})(\.(?:sh|py|rb|pl|js|mjs|ts))?$/;
const moduleExtensions = new Set(['.js', '.mjs', '.ts']);

export interface HandlerListing {
  /** By kind, and in the order of their names. */
  found: FoundHandler[];
  /** Files of a name that an earlier one has. */
  passedOver: { file: string; by: string }[];
}

/**
 * Lists handler directories. Of two files for one name the one in the earlier directory counts, and in one directory
 * the first.
 * @throws AgentError `config` when a directory is there and cannot be read
 */
export function listHandlers(directories: readonly string[]): HandlerListing {
  const byName = new Map<string, FoundHandler>();
  const passedOver: HandlerListing['passedOver'] = [];
  for (const on of kinds) {
    for (const directory of directories) {
      for (const handler of handlersIn(join(directory, `${on}.d`), on)) {
        const earlier = byName.get(handler.name);
        if (earlier === undefined) byName.set(handler.name, handler);
        else passedOver.push({ file: handler.file, by: earlier.file });
      }
    }
  }
  const found = [...byName.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  return { found, passedOver };
}

function handlersIn(directory: string, on: EventKind): FoundHandler[] {
  return entriesOf(directory).flatMap((entry) => {
    const [, word, extension = ''] = namePattern.exec(entry) ?? [];
    if (word === undefined) return [];
    const file = join(directory, entry);
    const form = moduleExtensions.has(extension) && !isExecutable(file) ? 'module' : 'program';
    const refused = problemOf({ file, form }, directory);
    return [{ name: `${on}.d/${word}`, on, file, form, match: matchOf(on, word), refused }];
  });
}

function entriesOf(directory: string): string[] {
  try {
    return readdirSync(directory).sort();
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return [];
    throw new AgentError('config', `${directory}: ${errorText(error)}`, { cause: error });
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

function problemOf(
  { file, form }: Pick<FoundHandler, 'file' | 'form'>,
  directory: string,
): string | undefined {
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
