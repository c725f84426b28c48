/**
 * JSON that passes through as it was written. `JSON.parse` would turn 1763614800123456789 into …800123456800, and a
 * message is not ours to change.
 */

/** The text of a top-level member of a JSON object, the last one if it is there twice. `text` has been parsed before. */
export function memberText(text: string, name: string): string | undefined {
  let depth = 0;
  let key: string | undefined;
  let start = 0;
  let found: string | undefined;
  for (const { 0: token, index } of text.matchAll(tokens)) {
    if (depth === 1 && (token === ',' || token === '}')) {
      if (key === name) found = text.slice(start, index).trim();
      key = undefined;
    } else if (depth === 1 && key === undefined && token.startsWith('"')) {
      key = JSON.parse(token) as string;
    } else if (depth === 1 && token === ':') {
      start = index + 1;
    }
    if (token === '{' || token === '[') depth++;
    if (token === '}' || token === ']') depth--;
  }
  return found;
}

const tokens = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],:]/g;

/**
 * JSON on one line that no terminal obeys: line breaks between its parts become blanks, and the control and bidi
 * characters that JSON allows in strings are escaped. It still means the same.
 */
export function jsonOnOneLine(text: string): string {
  return text
    .replace(/[\n\r]/g, ' ')
    .replace(unfit, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

const unfit = /[\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;
