import { dirname } from 'node:path';
import { parse as parseToml, TomlError } from 'smol-toml';

import { AgentError } from '../errors.js';
import {
  jsonErrorOffset,
  jsonPositions,
  lineAndColumn,
  type Path,
  type Positions,
  type Problem,
  tomlPositions,
} from './config-positions.js';

/** Text of a configuration file, which may be a drop-in. */
export interface ConfigText {
  file: string;
  text: string;
}

/** A file that is TOML or JSON, whatever it says. */
export interface Source extends ConfigText {
  document: unknown;
  positions: Positions;
}

/** Where in which file something stands; line and column from 1. */
export interface Place {
  file: string;
  line: number;
  column: number;
}

/** What is wrong, and where. */
export interface PlacedProblem extends Place {
  /** As `hub.token_ttl` or `handlers[2].exec`; "" for the file as a whole. */
  key: string;
  what: string;
}

/** A configuration that cannot be used, with every reason. */
export class ConfigError extends AgentError {
  readonly problems: readonly PlacedProblem[];

  constructor(problems: readonly PlacedProblem[]) {
    const [only = '', ...more] = problems.map(problemText);
    super('config', more.length === 0 ? only : summary(problems), {
      hint: more.length === 0 ? undefined : [only, ...more].join('\n'),
    });
    this.problems = problems;
  }
}

function summary(problems: readonly PlacedProblem[]): string {
  const files = [...new Set(problems.map(({ file }) => file))];
  return `${files.join(' and ')} ${files.length > 1 ? 'have' : 'has'} ${String(problems.length)} problems`;
}

/** `agent.toml:3:1: hub.token_tll: unknown key`. */
export function problemText({ file, line, column, key, what }: PlacedProblem): string {
  const place = `${file}:${String(line)}:${String(column)}`;
  return [place, key, what].filter((part) => part !== '').join(': ');
}

/** JSON when the file is called so, else TOML. Errors: `ConfigError` when it is neither. */
export function readSource({ file, text }: ConfigText): Source {
  return file.endsWith('.json') ? readJson({ file, text }) : readToml({ file, text });
}

function readToml({ file, text }: ConfigText): Source {
  try {
    return { file, text, document: parseToml(text), positions: tomlPositions(text) };
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const [what = ''] = error.message.replace(/^Invalid TOML document: /, '').split('\n');
    throw new ConfigError([{ file, line: error.line, column: error.column, key: '', what }]);
  }
}

function readJson({ file, text }: ConfigText): Source {
  try {
    return { file, text, document: JSON.parse(text) as unknown, positions: jsonPositions(text) };
  } catch {
    // The text of the error would quote the document, which may hold a key.
    const place = lineAndColumn(text, jsonErrorOffset(text));
    throw new ConfigError([{ file, ...place, key: '', what: 'this is not JSON' }]);
  }
}

/** Problems of one file, in its order. */
export function placed(source: Source, problems: readonly Problem[]): PlacedProblem[] {
  return problems
    .map(({ path, what }) => ({ offset: source.positions(path), path, what }))
    .sort((a, b) => a.offset - b.offset)
    .map(({ path, what }) => ({ ...placeIn(source, path), key: keyText(path), what }));
}

function placeIn({ file, text, positions }: Source, path: Path): Place {
  return { file, ...lineAndColumn(text, positions(path)) };
}

/** `handlers[2].exec`, counted as people count. */
export function keyText(path: Path): string {
  return path
    .map((part, at) => (typeof part === 'number' ? `[${String(part + 1)}]` : at === 0 ? part : `.${part}`))
    .join('');
}

type Table = Record<string, unknown>;

/** Several files as one, and what came from where. */
export interface Merged {
  document: Table;
  /** The file whose value at `path` counts, and where in it that is; undefined: in none. */
  sourceOf: (path: Path) => { source: Source; path: Path } | undefined;
}

/**
 * Puts files together: of a key in a section the last file counts, whole; items of `[[handlers]]` come one after the
 * other. Each file has to fit the schema by itself.
 */
export function merge(sources: readonly Source[]): Merged {
  const document: Table = {};
  const owners = new Map<string, Source>();
  const items: { source: Source; index: number }[] = [];
  for (const source of sources) {
    for (const [section, value] of Object.entries(source.document as Table)) {
      owners.set(section, source);
      if (Array.isArray(value)) {
        document[section] = [
          ...((document[section] as unknown[] | undefined) ?? []),
          ...(value as unknown[]),
        ];
        items.push(...value.map((_, index) => ({ source, index })));
      } else if (typeof value === 'object' && value !== null) {
        document[section] = { ...(document[section] as Table | undefined), ...value };
        for (const key of Object.keys(value)) owners.set(`${section}.${key}`, source);
      } else {
        document[section] = value;
      }
    }
  }
  return {
    document,
    sourceOf: (path) => {
      const [section = '', key, ...rest] = path;
      if (typeof key === 'number') {
        const item = items[key];
        return item && { source: item.source, path: [section, item.index, ...rest] };
      }
      const source = owners.get(key === undefined ? String(section) : `${String(section)}.${key}`);
      return source && { source, path };
    },
  };
}

/** Where the value at `path` stands; undefined: in no file. */
export function placeOf({ sourceOf }: Merged, path: Path): Place | undefined {
  const found = sourceOf(path);
  return found && placeIn(found.source, found.path);
}

/** What relative paths at `path` are relative to. */
export function folderOf({ sourceOf }: Merged, path: Path): string {
  return dirname(sourceOf(path)?.source.file ?? '');
}
