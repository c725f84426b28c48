import { isUtf8 } from 'node:buffer';

import type { Command, MessageFields } from '../model.js';
import { visible } from '../visible.js';
import { jsonOnOneLine } from './json-text.js';
import { columns, type Printable } from './output.js';

/** A message that came from a hub, with what the hub added to it. */
export interface ReceivedMessage extends MessageFields {
  creationTime?: string | undefined;
  component?: string | undefined;
  outputName?: string | undefined;
  hub?: HubFacts | undefined;
}

/** Facts that a hub adds. They are printed apart, because they are not sent again. */
export interface HubFacts {
  deviceId?: string | undefined;
  moduleId?: string | undefined;
  /** Milliseconds since the epoch. */
  enqueuedAt?: number | undefined;
  sequenceNumber?: number | undefined;
  /** Where in an event hub it stands. */
  partition?: string | undefined;
  offset?: string | undefined;
  /** What wrote it there: `Telemetry`, or `twinChangeEvents` and others of the hub's own. */
  source?: string | undefined;
  /** All that was stamped on it. */
  annotations?: Record<string, string> | undefined;
  deliveryCount?: number | undefined;
  ack?: string | undefined;
  /** Why the hub refused it. */
  condition?: string | undefined;
  error?: string | undefined;
}

/** A command, as `receive` prints it. */
export function commandLine(command: Command): Printable {
  const { deviceId, moduleId, enqueuedAt, sequenceNumber, deliveryCount, ack, ...message } = command;
  return messageLine({
    ...message,
    hub: { deviceId, moduleId, enqueuedAt, sequenceNumber, deliveryCount, ack },
  });
}

/**
 * One line for a received message. The JSON has the keys that `send --ndjson` reads, so that what was received can be
 * sent again (`message-envelope`). The body is `body` when it is JSON and said to be, else `bodyText` when it is
 * UTF-8, else `bodyBase64`. `exact` is for what has to come back byte for byte, without anything added: JSON that
 * one line cannot show as it is becomes `bodyText`, and no content type is null.
 */
export function messageLine(message: ReceivedMessage, { exact = false } = {}): Printable {
  return {
    json: () => {
      const { hub } = message;
      const [bodyKey, bodyText] = bodyMember(message, exact);
      const none = exact ? null : undefined;
      const head = JSON.stringify({
        messageId: message.messageId,
        correlationId: message.correlationId,
        userId: message.userId,
        creationTime: message.creationTime,
        expiresAt: isoTime(message.expiresAt),
        component: message.component,
        outputName: message.outputName,
        contentType: message.contentType ?? none,
        contentEncoding: message.contentEncoding ?? none,
        properties: message.properties,
      });
      const facts = hub && JSON.stringify({ ...hub, enqueuedAt: isoTime(hub.enqueuedAt) });
      const tail = facts === undefined ? '' : `,"hub":${facts}`;
      // The body is put in as it was written: parsing and printing it would change its numbers.
      return jsonOnOneLine(`${head.slice(0, -1)},"${bodyKey}":${bodyText}${tail}}`);
    },
    text: ({ columns: limit, time }) => {
      const { hub = {}, messageId, properties } = message;
      const pairs = Object.entries(properties).map(([name, value]) => `${name}=${value}`);
      const cells = [
        hub.enqueuedAt === undefined ? '-' : time(hub.enqueuedAt),
        messageId ?? '-',
        pairs.join(' ') || '-',
      ];
      return columns([...cells.map(visible), bodyForPeople(message.body)], [23, 26, 12], limit);
    },
  };
}

type BodyKey = 'body' | 'bodyText' | 'bodyBase64';

/** How a body stands in JSON: its key, and its value as text, put in as it was written. */
export function bodyMember(
  { body, contentType }: Pick<MessageFields, 'body' | 'contentType'>,
  exact: boolean,
): [BodyKey, string] {
  if (!isUtf8(body)) return ['bodyBase64', JSON.stringify(body.toString('base64'))];
  const text = body.toString('utf8');
  const isShown = !exact || (jsonOnOneLine(text) === text && text.trim() === text);
  if (/[/+]json\b/i.test(contentType ?? '') && isShown && isJson(text)) return ['body', text];
  return ['bodyText', JSON.stringify(text)];
}

export function bodyForPeople(body: Buffer): string {
  return isUtf8(body) ? visible(body.toString('utf8')) : `(${String(body.length)} bytes, not text)`;
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function isoTime(ms: number | undefined): string | undefined {
  // A peer may name a time that no calendar has.
  return ms === undefined || !(Math.abs(ms) < 8.6e15) ? undefined : new Date(ms).toISOString();
}
