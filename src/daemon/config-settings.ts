import * as v from 'valibot';

import type { AnySchema, ParsedConfig } from './config.js';
import type { Path } from './config-positions.js';
import { configSchema } from './config-schema.js';
import { secret } from './config-secret.js';

/** A key and its value, as people write it: `"30s"`, not milliseconds. No secret is in it. */
export interface Setting {
  /** `['hub', 'token_ttl']`; of a handler `['handlers', 0, 'exec']`. */
  path: Path;
  /** Undefined: it is not set, and has no default. */
  value: unknown;
}

/** Every key of the configuration, section by section, in the order of the schema. */
export function settingsOf({ document }: Pick<ParsedConfig, 'document'>): Setting[] {
  return Object.entries(configSchema.entries).flatMap(([section, schema]): Setting[] => {
    const inner = unwrapped(schema);
    const said = document[section];
    const { item } = inner;
    if (item) {
      const tables = (said ?? []) as Table[];
      return tables.flatMap((table, at) =>
        settingsIn(unwrapped(item), table, [section, at]).filter(({ value }) => !isNothing(value)),
      );
    }
    return inner.entries ? settingsIn(inner, (said ?? {}) as Table, [section]) : [];
  });
}

type Table = Record<string, unknown>;

function settingsIn({ entries = {} }: AnySchema, table: Table, path: Path): Setting[] {
  return Object.entries(entries).map(([key, schema]) => ({
    path: [...path, key],
    value: withoutSecrets(schema, table[key] ?? schema.default),
  }));
}

/** A schema without what says that it may be absent, and without what is done with its value. */
function unwrapped(schema: AnySchema): AnySchema {
  if (schema.wrapped) return unwrapped(schema.wrapped);
  const first = schema.pipe?.[0] as AnySchema | undefined;
  return first ? unwrapped(first) : schema;
}

function withoutSecrets(schema: AnySchema, value: unknown): unknown {
  const { entries, item } = unwrapped(schema);
  if (isSecret(schema) && typeof value === 'string') {
    return `[secret, ${String(value.length)} characters]`;
  }
  if (Array.isArray(value)) return item ? value.map((one) => withoutSecrets(item, one)) : value;
  if (!entries || typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, one]) => [key, entries[key] ? withoutSecrets(entries[key], one) : one]),
  );
}

function isSecret(schema: AnySchema): boolean {
  return unwrapped(schema) === (secret as AnySchema);
}

/** A table of a handler that says no more than none at all. */
function isNothing(value: unknown): boolean {
  return (
    value === undefined || (v.is(v.record(v.string(), v.unknown()), value) && Object.keys(value).length === 0)
  );
}
