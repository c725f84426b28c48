import type { Message } from 'rhea';

import type { MessageFields, Properties } from '../model.js';
import { asCount, asId, asText, asTime, bodyOf } from './messages.js';

/**
 * A message as the Event Hubs-compatible endpoint gives it: what a device sent with what the hub stamped on it, or
 * one of the hub's own (a changed twin, a device that went online). Source: "Read device-to-cloud messages from the
 * built-in endpoint" and "Non-telemetry event schemas".
 */
export interface HubEvent extends MessageFields {
  /** Absent when it was written by something else than a device. */
  deviceId?: string | undefined;
  moduleId?: string | undefined;
  /** `Telemetry`, `twinChangeEvents`, `deviceLifecycleEvents` and so on. */
  source?: string | undefined;
  /** Creation time as the device says, RFC 3339. */
  creationTime?: string | undefined;
  /** Plug and Play component (`dt-subject`). */
  component?: string | undefined;
  /** When the hub took it, milliseconds since the epoch. */
  enqueuedAt: number;
  partition: string;
  /** Where it stands in its partition: text that is handed back as it is. */
  offset: string;
  /** From 0, one more with each event of the partition. */
  sequenceNumber: number;
  /** All that was stamped on it, as text. */
  annotations: Properties;
}

/** Reads an event; undefined when it does not say where in its partition it stands. */
export function decodeEvent(message: Message, partition: string): HubEvent | undefined {
  const stamped = (name: string): unknown => own(message.message_annotations, name);
  const offset = asText(stamped('x-opt-offset'));
  const sequenceNumber = asCount(stamped('x-opt-sequence-number'));
  if (offset === undefined || sequenceNumber === undefined) return undefined;
  const { [creationTimeName]: creationTime, ...properties } = texts(message.application_properties);
  return {
    // The events that the hub writes itself name the device among their properties.
    deviceId: asText(stamped('iothub-connection-device-id')) ?? properties['deviceId'],
    moduleId: asText(stamped('iothub-connection-module-id')),
    source: asText(stamped('iothub-message-source')),
    messageId: asId(message.message_id),
    correlationId: asId(message.correlation_id),
    userId: asText(message.user_id),
    contentType: asText(message.content_type),
    contentEncoding: asText(message.content_encoding),
    expiresAt: asTime(message.absolute_expiry_time),
    creationTime,
    component: asText(stamped('dt-subject')),
    enqueuedAt: asTime(stamped('x-opt-enqueued-time')) ?? 0,
    partition,
    offset,
    sequenceNumber,
    // Made when it is asked for: few do, and it would be a tenth of the work.
    get annotations() {
      return texts(message.message_annotations);
    },
    properties,
    body: bodyOf(message),
  };
}

const creationTimeName = 'iothub-creation-time-utc';

/** Own members only: a map with the key `__proto__` comes out of rhea with another prototype. */
function own(map: unknown, name: string): unknown {
  if (typeof map !== 'object' || map === null || !Object.hasOwn(map, name)) return undefined;
  return (map as Record<string, unknown>)[name];
}

function texts(map: unknown): Properties {
  if (typeof map !== 'object' || map === null) return {};
  const pairs: [string, string][] = [];
  for (const [name, value] of Object.entries(map)) {
    const text = asText(value);
    if (text !== undefined) pairs.push([name, text]);
  }
  return Object.fromEntries(pairs);
}
