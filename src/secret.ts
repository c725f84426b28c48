import { inspect } from 'node:util';

/**
 * A value that must not be printed. It shows as `[secret]` in logs, errors, JSON and `inspect`; only `reveal()`
 * hands it out, and every place that calls it can be found by that name.
 *
 * All secrets made in this process are remembered, so that `redact` can take them out of any text.
 */
export class Secret {
  readonly #value: string;

  constructor(value: string) {
    this.#value = value;
    remember(value);
  }

  reveal(): string {
    return this.#value;
  }

  toString(): string {
    return '[secret]';
  }

  toJSON(): string {
    return '[secret]';
  }

  [inspect.custom](): string {
    return '[secret]';
  }
}

/** Shorter values would take ordinary words out of the text. */
const minimumLength = 8;
/** A renewed token replaces the last one; the oldest forms are of no use to anyone after a few renewals. */
const maximumRemembered = 256;

const forms = new Set<string>();

function remember(value: string): void {
  if (value.length < minimumLength) return;
  const bytes = Buffer.from(value);
  const inJson = JSON.stringify(value).slice(1, -1);
  for (const form of [
    value,
    inJson,
    encodeURIComponent(value),
    bytes.toString('base64'),
    bytes.toString('hex'),
  ]) {
    forms.delete(form);
    forms.add(form);
  }
  for (const oldest of forms) {
    if (forms.size <= maximumRemembered) break;
    forms.delete(oldest);
  }
}

/** Names that are always followed by a secret: connection strings and SAS tokens, plain or percent-encoded. */
const patterns = [
  /(SharedAccessKey\s*(?:=|%3D)\s*)[^;\s"'&]+/gi,
  /(\bsig(?:=|%3D))[^&;\s"']+/gi,
  /(SharedAccessSignature\s*=\s*)(?:SharedAccessSignature\s+)?[^;\s"']+/gi,
];

/** Takes every secret out of `text`: those made in this process in any usual encoding, and what looks like one. */
export function redact(text: string): string {
  let clean = text;
  for (const form of forms) {
    if (clean.includes(form)) clean = clean.replaceAll(form, '[secret]');
  }
  for (const pattern of patterns) clean = clean.replace(pattern, '$1[secret]');
  return clean;
}
