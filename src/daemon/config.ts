import { dirname, resolve } from 'node:path';
import { parse as parseToml, TomlError } from 'smol-toml';
import * as v from 'valibot';

import { didYouMean } from '../did-you-mean.js';
import { AgentError } from '../errors.js';
import type { LogLevel } from '../log.js';
import type { SpoolOptions } from '../store/spool.js';
import { handlingConfig, type HandlingConfig, handlingProblems } from './config-handlers.js';
import { hubConfig, hubProblems, type HubConfig } from './config-hub.js';
import type { ListenAddress } from './metrics-listener.js';
import {
  jsonErrorOffset,
  jsonPositions,
  lineAndColumn,
  type Path,
  type Positions,
  type Problem,
  tomlPositions,
} from './config-positions.js';
import { type ConfigFile, configSchema } from './config-schema.js';

/** What the agent is told to do: the configuration file, read, checked and with every default in place. */
export interface AgentConfig extends HandlingConfig {
  hub: HubConfig;
  /** The directory is a path; undefined: where state belongs. */
  spool: { directory: string | undefined } & Pick<SpoolOptions, 'maximumBytes' | 'maximumAgeMs' | 'whenFull'>;
  /** A path; "": none; undefined: where sockets belong. */
  control: { socket: string | undefined };
  /** Undefined: nowhere. */
  metrics: { listen: ListenAddress | undefined };
  log: { level: LogLevel; format: 'auto' | 'text' | 'json' | 'journal' };
  shutdown: { drainTimeoutMs: number };
}

/**
 * Reads a configuration: TOML, or JSON when the file is called so. Paths in it are relative to `file`.
 * @throws AgentError `config` with every problem, each as `file:line:column: key: what`
 */
export function parseConfig(text: string, file: string): AgentConfig {
  return parseConfigFile(text, file).config;
}

/** A configuration, and the file that it came from. */
export interface ParsedConfig {
  config: AgentConfig;
  /** Every key of the file's language, with its value or its default. It may hold a key: not to be printed. */
  values: ConfigFile;
  /** What the file says, as it says it. */
  document: unknown;
  /** Where in the file a key stands, `file:line`. */
  placeOf: (path: Path) => string;
}

/** As `parseConfig`, with what is known of the file. */
export function parseConfigFile(text: string, file: string): ParsedConfig {
  const { document, scan } = file.endsWith('.json') ? readJson(text, file) : readToml(text, file);
  const checked = v.safeParse(configSchema, document);
  const problems = [...unknownKeys(configSchema, document, []), ...(checked.issues ?? []).flatMap(problemOf)];
  if (!checked.success || problems.length > 0) throw failure(problems, { text, file, scan });
  const crossed = [...hubProblems(checked.output), ...handlingProblems(checked.output)];
  if (crossed.length > 0) throw failure(crossed, { text, file, scan });
  const positions = scan(text);
  return {
    config: agentConfig(checked.output, dirname(file)),
    values: checked.output,
    document,
    placeOf: (path) => `${file}:${String(lineAndColumn(text, positions(path)).line)}`,
  };
}

interface Document {
  text: string;
  file: string;
  scan: (text: string) => Positions;
}

function readToml(text: string, file: string): { document: unknown; scan: Document['scan'] } {
  try {
    return { document: parseToml(text), scan: tomlPositions };
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const [what = ''] = error.message.replace(/^Invalid TOML document: /, '').split('\n');
    throw syntaxError(file, error, what);
  }
}

function readJson(text: string, file: string): { document: unknown; scan: Document['scan'] } {
  try {
    return { document: JSON.parse(text) as unknown, scan: jsonPositions };
  } catch {
    // The text of the error would quote the document, which may hold a key.
    throw syntaxError(file, lineAndColumn(text, jsonErrorOffset(text)), 'this is not JSON');
  }
}

function syntaxError(
  file: string,
  { line, column }: { line: number; column: number },
  what: string,
): AgentError {
  return new AgentError('config', `${file}:${String(line)}:${String(column)}: ${what}`);
}

function failure(problems: Problem[], { text, file, scan }: Document): AgentError {
  const positions = scan(text);
  const found = problems
    .map(({ path, what }) => ({ offset: positions(path), path, what }))
    .sort((a, b) => a.offset - b.offset)
    .map(({ offset, path, what }) => {
      const { line, column } = lineAndColumn(text, offset);
      return `${file}:${String(line)}:${String(column)}: ${pathText(path)}: ${what}`;
    });
  const [only] = found;
  if (found.length === 1 && only !== undefined) return new AgentError('config', only);
  return new AgentError('config', `${file} has ${String(found.length)} problems`, { hint: found.join('\n') });
}

function pathText(path: Path): string {
  return path
    .map((part, at) => (typeof part === 'number' ? `[${String(part + 1)}]` : at === 0 ? part : `.${part}`))
    .join('');
}

/** What all of valibot's schemas have that can hold a key. */
interface AnySchema {
  type: string;
  entries?: Record<string, AnySchema>;
  item?: AnySchema;
  wrapped?: AnySchema;
}

/** Every key that the schema does not know; valibot stops at the first. */
function unknownKeys(schema: AnySchema, value: unknown, path: Path): Problem[] {
  const { entries, item, wrapped } = schema;
  if (wrapped) return unknownKeys(wrapped, value, path);
  if (item && Array.isArray(value)) return value.flatMap((one, at) => unknownKeys(item, one, [...path, at]));
  if (!entries || typeof value !== 'object' || value === null || Array.isArray(value)) return [];
  return Object.entries(value).flatMap(([key, inner]) => {
    const known = Object.hasOwn(entries, key) ? entries[key] : undefined;
    if (known) return unknownKeys(known, inner, [...path, key]);
    const meant = didYouMean(key, Object.keys(entries));
    return [
      {
        path: [...path, key],
        what: meant === undefined ? 'unknown key' : `unknown key; did you mean "${meant}"?`,
      },
    ];
  });
}

function problemOf(issue: v.BaseIssue<unknown>): Problem[] {
  const path = (issue.path ?? []).map(({ key }) => (typeof key === 'number' ? key : String(key)));
  if (issue.type !== 'strict_object') return [{ path, what: issue.message }];
  // An unknown key: `unknownKeys` has it.
  if (issue.expected === 'never') return [];
  return [{ path, what: issue.expected === 'Object' ? 'write a table' : 'it is missing' }];
}

function agentConfig(file: ConfigFile, folder: string): AgentConfig {
  const { hub, spool, control, metrics, log, shutdown } = file;
  return {
    hub: hubConfig(hub, folder),
    ...handlingConfig(file, folder),
    spool: {
      directory: spool.directory === undefined ? undefined : resolve(folder, spool.directory),
      maximumBytes: spool.max_size,
      maximumAgeMs: spool.max_age,
      whenFull: spool.when_full,
    },
    control: { socket: control.socket ? resolve(folder, control.socket) : control.socket },
    metrics,
    log,
    shutdown: { drainTimeoutMs: shutdown.drain_timeout },
  };
}
