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
