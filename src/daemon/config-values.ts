import { isIP } from 'node:net';

import * as v from 'valibot';

import { parseDuration, parseSize } from '../units.js';

/**
 * Values that are text in a configuration file and numbers when they have been read.
 */

/** A duration that lies between two others; milliseconds when it has been read. */
export function duration(description: string, least: string, most: string) {
  return quantity(description, bounded(parseDuration, least, most), durationForm);
}

/** A size that lies between two others; bytes when it has been read. */
export function size(description: string, least: string, most: string) {
  const form = 'write a size as "512", "64KB", "256KiB" or "1MiB"';
  return quantity(description, bounded(parseSize, least, most), form);
}

/** A delay that doubles from the first to the most. */
export interface GrowingDelay {
  firstMs: number;
  mostMs: number;
}

/** `5s..50s`, or `5s` where it does not grow. */
export function growingDelay(description: string, least: string, most: string) {
  const form = 'write the first and the longest delay as "5s..50s"';
  const parse = bounded(parseDuration, least, most);
  const parseRange = (text: string): GrowingDelay => {
    const [first = '', last = first, ...more] = text.split('..');
    const [firstMs, mostMs] = [parse(first.trim()), parse(last.trim())];
    if (more.length > 0 || firstMs > mostMs) throw new SyntaxError(form);
    return { firstMs, mostMs };
  };
  return quantity(description, parseRange, form);
}

const durationForm = 'write a duration as "500ms", "30s", "5m" or "1h30m"';

function bounded(parse: (text: string) => number, least: string, most: string): (text: string) => number {
  const [lowest, highest] = [parse(least), parse(most)];
  return (text) => {
    const value = parse(text);
    if (value >= lowest && value <= highest) return value;
    throw new SyntaxError(`it has to lie between ${least} and ${most}`);
  };
}

function quantity<T>(description: string, parse: (text: string) => T, form: string) {
  return v.pipe(
    v.string(form),
    v.description(description),
    v.rawTransform<string, T>(({ dataset, addIssue, NEVER }) => {
      try {
        return parse(dataset.value);
      } catch (error) {
        if (!(error instanceof SyntaxError)) throw error;
        addIssue({ message: error.message });
        return NEVER;
      }
    }),
  );
}

/** `HOST:PORT` with an address of this machine, `[::1]:9464` too. */
export function listenAddress(description: string) {
  const form = 'write an address and a port as "127.0.0.1:9464"';
  const parse = (text: string) => {
    if (text === '') return undefined;
    const [, bracketed, plain, digits] = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(text) ?? [];
    const host = bracketed ?? plain;
    const port = Number(digits);
    const isAddress = host === 'localhost' || isIP(host ?? '') === (bracketed === undefined ? 4 : 6);
    if (host === undefined || !isAddress || port > 65_535) throw new SyntaxError(form);
    return { host, port };
  };
  return quantity(description, parse, form);
}

/** How many, from `least` to `most`. */
export function count(description: string, least: number, most: number) {
  return v.pipe(
    v.number('write a whole number'),
    v.integer('write a whole number'),
    v.minValue(least, `it has to be at least ${least}`),
    v.maxValue(most, `it has to be at most ${most}`),
    v.description(description),
  );
}
