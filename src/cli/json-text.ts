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
