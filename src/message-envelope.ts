import { isUtf8 } from 'node:buffer';

import { didYouMean } from './did-you-mean.js';
import { AgentError } from './errors.js';
import type { Properties } from './model.js';
import { parseTime } from './units.js';
import { memberText } from './json-member.js';

/**
 * A message as one line of JSON, as `send --ndjson` reads it and `receive -o json` prints it:
 *
 *     {"messageId":"m1","properties":{"room":"a"},"contentType":"application/json","body":{"t":21.5}}
 *
 * The body stands under one of three names: `body` is JSON, `bodyText` UTF-8 text, `bodyBase64` bytes. `hub` holds
 * what a hub added to a message that was received; it is read over, so that what was received can be sent again.
 * Any other name is an error, because a misspelt one would be lost in silence.
 */
export interface Envelope {
  messageId?: string;
  correlationId?: string;
  userId?: string;
  /** null: none, not even the default. */
  contentType?: string | null;
  contentEncoding?: string | null;
  creationTime?: string;
  component?: string;
  outputName?: string;
  ack?: Ack;
  /** Of a command: for whom it is. */
  deviceId?: string;
  moduleId?: string;
  /** Milliseconds since the epoch. */
  expiresAt?: number;
  properties?: Properties;
  /** Which of the three names it stood under decides what it is taken for. */
  form: 'json' | 'text' | 'bytes';
  body: Buffer;
}

export const acks = ['none', 'positive', 'negative', 'full'] as const;
/** Which outcomes of a command its sender wants to hear of. */
export type Ack = (typeof acks)[number];

/** What a line may describe: telemetry goes to the hub, a command to a device. */
export type MessageKind = 'telemetry' | 'command';

const texts = ['messageId', 'correlationId', 'userId'] as const;
const content = ['contentType', 'contentEncoding'] as const;
const common = [...texts, ...content] as const;
const telemetryOnly = ['component', 'outputName'] as const;
const commandOnly = ['deviceId', 'moduleId'] as const;
const plainTexts = [...texts, ...telemetryOnly, ...commandOnly] as const;
const bodies = ['body', 'bodyText', 'bodyBase64'] as const;
const keysOf: Record<MessageKind, readonly string[]> = {
  telemetry: [...common, ...telemetryOnly, ...bodies, 'creationTime', 'expiresAt', 'properties', 'hub'],
  command: [...common, ...commandOnly, ...bodies, 'ack', 'expiresAt', 'properties', 'hub'],
};

/** Reads a line; a `data` error that names the key when something is wrong with it. */
export function parseEnvelope(line: Buffer, kind: MessageKind, nowMs: number): Envelope {
  // Decoding would put U+FFFD in the place of what is not UTF-8, and send that.
  if (!isUtf8(line)) throw wrong('it is not UTF-8');
  const text = line.toString('utf8');
  const fields = parseObject(text);
  for (const key of fields.keys()) {
    if (!keysOf[kind].includes(key)) throw unknownKey(key, kind);
  }
  const envelope: Envelope = bodyField(fields, text);
  for (const key of plainTexts) {
    const value = stringField(fields, key);
    if (value !== undefined) envelope[key] = value;
  }
  for (const key of content) {
    const value = fields.get(key) === null ? null : stringField(fields, key);
    if (value !== undefined) envelope[key] = value;
  }
  const creationTime = timeField(fields, 'creationTime', nowMs);
  if (creationTime !== undefined)
    envelope.creationTime = verbatimTime(fields.get('creationTime'), creationTime);
  const expiresAt = timeField(fields, 'expiresAt', nowMs);
  if (expiresAt !== undefined) envelope.expiresAt = expiresAt;
  const ack = ackField(fields);
  if (ack !== undefined) envelope.ack = ack;
  const properties = propertiesField(fields);
  if (properties !== undefined) envelope.properties = properties;
  return envelope;
}

/** A Map, because a line may name a key `__proto__`. */
function parseObject(text: string): Map<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw wrong('it is not JSON', { cause });
  }
  if (!isObject(value)) throw wrong('it is not a JSON object');
  return new Map(Object.entries(value));
}

function unknownKey(key: string, kind: MessageKind): AgentError {
  const meant = didYouMean(key, keysOf[kind]);
  const known = keysOf[kind].join(', ');
  return wrong(`unknown key "${key}"`, {
    hint: meant === undefined ? `known are ${known}` : `did you mean "${meant}"?`,
  });
}

function bodyField(fields: Map<string, unknown>, text: string): Pick<Envelope, 'form' | 'body'> {
  const [name, ...others] = bodies.filter((key) => fields.has(key));
  if (name === undefined) throw wrong('it has no body', { hint: `it needs one of ${bodies.join(', ')}` });
  if (others.length > 0) throw wrong(`${name} and ${others.join(' and ')} exclude each other`);
  const value = fields.get(name);
  if (name === 'body') return { form: 'json', body: Buffer.from(memberText(text, 'body') ?? '') };
  if (typeof value !== 'string') throw wrong(`${name} is not a string`);
  if (name === 'bodyText') return { form: 'text', body: Buffer.from(value) };
  // Buffer.from skips what is not base64.
  const wellFormed = /^[A-Za-z0-9+/]*={0,2}$/.test(value) && value.length % 4 === 0;
  if (!wellFormed) throw wrong('bodyBase64 is not base64');
  return { form: 'bytes', body: Buffer.from(value, 'base64') };
}

function stringField(fields: Map<string, unknown>, key: string): string | undefined {
  const value = fields.get(key);
  if (value === undefined || typeof value === 'string') return value;
  throw wrong(`${key} is not a string`);
}

function timeField(fields: Map<string, unknown>, key: string, nowMs: number): number | undefined {
  const value = fields.get(key);
  if (value === undefined) return undefined;
  if (typeof value !== 'string' && typeof value !== 'number') throw wrong(`${key} is not a time`);
  try {
    return parseTime(String(value), nowMs);
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    throw wrong(`${key} is not a time`, { hint: cause.message });
  }
}

/** A device may give more digits than a millisecond has, so what is RFC 3339 already goes out as it came. */
function verbatimTime(value: unknown, ms: number): string {
  return typeof value === 'string' && /^\d{4}-/.test(value) ? value : new Date(ms).toISOString();
}

function ackField(fields: Map<string, unknown>): Ack | undefined {
  const value = stringField(fields, 'ack');
  if (value === undefined) return undefined;
  const ack = acks.find((known) => known === value);
  if (ack === undefined) throw wrong(`ack is not one of ${acks.join(', ')}`);
  return ack;
}

function propertiesField(fields: Map<string, unknown>): Properties | undefined {
  const value = fields.get('properties');
  if (value === undefined) return undefined;
  if (!isObject(value)) throw wrong('properties is not a JSON object');
  const properties = Object.create(null) as Properties;
  for (const [name, given] of Object.entries(value)) {
    // The hub keeps strings only, and turns these into them itself.
    if (typeof given !== 'string' && typeof given !== 'number' && typeof given !== 'boolean') {
      throw wrong(`the property "${name}" is not a string`);
    }
    properties[name] = String(given);
  }
  return properties;
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function wrong(what: string, options: { hint?: string; cause?: unknown } = {}): AgentError {
  return new AgentError('data', what, options);
}
