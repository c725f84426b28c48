import type { HandlerEvent } from './contract.js';
import { parseJson } from './json.js';

/**
 * Which events a handler takes. All conditions given must hold; a text is compared as a whole, with `*` for any
 * characters and `?` for one (`\*` is a star); of a list one must fit.
 */
export interface Match {
  /** By property: `{ command: 'restart' }`. */
  property?: Readonly<Record<string, Texts>> | undefined;
  contentType?: Texts | undefined;
  messageId?: Texts | undefined;
  deviceId?: Texts | undefined;
  /** By JSON pointer (RFC 6901) into the body: `{ '/action': 'restart' }`. A value that is no text must be equal. */
  body?: Readonly<Record<string, Texts | number | boolean | null>> | undefined;
  /** Name of a direct method. */
  method?: Texts | undefined;
  /** Desired property; what lies inside it fits too: `fan` takes `fan.speed`. */
  path?: Texts | undefined;
}

type Texts = string | readonly string[];

/** The first handler of the event's kind that takes it. */
export function findRoute<H extends { on: HandlerEvent['event']; match?: Match | undefined }>(
  handlers: readonly H[],
  event: HandlerEvent,
): H | undefined {
  return handlers.find(
    ({ on, match }) => on === event.event && (match === undefined || matches(match, event)),
  );
}

export function matches(match: Match, event: HandlerEvent): boolean {
  const command = event.event === 'command' ? event : undefined;
  return (
    fits(match.deviceId, event.deviceId) &&
    fits(match.contentType, event.contentType) &&
    fits(match.messageId, command?.messageId) &&
    fits(match.method, event.event === 'method' ? event.method : undefined) &&
    fitsPath(match.path, event.event === 'twin' ? event.path : undefined) &&
    fitsProperties(match.property ?? {}, event.properties) &&
    fitsBody(match.body ?? {}, event.body)
  );
}

function fits(wanted: Texts | undefined, text: string | undefined): boolean {
  if (wanted === undefined) return true;
  if (text === undefined) return false;
  return typeof wanted === 'string' ? fitsGlob(wanted, text) : wanted.some((one) => fitsGlob(one, text));
}

function fitsPath(wanted: Texts | undefined, path: string | undefined): boolean {
  if (wanted === undefined) return true;
  if (path === undefined) return false;
  const steps = path.split('.');
  return steps.some((_, index) => fits(wanted, steps.slice(0, index + 1).join('.')));
}

function fitsProperties(
  wanted: Readonly<Record<string, Texts>>,
  properties: Record<string, string>,
): boolean {
  return Object.entries(wanted).every(([name, texts]) =>
    fits(texts, Object.hasOwn(properties, name) ? properties[name] : undefined),
  );
}

function fitsBody(wanted: NonNullable<Match['body']>, body: Buffer): boolean {
  const conditions = Object.entries(wanted);
  if (conditions.length === 0) return true;
  const parsed = parseJson(body);
  if (!parsed.ok) return false;
  return conditions.every(([pointer, expected]) => {
    const value = resolvePointer(parsed.value, pointer);
    const textual = typeof expected === 'string' || (typeof expected === 'object' && expected !== null);
    return textual ? typeof value === 'string' && fits(expected, value) : value === expected;
  });
}

/** The value that an RFC 6901 pointer names, among own keys only; undefined when there is none. */
function resolvePointer(document: unknown, pointer: string): unknown {
  if (pointer === '') return document;
  let value = document;
  for (const step of pointer.split('/').slice(1)) {
    const key = step.replaceAll('~1', '/').replaceAll('~0', '~');
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return undefined;
    if (Array.isArray(value) && !/^\d+$/.test(key)) return undefined;
    value = (value as Record<string, unknown>)[key];
  }
  return value;
}

/**
 * `*`, `?` and `\` as in a shell, in time pattern × text: a regular expression made from a pattern with several
 * stars can take far longer on a text that someone chose for it.
 */
export function fitsGlob(pattern: string, text: string): boolean {
  const tokens = tokensOf(pattern);
  const letters = Array.from(text);
  let token = 0;
  let letter = 0;
  let star = -1;
  let afterStar = 0;
  while (letter < letters.length) {
    const wanted = tokens[token];
    if (wanted?.kind === 'any') {
      star = token++;
      afterStar = letter;
    } else if (wanted !== undefined && (wanted.kind === 'one' || wanted.letter === letters[letter])) {
      token++;
      letter++;
    } else if (star >= 0) {
      // The last star takes one letter more, and the rest is tried again.
      token = star + 1;
      letter = ++afterStar;
    } else {
      return false;
    }
  }
  return tokens.slice(token).every(({ kind }) => kind === 'any');
}

type Token = { kind: 'any' } | { kind: 'one' } | { kind: 'letter'; letter: string };

function tokensOf(pattern: string): Token[] {
  return Array.from(pattern.matchAll(/\\?./gsu), ([symbol]): Token => {
    if (symbol === '*') return { kind: 'any' };
    if (symbol === '?') return { kind: 'one' };
    return {
      kind: 'letter',
      letter: symbol.length > 1 && symbol.startsWith('\\') ? symbol.slice(1) : symbol,
    };
  });
}
