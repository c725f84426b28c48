import { errorText } from '../errors.js';

export type ParsedJson = { ok: true; value: unknown } | { ok: false; why: string };

const deepest = 64;
const dangerousKeys = new Set(['__proto__', 'constructor', 'prototype']);

/**
 * Reads JSON that a stranger wrote: not nested so deeply that walking it could exhaust the stack, and without the
 * keys that replace a prototype when someone merges the result into an object.
 */
export function parseJson(bytes: Buffer): ParsedJson {
  const text = bytes.toString('utf8');
  if (depthOf(text) > deepest) return { ok: false, why: `JSON nested deeper than ${deepest} levels` };
  try {
    const value: unknown = JSON.parse(text, (key, inner: unknown) =>
      dangerousKeys.has(key) ? undefined : inner,
    );
    return { ok: true, value };
  } catch (error) {
    return { ok: false, why: `not JSON: ${errorText(error)}` };
  }
}

/** Deepest nesting of brackets outside strings. */
function depthOf(text: string): number {
  let depth = 0;
  let deepestSeen = 0;
  let inString = false;
  for (let index = 0; index < text.length; index++) {
    const letter = text[index];
    if (inString) {
      if (letter === '\\') index++;
      else if (letter === '"') inString = false;
    } else if (letter === '"') {
      inString = true;
    } else if (letter === '[' || letter === '{') {
      deepestSeen = Math.max(deepestSeen, ++depth);
    } else if (letter === ']' || letter === '}') {
      depth--;
    }
  }
  return deepestSeen;
}
