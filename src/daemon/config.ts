import { resolve } from 'node:path';
import * as v from 'valibot';

import { didYouMean } from '../did-you-mean.js';
import type { LogLevel } from '../log.js';
import type { SpoolOptions } from '../store/spool.js';
import {
  ConfigError,
  type ConfigText,
  folderOf,
  keyText,
  merge,
  type Merged,
  type Place,
  placed,
  type PlacedProblem,
  placeOf,
  readSource,
  type Source,
} from './config-document.js';
import { handlingConfig, type HandlingConfig, handlingProblems } from './config-handlers.js';
import { hubConfig, hubProblems, type HubConfig } from './config-hub.js';
import type { Path, Problem } from './config-positions.js';
import { type ConfigFile, configSchema } from './config-schema.js';
import type { ListenAddress } from './metrics-listener.js';

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
 * @throws ConfigError with every problem, each as `file:line:column: key: what`
 */
export function parseConfig(text: string, file: string): AgentConfig {
  return parseConfigFiles([{ file, text }]).config;
}

/** A configuration, and the files that it came from. */
export interface ParsedConfig {
  config: AgentConfig;
  /** Every key of the file's language, with its value or its default. It may hold a key: not to be printed. */
  values: ConfigFile;
  /** What the files say, as they say it. It may hold a key too. */
  document: Record<string, unknown>;
  /** In the order in which they were read. */
  files: readonly string[];
  /** Where the value of a key stands; undefined: in no file. */
  placeOf: (path: Path) => Place | undefined;
}

/** Reads a configuration and its drop-ins, in their order; no file gives the defaults. Otherwise as `parseConfig`. */
export function parseConfigFiles(texts: readonly ConfigText[]): ParsedConfig {
  const sources = texts.map(readSource);
  const problems = sources.flatMap((source) => placed(source, schemaProblems(source)));
  if (problems.length > 0) throw new ConfigError(problems);
  const merged = merge(sources);
  const values = v.parse(configSchema, merged.document);
  const crossed = [...hubProblems(values), ...handlingProblems(values)];
  if (crossed.length > 0) throw new ConfigError(placedIn(merged, crossed));
  return {
    config: agentConfig(values, (path) => folderOf(merged, path)),
    values,
    document: merged.document,
    files: texts.map(({ file }) => file),
    placeOf: (path) => placeOf(merged, path),
  };
}

function schemaProblems({ document }: Source): Problem[] {
  const { issues = [] } = v.safeParse(configSchema, document);
  const problems = [...unknownKeys(configSchema, document, []), ...issues.flatMap(problemOf)];
  return problems.length > 0 || saysSomething(document) ? problems : [saysNothing];
}

/**
 * Taken as the defaults, such a file would take all handlers from an agent that reads its configuration again just when
 * another program has begun to write it; and a command that nobody handles is rejected for good.
 */
const saysNothing: Problem = {
  path: [],
  what: 'nothing is set in this file; is it still being written? For the defaults alone use --no-config',
};

function saysSomething(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return true;
  return Object.entries(value).some(([key, inner]) => key !== '$schema' && saysSomething(inner));
}

/** Problems that only show when files are put together. */
function placedIn(merged: Merged, problems: readonly Problem[]): PlacedProblem[] {
  return problems.flatMap(({ path, what }) => {
    const key = keyText(path);
    const found = merged.sourceOf(path);
    return found ? placed(found.source, [{ path: found.path, what }]).map((one) => ({ ...one, key })) : [];
  });
}

/** What of valibot's schemas is needed to walk through them. */
export interface AnySchema {
  type: string;
  default?: unknown;
  pipe?: readonly unknown[];
  entries?: Record<string, AnySchema>;
  item?: AnySchema;
  wrapped?: AnySchema;
}

/** Every key that the schema does not know; valibot stops at the first. */
function unknownKeys(schema: AnySchema, value: unknown, path: Path): Problem[] {
  const { entries, item, wrapped } = schema;
  if (wrapped) return unknownKeys(wrapped, value, path);
  if (item && Array.isArray(value)) return value.flatMap((one, at) => unknownKeys(item, one, [...path, at]));
  if (!entries || typeof value !== 'object' || value === null) return [];
  // To valibot a list is an object whose keys are numbers.
  if (Array.isArray(value)) return [{ path, what: 'write a table' }];
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

/** `folder` is where paths of a key are relative to: each file may be elsewhere. */
function agentConfig(file: ConfigFile, folder: (path: Path) => string): AgentConfig {
  const { spool, control, metrics, log, shutdown } = file;
  const pathAt = (section: 'spool' | 'control', key: string, path: string | undefined) =>
    path ? resolve(folder([section, key]), path) : path;
  return {
    hub: hubConfig(file.hub, (key) => folder(['hub', key])),
    ...handlingConfig(file, folder),
    spool: {
      directory: pathAt('spool', 'directory', spool.directory),
      maximumBytes: spool.max_size,
      maximumAgeMs: spool.max_age,
      whenFull: spool.when_full,
    },
    control: { socket: pathAt('control', 'socket', control.socket) },
    metrics,
    log,
    shutdown: { drainTimeoutMs: shutdown.drain_timeout },
  };
}
