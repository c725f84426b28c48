import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'smol-toml';
import { expect, test } from 'vitest';

import { type AnySchema, parseConfig, parseConfigFiles } from '../../src/daemon/config.js';
import { configSchema } from '../../src/daemon/config-schema.js';

/*
 * `config/agent.example.toml` is what people begin with (`iothub-device config init` writes it): every key of the
 * schema stands there, with its default or as an example.
 */

const example = readFileSync(join(import.meta.dirname, '../../config/agent.example.toml'), 'utf8');

test('the example shows the defaults', () => {
  expect(parseConfig(example, '/etc/agent.toml')).toEqual(parseConfigFiles([]).config);
});

test('every key of the schema stands in its section, with its default', () => {
  expect(complaints(example)).toEqual([]);
});

test('a key that is forgotten, or whose default is another, is noticed', () => {
  const lines = example.split('\n');
  const noticed = lines.flatMap((line, at) => {
    const [, key] = keyLine.exec(line) ?? [];
    if (key === undefined) return [];
    const without = complaints(lines.toSpliced(at, 1).join('\n'));
    // A second example of the same key stands in for it.
    const isOnly = lines.filter((other) => keyLine.exec(other)?.[1] === key).length === 1;
    if (isOnly) expect(without.join(), key).toContain(key);
    return without;
  });
  expect(noticed.length).toBeGreaterThan(30);
  expect(complaints(example.replace('token_ttl = "1h"', 'token_ttl = "2h"'))).toEqual([
    'hub.token_ttl is 2h, and its default is 1h',
  ]);
  expect(complaints(example.replace('warn_before', 'warn'))).toEqual(['hub.x509 has no warn_before']);
});

test('every key has words before it', () => {
  const lines = example.split('\n');
  const bare = lines.filter((line, at) => {
    const isKey = /^\w+ = /.test(line);
    // One comment may be for several keys, which follow each other then.
    return isKey && /^(\[.*)?$/.test(lines[at - 1] ?? '');
  });
  expect(bare).toEqual([]);
});

/** `key = value   # comment`, or the same commented out. */
const keyLine = /^(?:# )?(\w+) = (.*?)(?: {3}#.*)?$/;
const headerLine = /^(?:# )?\[+(\w+)\]+/;

interface Shown {
  /** As TOML. */
  value: string;
  isExample: boolean;
}

/** What the example has in each section; of a key that is there several times, all of it. */
function sectionsOf(text: string): Map<string, Map<string, Shown[]>> {
  const sections = new Map<string, Map<string, Shown[]>>();
  let current = new Map<string, Shown[]>();
  for (const line of text.split('\n')) {
    const [, section] = headerLine.exec(line) ?? [];
    const [, key, value = ''] = keyLine.exec(line) ?? [];
    if (section !== undefined) {
      current = sections.get(section) ?? new Map<string, Shown[]>();
      sections.set(section, current);
    } else if (key !== undefined) {
      current.set(key, [...(current.get(key) ?? []), { value, isExample: line.startsWith('#') }]);
    }
  }
  return sections;
}

function complaints(text: string): string[] {
  const sections = sectionsOf(text);
  return Object.entries(configSchema.entries as Record<string, AnySchema>).flatMap(([section, schema]) => {
    const entries = entriesOf(schema);
    if (entries === undefined) return [];
    const shown = sections.get(section);
    return Object.entries(entries).flatMap(([key, inner]) =>
      complaintsAbout(`${section}.${key}`, inner, shown?.get(key)),
    );
  });
}

function complaintsAbout(path: string, schema: AnySchema, shown: Shown[] | undefined): string[] {
  if (shown === undefined) return [`${path} is missing`];
  const values = shown.map(({ value }) => (parse(`x = ${value}`) as { x: unknown }).x);
  const inForce = shown.findIndex(({ isExample }) => !isExample);
  if (inForce !== -1 && values[inForce] !== schema.default) {
    return [`${path} is ${String(values[inForce])}, and its default is ${String(schema.default)}`];
  }
  // Those of handlers are examples all, because there is no handler by default.
  const hasDefault = schema.default !== undefined && Object.keys(Object(schema.default) as object).length > 0;
  if (inForce === -1 && hasDefault && !path.startsWith('handlers.')) return [`${path} is commented out`];
  const keys = Object.keys(entriesOf(schema) ?? {});
  const known = values.flatMap((value) => Object.keys(Object(value) as object));
  return keys.filter((key) => !known.includes(key)).map((key) => `${path} has no ${key}`);
}

/** The keys of a table or of the tables in a list, behind what says that it may be absent. */
function entriesOf(schema: AnySchema): Record<string, AnySchema> | undefined {
  const inner = schema.wrapped ?? schema.item;
  return inner ? entriesOf(inner) : schema.entries;
}
