import { dataSection, idText, rhea } from './wire.js';
import type { WireId } from './wire.js';

/** A message as the hub keeps it: what its sender wrote, with ids in the AMQP type they came in. */
export interface HubMessage {
  id?: WireId | undefined;
  correlation?: WireId | undefined;
  /** `id` and `correlation` as text. */
  messageId?: string | undefined;
  correlationId?: string | undefined;
  userId?: Buffer | undefined;
  to?: string | undefined;
  contentType?: string | undefined;
  contentEncoding?: string | undefined;
  /** Milliseconds since the epoch. */
  expiresAt?: number | undefined;
  /** Application properties, those of the system (`iothub-ack` …) among them. */
  properties: Record<string, unknown>;
  annotations: Record<string, unknown>;
  body: Buffer;
}

/** A message as rhea decodes it, as far as the hub reads it. */
export interface WireMessage {
  message_id?: WireId;
  correlation_id?: WireId;
  user_id?: Buffer | string;
  to?: string;
  reply_to?: string;
  content_type?: string;
  content_encoding?: string;
  absolute_expiry_time?: number | Date;
  application_properties?: Record<string, unknown>;
  message_annotations?: Record<string, unknown>;
  body?: unknown;
}

/** A whole message from its bytes. */
export function decode(bytes: Buffer): WireMessage {
  return rhea.message.decode(bytes) as unknown as WireMessage;
}

/** The data sections of a body, one by one. */
export function sectionsOf(body: unknown): Buffer[] {
  if (typeof body !== 'object' || body === null || !('content' in body)) return [];
  return [body.content].flat().filter((part) => Buffer.isBuffer(part));
}

export function fromWire(wire: WireMessage): HubMessage {
  return {
    id: wire.message_id ?? undefined,
    correlation: wire.correlation_id ?? undefined,
    messageId: idText(wire.message_id),
    correlationId: idText(wire.correlation_id),
    userId: typeof wire.user_id === 'string' ? Buffer.from(wire.user_id) : (wire.user_id ?? undefined),
    to: wire.to ?? undefined,
    contentType: wire.content_type ?? undefined,
    contentEncoding: wire.content_encoding ?? undefined,
    expiresAt: wire.absolute_expiry_time == null ? undefined : Number(wire.absolute_expiry_time),
    properties: wire.application_properties ?? {},
    annotations: wire.message_annotations ?? {},
    body: bodyBytes(wire.body),
  };
}

/** The parts of a message that the hub hands on unchanged, for rhea to encode. */
export function toWire(message: HubMessage): WireMessage {
  const wire: WireMessage = { body: dataSection(message.body) };
  if (message.id !== undefined) wire.message_id = message.id;
  if (message.correlation !== undefined) wire.correlation_id = message.correlation;
  if (message.userId !== undefined) wire.user_id = message.userId;
  if (message.to !== undefined) wire.to = message.to;
  if (message.contentType !== undefined) wire.content_type = message.contentType;
  if (message.contentEncoding !== undefined) wire.content_encoding = message.contentEncoding;
  if (message.expiresAt !== undefined) wire.absolute_expiry_time = message.expiresAt;
  if (Object.keys(message.properties).length > 0) wire.application_properties = message.properties;
  return wire;
}

/**
 * What IoT Hub counts against its limits: the body, the values of the system properties, and names and values of the
 * application properties ("Create and read IoT Hub messages").
 */
export function countedBytes(message: HubMessage): number {
  let bytes = message.body.length + (message.userId?.length ?? 0);
  const values = [message.messageId, message.correlationId, message.to, message.contentType];
  for (const value of [...values, message.contentEncoding]) bytes += byteLength(value);
  if (message.expiresAt !== undefined) bytes += 24;
  for (const name in message.properties) bytes += byteLength(name) + byteLength(message.properties[name]);
  return bytes;
}

/** Which feedback the sender of a command asked for. */
export function ackOf(message: HubMessage): string {
  return text(message.properties['iothub-ack'])?.toLowerCase() ?? 'none';
}

/** A text property, or undefined when it is absent or of another type. */
export function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

/** `content` of a data section is its bytes, or a list of them when there are several sections. */
export function bodyBytes(body: unknown): Buffer {
  if (body === undefined || body === null) return Buffer.alloc(0);
  if (Buffer.isBuffer(body)) return body;
  if (typeof body === 'string') return Buffer.from(body);
  if (typeof body === 'object' && 'content' in body) {
    return Array.isArray(body.content) ? Buffer.concat(body.content.map(bodyBytes)) : bodyBytes(body.content);
  }
  return Buffer.from(JSON.stringify(body));
}

function byteLength(value: unknown): number {
  if (typeof value === 'string') return Buffer.byteLength(value);
  if (Buffer.isBuffer(value)) return value.length;
  return typeof value === 'number' || typeof value === 'boolean' ? String(value).length : 0;
}
