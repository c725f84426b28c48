/**
 * Text from outside, made fit for one line of a terminal or a log: control characters (C0, C1, DEL), line and
 * paragraph separators and the characters that turn the direction of writing become `\n`, `\x1b`, `\u202e`.
 * A backslash stays as it is: this is for reading, not for parsing back.
 */
export function visible(text: string): string {
  return unfit.test(text) ? text.replace(everyUnfit, escape) : text;
}

// Bidi controls: Unicode Standard Annex 9, section 2; they can make a log line read as something it is not.
const set = '[\\u0000-\\u001f\\u007f-\\u009f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ufeff]';
const unfit = new RegExp(set);
const everyUnfit = new RegExp(set, 'g');

const short: Record<string, string> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };

function escape(character: string): string {
  const code = character.charCodeAt(0);
  const hex = code.toString(16);
  return short[character] ?? (code < 0x100 ? `\\x${hex.padStart(2, '0')}` : `\\u${hex.padStart(4, '0')}`);
}
