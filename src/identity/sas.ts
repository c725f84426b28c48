import { createHmac, timingSafeEqual } from 'node:crypto';

import { AgentError } from '../errors.js';

/**
 * Shared access signatures.
 *
 *     SharedAccessSignature sr={resource}&sig={signature}&se={expiry}[&skn={policy}]
 *
 * `sr` is the percent-encoded resource, `se` seconds since the epoch, and `sig` the base64 of
 * HMAC-SHA256(key, sr + "\n" + se), percent-encoded. What is signed is `sr` exactly as the token carries it, so a
 * verifier must never decode and encode it again: SDKs disagree about the case of the escapes.
 * Source: "Control access to IoT Hub with shared access signatures", section "SAS token structure".
 */

export interface SasTokenFields {
  /** Percent-encoded resource, verbatim. */
  encodedResource: string;
  /** Decoded signature. */
  signature: Buffer;
  /** Seconds since the epoch, verbatim, as it was signed. */
  expiry: string;
  /** Policy that signed it (`skn`); absent for device and module keys. */
  policyName?: string | undefined;
}

export interface SasTokenOptions {
  /** Unencoded, without scheme: `{host}/devices/{id}`, or `{host}` for a policy. */
  resource: string;
  /** HMAC key. IoT Hub keys are base64 and decoded first; Event Hubs libraries use the text itself. */
  key: Buffer;
  expiresAtSeconds: number;
  policyName?: string | undefined;
}

/** Makes a token. The order of its fields is that of the Node SDK: `sr`, `sig`, `se`, `skn`. */
export function createSasToken({ resource, key, expiresAtSeconds, policyName }: SasTokenOptions): string {
  const sr = encodeResource(resource);
  const se = String(Math.floor(expiresAtSeconds));
  const sig = encodeURIComponent(sign(key, sr, se).toString('base64'));
  const skn = policyName === undefined ? '' : `&skn=${encodeURIComponent(policyName)}`;
  return `SharedAccessSignature sr=${sr}&sig=${sig}&se=${se}${skn}`;
}

/**
 * Percent-encodes a resource as the Node SDK does: `encodeURIComponent`, then `! ' ( ) *` too, with their hex
 * digits in lower case.
 */
export function encodeResource(resource: string): string {
  return encodeURIComponent(resource).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16)}`);
}

/** What a token is for: `{host}/devices/{id}[/modules/{module}]`. */
export function deviceResource(host: string, deviceId: string, moduleId?: string): string {
  const device = `${host}/devices/${deviceId}`;
  return moduleId === undefined ? device : `${device}/modules/${moduleId}`;
}

/** Takes a token apart; a `config` error when it is not one. The order of its fields is free. */
export function parseSasToken(token: string): SasTokenFields {
  const [scheme, query, ...more] = token.trim().split(/\s+/);
  if (scheme !== 'SharedAccessSignature' || query === undefined || more.length > 0) {
    throw new AgentError(
      'config',
      'not a SAS token: it does not read "SharedAccessSignature sr=…&sig=…&se=…"',
    );
  }
  const fields = new Map<string, string>();
  for (const pair of query.split('&')) {
    const equals = pair.indexOf('=');
    const name = pair.slice(0, equals);
    if (equals < 1 || fields.has(name))
      throw new AgentError('config', 'not a SAS token: a field is broken or there twice');
    fields.set(name, pair.slice(equals + 1));
  }
  const encodedResource = field(fields, 'sr');
  const expiry = field(fields, 'se');
  if (!/^\d{1,15}$/.test(expiry))
    throw new AgentError('config', 'not a SAS token: se is not a number of seconds');
  const skn = fields.get('skn');
  return {
    encodedResource,
    signature: Buffer.from(percentDecode(field(fields, 'sig')), 'base64'),
    expiry,
    policyName: skn === undefined || skn === '' ? undefined : percentDecode(skn),
  };
}

/** Whether one of `keys` signed the token. Compares in constant time; says nothing about its expiry or scope. */
export function isSignedBy(token: SasTokenFields, keys: readonly Buffer[]): boolean {
  return keys.some((key) => {
    const expected = sign(key, token.encodedResource, token.expiry);
    return expected.length === token.signature.length && timingSafeEqual(expected, token.signature);
  });
}

function sign(key: Buffer, encodedResource: string, expiry: string): Buffer {
  return createHmac('sha256', key).update(`${encodedResource}\n${expiry}`).digest();
}

function field(fields: Map<string, string>, name: string): string {
  const value = fields.get(name);
  if (value === undefined || value === '')
    throw new AgentError('config', `not a SAS token: ${name} is missing`);
  return value;
}

/** Percent-decoding that leaves `+` alone: in a signature it is a base64 digit, not a space. */
function percentDecode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw new AgentError('config', 'not a SAS token: a percent escape is broken', { cause });
  }
}
