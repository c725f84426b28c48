import { once } from 'node:events';
import { join } from 'node:path';
import type { Readable } from 'node:stream';

import type { SecretSource } from '../daemon/config-secret.js';
import { AgentError } from '../errors.js';
import type { Io } from './io.js';
import { openToOthers, readSmallFile } from './small-file.js';

/** A connection string or another secret, as text. */
export interface FoundText {
  text: string;
  /** Where it was found, for people. */
  from: string;
  /** What a mistake in it is: one on the command line, or one in the configuration. */
  code: 'usage' | 'config';
}

export interface Places {
  /** `--connection-string -` */
  stdin: boolean;
  /** `--connection-string-file` */
  file: string | undefined;
  /** Name of the variable that holds it; with `_FILE`, of the one that names a file. */
  variable: string;
  /** What a configuration file says. */
  configured: SecretSource | undefined;
  /** Whether a file may be readable by others. */
  insecurePermissions: boolean;
}

/** Looks for a connection string, in the order of `Places`, then among the credentials of systemd. */
export async function findConnectionString(io: Io, places: Places): Promise<FoundText> {
  const { stdin, file, variable, configured } = places;
  const kind = { what: 'the connection string', insecurePermissions: places.insecurePermissions };
  // Taken out whether it is used or not: no child process is to inherit it.
  const inEnvironment = takeVariable(io, variable);
  if (stdin) return { text: await firstLine(io.stdin), from: 'standard input', code: 'usage' };
  if (file !== undefined) return fromFile(file, kind);
  if (inEnvironment !== undefined) return { text: inEnvironment, from: variable, code: 'config' };
  const namedFile = io.env[`${variable}_FILE`];
  if (namedFile !== undefined && namedFile !== '') return fromFile(namedFile, kind);
  if (configured !== undefined) return readSecret(io, configured, kind);
  const found = await credential(io, 'connection-string', kind.what).catch((error: unknown) => {
    if (error instanceof AgentError && error.code === 'no-input') return undefined;
    throw error;
  });
  if (found !== undefined) return found;
  throw new AgentError('config', 'no connection string', {
    hint: `set ${variable}, or name a file with --connection-string-file FILE`,
  });
}

/** Whether somebody has given a connection string for this run, rather than for good in a configuration. */
export function isGiven(
  io: Pick<Io, 'env'>,
  { stdin, file, variable }: Pick<Places, 'stdin' | 'file' | 'variable'>,
): boolean {
  const inEnvironment = [variable, `${variable}_FILE`].some((name) => (io.env[name] ?? '') !== '');
  return stdin || file !== undefined || inEnvironment;
}

function takeVariable(io: Pick<Io, 'env'>, name: string): string | undefined {
  const value = io.env[name];
  // eslint-disable-next-line @typescript-eslint/no-dynamic-delete
  delete io.env[name];
  return value === '' ? undefined : value;
}

/** What a secret is, for people, and how it may lie there. */
export interface SecretKind {
  /** As `the connection string`. */
  what: string;
  /** Whether a file may be readable by others. */
  insecurePermissions: boolean;
}

async function fromFile(file: string, { what, insecurePermissions }: SecretKind): Promise<FoundText> {
  const text = await readSmallFile(file, what);
  const mode = insecurePermissions ? undefined : await openToOthers(file);
  if (mode === undefined) return { text, from: file, code: 'config' };
  throw new AgentError('config', `${file} holds a key, and its permissions are open to others (${mode})`, {
    hint: `chmod 600 ${file}\nor allow it with --insecure-permissions`,
  });
}

/** Fetches a secret from where the configuration says that it is. */
export async function readSecret(
  io: Pick<Io, 'env'>,
  source: SecretSource,
  kind: SecretKind,
): Promise<FoundText> {
  switch (source.from) {
    case 'text':
      return { text: source.text.reveal(), from: 'the configuration', code: 'config' };
    case 'env': {
      const text = takeVariable(io, source.name);
      if (text !== undefined) return { text, from: source.name, code: 'config' };
      throw new AgentError('config', `${source.name} is not set`, {
        hint: `the configuration looks for ${kind.what} there`,
      });
    }
    case 'file':
      return fromFile(source.path, kind);
    case 'credential': {
      const found = await credential(io, source.name, kind.what);
      if (found !== undefined) return found;
      throw new AgentError('config', `there are no credentials to look for "${source.name}" in`, {
        hint: 'systemd sets CREDENTIALS_DIRECTORY when the unit has LoadCredential=',
      });
    }
  }
}

/** systemd keeps credentials from others with an access list, which shows in the mode as group permissions. */
async function credential(io: Pick<Io, 'env'>, name: string, what: string): Promise<FoundText | undefined> {
  const directory = io.env['CREDENTIALS_DIRECTORY'];
  if (directory === undefined || directory === '') return undefined;
  const file = join(directory, name);
  return { text: await readSmallFile(file, what), from: file, code: 'config' };
}

const longestLineBytes = 64 * 1024;

/** Takes one line off the stream and leaves the rest to be read. */
async function firstLine(stdin: Readable): Promise<string> {
  let line = Buffer.alloc(0);
  while (line.length < longestLineBytes) {
    const chunk = stdin.read() as Buffer | null;
    if (chunk === null) {
      if (stdin.readableEnded || stdin.destroyed) break;
      await readableOrEnded(stdin);
      continue;
    }
    const end = chunk.indexOf(0x0a);
    line = Buffer.concat([line, end === -1 ? chunk : chunk.subarray(0, end)]);
    if (end === -1) continue;
    if (end + 1 < chunk.length) stdin.unshift(chunk.subarray(end + 1));
    break;
  }
  return line.toString('utf8');
}

async function readableOrEnded(stdin: Readable): Promise<void> {
  const done = new AbortController();
  try {
    const { signal } = done;
    await Promise.race([
      once(stdin, 'readable', { signal }),
      once(stdin, 'end', { signal }),
      once(stdin, 'close', { signal }),
    ]);
  } finally {
    done.abort();
  }
}
