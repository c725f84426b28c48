import { isDeepStrictEqual } from 'node:util';

/**
 * JSON merge patches (RFC 7396), which is how the sections of a device twin change: null deletes, objects merge,
 * anything else replaces. Objects are made with `Object.fromEntries`, for which `__proto__` is a name like any other.
 */
export type JsonObject = Partial<Record<string, unknown>>;

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Its own member of that name; undefined when it has none. */
export function member(object: JsonObject, name: string): unknown {
  return Object.hasOwn(object, name) ? object[name] : undefined;
}

/** What the patch makes of the target. */
export function merged(target: JsonObject, patch: JsonObject): JsonObject {
  const members = new Map(Object.entries(target));
  for (const [name, value] of Object.entries(patch)) {
    const before = members.get(name);
    if (value === null) members.delete(name);
    else if (isJsonObject(value)) members.set(name, merged(isJsonObject(before) ? before : {}, value));
    else members.set(name, value);
  }
  return Object.fromEntries(members);
}

/** One patch that does what two do, the second after the first; a deletion that the second fills anew is left out. */
export function combined(first: JsonObject, second: JsonObject): JsonObject {
  const members = new Map(Object.entries(first));
  for (const [name, value] of Object.entries(second)) {
    const before = members.get(name);
    members.set(name, isJsonObject(before) && isJsonObject(value) ? combined(before, value) : value);
  }
  return Object.fromEntries(members);
}

/** The smallest patch that makes `to` of `from`. */
export function difference(from: JsonObject, to: JsonObject): JsonObject {
  const gone = Object.keys(from).filter((name) => !Object.hasOwn(to, name));
  const changed = Object.entries(to).flatMap(([name, value]): [string, unknown][] => {
    const before = member(from, name);
    if (isJsonObject(before) && isJsonObject(value)) {
      const inner = difference(before, value);
      return Object.keys(inner).length === 0 ? [] : [[name, inner]];
    }
    return isDeepStrictEqual(before, value) ? [] : [[name, value]];
  });
  return Object.fromEntries([...gone.map((name): [string, null] => [name, null]), ...changed]);
}

/** `nested(['fan', 'speed'], 3)` is `{fan: {speed: 3}}`. */
export function nested(names: readonly string[], value: unknown): JsonObject {
  return names.reduceRight<unknown>(
    (inner, name) => Object.fromEntries([[name, inner]]),
    value,
  ) as JsonObject;
}

/** What is found by going down these names; undefined when there is nothing. */
export function descend(value: unknown, names: readonly string[]): unknown {
  return names.reduce<unknown>(
    (inner, name) => (isJsonObject(inner) ? member(inner, name) : undefined),
    value,
  );
}
