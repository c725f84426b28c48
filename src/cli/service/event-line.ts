import type { HubEvent } from '../../amqp/event-message.js';
import { visible } from '../../visible.js';
import { columns, type Printable } from '../output.js';
import { bodyForPeople, messageLine } from '../output-message.js';

/** Which of an event's properties to show: those of the message itself, those of the application, what was stamped on it. */
export const propertyKinds = ['sys', 'app', 'ann'] as const;
export type PropertyKind = (typeof propertyKinds)[number];

/** One line for an event. The JSON can be sent again: what the hub added stands under `hub`. */
export function eventLine(event: HubEvent, shown: ReadonlySet<PropertyKind>): Printable {
  const {
    deviceId,
    moduleId,
    source,
    enqueuedAt,
    partition,
    offset,
    sequenceNumber,
    annotations,
    ...message
  } = event;
  return {
    json: () => {
      const { contentType, contentEncoding, body } = message;
      const facts = { deviceId, moduleId, source, enqueuedAt, partition, offset, sequenceNumber };
      return messageLine({
        // What the body is goes with the body: without it the line could not be sent again.
        ...(shown.has('sys') ? message : { contentType, contentEncoding, body }),
        properties: shown.has('app') ? message.properties : {},
        hub: shown.has('ann') ? { ...facts, annotations } : facts,
      }).json();
    },
    text: ({ columns: limit, time }) => {
      const from = [deviceId ?? '-', ...(moduleId === undefined ? [] : [moduleId])].join('/');
      const kind = source === undefined || source === 'Telemetry' ? '' : `[${source}]`;
      const pairs = [
        kind,
        ...(shown.has('sys') ? pairsOf(systemProperties(event)) : []),
        ...(shown.has('app') ? pairsOf(message.properties) : []),
        ...(shown.has('ann') ? pairsOf(annotations) : []),
      ].filter((pair) => pair !== '');
      const cells = [time(enqueuedAt), from, pairs.join(' ') || '-'].map(visible);
      return columns([...cells, bodyForPeople(message.body)], [23, 12, 12], limit);
    },
  };
}

function systemProperties({ messageId, correlationId, contentType, contentEncoding, component }: HubEvent) {
  return { messageId, correlationId, contentType, contentEncoding, component };
}

function pairsOf(fields: Record<string, string | undefined>): string[] {
  return Object.entries(fields).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`]));
}
