/** Words for the POSIX-like shells. */

export function quoted(text: string): string {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/** Any of these, as a pattern of `case`. */
export function patterns(texts: readonly string[]): string {
  return texts.map(quoted).join('|');
}
