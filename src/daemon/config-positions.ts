/**
 * Where in a document each key and value stands, so that a complaint can name line and column. The parsers do not
 * say. The documents have been parsed before: what follows finds its way in valid text and judges nothing.
 */

export type Path = readonly (string | number)[];

/** What is wrong with the value at `path`. */
export interface Problem {
  path: Path;
  what: string;
}

/** Offset of the key (of an array's item: of the value) at `path`, or of the nearest thing around it; 0 when there is none. */
export type Positions = (path: Path) => number;

export function tomlPositions(text: string): Positions {
  return lookup(new TomlScanner(text).scan());
}

export function jsonPositions(text: string): Positions {
  return lookup(new JsonScanner(text).scan());
}

/** Offset of the first thing in `text` that is not JSON. */
export function jsonErrorOffset(text: string): number {
  const scanner = new JsonScanner(text);
  scanner.scan();
  return scanner.error ?? text.length;
}

/** Line and column of an offset, from 1. */
export function lineAndColumn(text: string, offset: number): { line: number; column: number } {
  const before = text.slice(0, offset).split('\n');
  return { line: before.length, column: (before.at(-1)?.length ?? 0) + 1 };
}

const keyOf = (path: Path): string => JSON.stringify(path);

function lookup(offsets: ReadonlyMap<string, number>): Positions {
  return (path) => {
    for (let length = path.length; length > 0; length--) {
      const offset = offsets.get(keyOf(path.slice(0, length)));
      if (offset !== undefined) return offset;
    }
    return 0;
  };
}

/** What both languages share: a place in the text, and what has been found before it. */
class Scanner {
  protected at = 0;
  protected readonly found = new Map<string, number>();

  constructor(protected readonly text: string) {}

  protected note(path: Path, offset: number): void {
    const key = keyOf(path);
    if (!this.found.has(key)) this.found.set(key, offset);
  }

  /** Takes what `pattern` (sticky) matches here; empty when it does not. */
  protected take(pattern: RegExp): string {
    pattern.lastIndex = this.at;
    const match = pattern.exec(this.text)?.[0] ?? '';
    this.at += match.length;
    return match;
  }

  protected has(start: string): boolean {
    return this.text.startsWith(start, this.at);
  }
}

/** Stricter than it needs to be for positions, because JSON.parse does not say where it stopped either. */
class JsonScanner extends Scanner {
  /** Offset of the first thing that is not JSON; undefined when all of it is. */
  error: number | undefined;

  scan(): ReadonlyMap<string, number> {
    this.#value([]);
    if (this.at < this.text.length) this.error ??= this.at;
    return this.found;
  }

  #value(path: Path): void {
    this.take(/\s*/y);
    if (this.take(/\{/y)) this.#members(path);
    else if (this.take(/\[/y)) this.#items(path);
    else this.#must(/"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null/y);
    this.take(/\s*/y);
  }

  #members(path: Path): void {
    if (this.take(/\s*\}/y)) return;
    do {
      this.take(/\s*/y);
      const start = this.at;
      const name = unquoted(this.#must(/"(?:[^"\\]|\\.)*"/y));
      this.note([...path, name], start);
      this.take(/\s*/y);
      this.#must(/:/y);
      this.#value([...path, name]);
    } while (this.#more());
    this.#must(/\}/y);
  }

  #items(path: Path): void {
    if (this.take(/\s*\]/y)) return;
    let index = 0;
    do {
      this.take(/\s*/y);
      this.note([...path, index], this.at);
      this.#value([...path, index++]);
    } while (this.#more());
    this.#must(/\]/y);
  }

  #more(): boolean {
    return this.error === undefined && this.take(/,/y) !== '';
  }

  #must(pattern: RegExp): string {
    const taken = this.take(pattern);
    if (taken === '') this.error ??= this.at;
    return taken;
  }
}

/** TOML 1.0: tables, arrays of tables, dotted and quoted keys, inline tables, the four kinds of strings. */
class TomlScanner extends Scanner {
  /** How many tables of each array there are so far. */
  readonly #tables = new Map<string, number>();

  scan(): ReadonlyMap<string, number> {
    let table: Path = [];
    for (;;) {
      this.#space();
      if (this.at >= this.text.length) return this.found;
      if (this.has('[')) table = this.#header();
      else this.#pair(table);
    }
  }

  #header(): Path {
    const start = this.at;
    const isArray = this.take(/\[\[?[ \t]*/y).startsWith('[[');
    const names = this.#key();
    names.slice(0, -1).forEach((_, last) => {
      this.note(this.#resolve(names.slice(0, last + 1)), start);
    });
    this.take(/[ \t]*\]\]?/y);
    if (!isArray) {
      const path = this.#resolve(names);
      this.note(path, start);
      return path;
    }
    const array = [...this.#resolve(names.slice(0, -1)), names.at(-1) ?? ''];
    const index = this.#tables.get(keyOf(array)) ?? 0;
    this.#tables.set(keyOf(array), index + 1);
    this.note(array, start);
    this.note([...array, index], start);
    return [...array, index];
  }

  /** A name that stands for an array of tables means the last of them. */
  #resolve(names: readonly string[]): Path {
    let path: Path = [];
    for (const name of names) {
      path = [...path, name];
      const count = this.#tables.get(keyOf(path));
      if (count !== undefined) path = [...path, count - 1];
    }
    return path;
  }

  #pair(table: Path): void {
    const start = this.at;
    const names = this.#key();
    // Each part of a dotted key is a table of its own.
    names.forEach((_, last) => {
      this.note([...table, ...names.slice(0, last + 1)], start);
    });
    this.take(/[ \t]*=[ \t]*/y);
    const before = this.at;
    this.#value([...table, ...names]);
    // Only in a document that is not TOML after all; without this the loop would not end.
    if (this.at === before) this.at = this.text.length;
  }

  #key(): string[] {
    const names: string[] = [];
    do {
      this.take(/[ \t]*/y);
      if (this.has('"')) names.push(unquoted(this.take(/"(?:[^"\\]|\\.)*"/y)));
      else if (this.has("'")) names.push(this.take(/'[^']*'/y).slice(1, -1));
      else names.push(this.take(/[A-Za-z0-9_-]+/y));
      this.take(/[ \t]*/y);
    } while (this.take(/\./y));
    return names;
  }

  #value(path: Path): void {
    if (this.take(/\[/y)) this.#items(path);
    else if (this.take(/\{/y)) this.#inlineTable(path);
    else this.take(/"""[^]*?(?<!\\)(?:\\\\)*"""+|'''[^]*?'''+|"(?:[^"\\]|\\.)*"|'[^']*'|[^,\]}\n#]+/y);
  }

  #items(path: Path): void {
    this.#space();
    for (let index = 0; !this.take(/\]/y) && this.at < this.text.length; index++) {
      const start = this.at;
      this.note([...path, index], start);
      this.#value([...path, index]);
      this.#space();
      this.take(/,/y);
      this.#space();
      if (this.at === start) this.at = this.text.length;
    }
  }

  #inlineTable(path: Path): void {
    this.#space();
    while (!this.take(/\}/y) && this.at < this.text.length) {
      this.#pair(path);
      this.#space();
      this.take(/,/y);
      this.#space();
    }
  }

  /** Blanks, line ends and comments. */
  #space(): void {
    this.take(/(?:\s+|#[^\n]*)*/y);
  }
}

/** TOML has a few escapes that JSON has not; a key with one is only found less exactly. */
function unquoted(quoted: string): string {
  try {
    return JSON.parse(quoted) as string;
  } catch {
    return quoted;
  }
}
