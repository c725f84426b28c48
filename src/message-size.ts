import type { MessageFields } from './model.js';

/** Fields that only telemetry has. */
interface TelemetryOnly {
  creationTime?: string | undefined;
  component?: string | undefined;
  outputName?: string | undefined;
}

/**
 * Bytes of a message as IoT Hub counts them against its limit: the body, the values of system properties, and names
 * and values of application properties. Source: "Understand IoT Hub messages"; the expiry counts 24, as in the
 * counter of IoT Edge (`AmqpMessageUtils.cs`).
 */
export function messageBytes(message: MessageFields & TelemetryOnly): number {
  let bytes =
    message.body.length +
    length(message.messageId) +
    length(message.correlationId) +
    length(message.userId) +
    length(message.contentType) +
    length(message.contentEncoding) +
    length(message.component);
  if (message.expiresAt !== undefined) bytes += 24;
  // These two travel as application properties, so their names count.
  bytes +=
    named('iothub-creation-time-utc', message.creationTime) + named('iothub-outputname', message.outputName);
  for (const [name, value] of Object.entries(message.properties)) bytes += named(name, value);
  return bytes;
}

function named(name: string, value: string | undefined): number {
  return value === undefined ? 0 : length(name) + length(value);
}

function length(text: string | undefined): number {
  return text === undefined ? 0 : Buffer.byteLength(text);
}
