import '../no-debug.js';

import rhea, { type Message } from 'rhea';

import { AgentError, errorText } from '../errors.js';
import type { Payload } from './guard/sent-deliveries.js';
import type { DeviceId, MessageFields, Properties, TelemetryMessage } from '../model.js';

/**
 * IoT Hub's messages as AMQP 1.0 messages. Source: "Communicate with your IoT hub by using the AMQP protocol" and
 * the converters of the Node, C# and C SDKs.
 */

/** Reads what `encodeTelemetry` made. Errors: `data`. */
export function decodeTelemetry(encoded: Buffer): TelemetryMessage {
  let message: Message;
  try {
    message = rhea.message.decode(encoded) as unknown as Message;
  } catch (cause) {
    throw new AgentError('data', `it is not an AMQP message: ${errorText(cause)}`, { cause });
  }
  const properties: Properties = {};
  const system = new Map<string, string>();
  for (const [name, value] of entries(message.application_properties)) {
    const text = asText(value);
    if (text === undefined) continue;
    if (telemetryProperties.has(name)) system.set(name, text);
    else define(properties, name, text);
  }
  return {
    messageId: asId(message.message_id) ?? '',
    correlationId: asId(message.correlation_id),
    userId: asText(message.user_id),
    contentType: asText(message.content_type),
    contentEncoding: asText(message.content_encoding),
    expiresAt: asTime(message.absolute_expiry_time),
    creationTime: system.get('iothub-creation-time-utc'),
    outputName: system.get('iothub-outputname'),
    component: asText(entries(message.message_annotations).get('dt-subject')),
    properties,
    body: bodyOf(message),
  };
}

/** Application properties that stand for fields of their own. */
const telemetryProperties = new Set(['iothub-creation-time-utc', 'iothub-outputname']);

/** What a message of a batch needs beside its own bytes: descriptor, constructor and length of a data section. */
export const batchOverheadBytes = 8;

/**
 * Several encoded messages as one, for a transfer in the format 0x80013700: each is a data section of its own. The
 * hub answers for all of them together. Source: the C SDK's telemetry messenger; C# `SendEventBatchAsync`.
 */
export function batchOf(messages: readonly Buffer[]): Payload {
  const length = messages.reduce((bytes, message) => bytes + batchOverheadBytes + message.length, 0);
  return {
    length,
    copy(target, start) {
      let at = start;
      for (const message of messages) {
        // 0x00 0x53 0x75: the descriptor of a data section; 0xb0: binary with a length of four bytes.
        target.writeUInt32BE(0x0053_75b0, at);
        target.writeUInt32BE(message.length, at + 4);
        message.copy(target, at + batchOverheadBytes);
        at += batchOverheadBytes + message.length;
      }
    },
  };
}

/**
 * A command for a device, as the service side sends it. Its address is in `to`, the device id percent-encoded as
 * both official service SDKs write it.
 */
export function encodeCommand(command: MessageFields & { to: DeviceId; ack: string }): Message {
  const { deviceId, moduleId } = command.to;
  const device = `/devices/${encodeURIComponent(deviceId)}`;
  const path = moduleId === undefined ? device : `${device}/modules/${encodeURIComponent(moduleId)}`;
  return present({
    message_id: command.messageId,
    correlation_id: command.correlationId,
    user_id: command.userId === undefined ? undefined : Buffer.from(command.userId),
    to: `${path}/messages/devicebound`,
    content_type: command.contentType,
    content_encoding: command.contentEncoding,
    absolute_expiry_time: command.expiresAt,
    application_properties: {
      ...command.properties,
      ...(command.ack === 'none' ? {} : { 'iothub-ack': command.ack }),
    },
    body: rhea.message.data_section(command.body),
  });
}

/** An id as text: AMQP lets it be a string, a ulong, a uuid or binary. */
export function asId(id: unknown): string | undefined {
  if (Buffer.isBuffer(id) && id.length === 16) return rhea.uuid_to_string(id);
  return asText(id);
}

export function asText(value: unknown): string | undefined {
  if (typeof value === 'string') return value;
  if (typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint')
    return String(value);
  if (Buffer.isBuffer(value)) return value.toString('utf8');
  // rhea reads a timestamp that no Date can hold as an invalid one.
  if (value instanceof Date && Number.isFinite(value.getTime())) return value.toISOString();
  return undefined;
}

export function asTime(value: unknown): number | undefined {
  const time = value instanceof Date ? value.getTime() : value;
  return typeof time === 'number' && Number.isFinite(time) ? time : undefined;
}

export function asCount(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : undefined;
}

/** The bytes of a message's body: data sections joined; a text value as UTF-8; anything else as JSON. */
export function bodyOf(message: Message): Buffer {
  return asBody(message.body);
}

function asBody(body: unknown): Buffer {
  if (body === undefined || body === null) return Buffer.alloc(0);
  if (Buffer.isBuffer(body)) return body;
  if (typeof body === 'string') return Buffer.from(body);
  if (typeof body === 'object' && 'content' in body) {
    const { content } = body;
    return Array.isArray(content) ? Buffer.concat(content.map(asBody)) : asBody(content);
  }
  return Buffer.from(JSON.stringify(body));
}

/** Own entries only: a map with the key `__proto__` comes out of rhea with another prototype. */
export function entries(map: unknown): Map<string, unknown> {
  return new Map(typeof map === 'object' && map !== null ? Object.entries(map) : []);
}

/** Also a name that every object has a setter for. */
export function define(properties: Properties, name: string, value: string): void {
  if (name !== '__proto__') {
    properties[name] = value;
    return;
  }
  Object.defineProperty(properties, name, { value, enumerable: true, configurable: true, writable: true });
}

/** rhea's types know a user id only as a string and a time only as a Date; the wire wants binary and a timestamp. */
function present(fields: Record<string, unknown>): Message {
  return Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined),
  ) as unknown as Message;
}
