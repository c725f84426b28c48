import { InvalidArgumentError } from 'commander';

import { parseDuration, parseSize, parseTime } from '../units.js';

/**
 * Parsers for commander's options: each turns the text of an argument into a value, or into a complaint that says
 * how to write it.
 */

/** Milliseconds. */
export const duration = readAs(parseDuration);

/** Milliseconds; Infinity for `0`, which means for ever. */
export const durationOrForever = readAs((text) => parseDuration(text) || Infinity);

/** Bytes. */
export const size = readAs(parseSize);

/** Milliseconds since the epoch; relative ones count from now. */
export const time = readAs((text) => parseTime(text, Date.now()));

/** A whole number from `minimum` to `maximum`. */
export function count(minimum: number, maximum = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return readAs((text) => {
    const value = /^\d+$/.test(text) ? Number(text) : NaN;
    if (value >= minimum && value <= maximum) return value;
    const range =
      maximum === Number.MAX_SAFE_INTEGER
        ? `at least ${String(minimum)}`
        : `${String(minimum)} to ${String(maximum)}`;
    throw new SyntaxError(`write a whole number, ${range}`);
  });
}

/** Adds up how often a flag stands there, for `-vv`. */
export function countUp(_: string, soFar: number | undefined): number {
  return (soFar ?? 0) + 1;
}

/** Any text, repeatable, collected in the order given. */
export function collect(text: string, soFar: readonly string[] = []): string[] {
  return [...soFar, text];
}

/** `NAME=VALUE`, repeatable, collected in a record without a prototype: `__proto__` is a name like any other. */
export function property(text: string, soFar: Record<string, string> | undefined): Record<string, string> {
  const equals = text.indexOf('=');
  if (equals < 1) throw new InvalidArgumentError('write it as NAME=VALUE');
  const name = text.slice(0, equals);
  const properties = soFar ?? (Object.create(null) as Record<string, string>);
  if (name in properties) throw new InvalidArgumentError(`${name} is there twice`);
  properties[name] = text.slice(equals + 1);
  return properties;
}

function readAs<T>(parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text);
    } catch (error) {
      if (error instanceof SyntaxError) throw new InvalidArgumentError(error.message);
      throw error;
    }
  };
}
