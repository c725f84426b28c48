import type { RecordEntry } from '../../emulator/record.js';
import { visible } from '../../visible.js';
import { jsonOnOneLine } from '../json-text.js';
import { bodyForPeople, bodyMember } from '../output-message.js';

/** An event as one line for people: time, what, who, and what matters of it. */
export function eventText(entry: RecordEntry): string {
  const time = new Date(entry.at).toISOString().slice(11, 23);
  return visible([time, entry.event.padEnd(12), ...words(entry)].join('  '));
}

/** An event as one line of JSON; a body stands under `body`, `bodyText` or `bodyBase64`, by what it is. */
export function eventJson(entry: RecordEntry): string {
  const { at, ...facts } = entry;
  const shown = { time: new Date(at).toISOString(), ...facts, body: undefined };
  const head = JSON.stringify(shown, (_name, value: unknown) => (isBytes(value) ? base64(value) : value));
  if (!('body' in entry)) return jsonOnOneLine(head);
  const [key, body] = bodyMember(entry, false);
  return jsonOnOneLine(`${head.slice(0, -1)},"${key}":${body}}`);
}

interface Bytes {
  type: 'Buffer';
  data: number[];
}

/** What a Buffer has become when JSON.stringify shows it. */
function isBytes(value: unknown): value is Bytes {
  return typeof value === 'object' && value !== null && 'type' in value && value.type === 'Buffer';
}

function base64({ data }: Bytes): string {
  return Buffer.from(data).toString('base64');
}

function words(entry: RecordEntry): string[] {
  switch (entry.event) {
    case 'connected':
      return [connection(entry.connection), `over ${entry.transport}`];
    case 'disconnected':
      return [connection(entry.connection)];
    case 'token':
      return [connection(entry.connection), entry.audience, String(entry.status), entry.reason ?? ''];
    case 'attached':
      return [connection(entry.connection), link(entry), entry.address];
    case 'refused':
      return [connection(entry.connection), link(entry), entry.address, entry.condition];
    case 'detached':
      return [connection(entry.connection), link(entry), `by the ${entry.by}`, entry.condition ?? ''];
    case 'telemetry':
    case 'command':
      return [who(entry), entry.messageId ?? '-', preview(entry.body), outcome(entry.outcome)];
    case 'delivery':
      return [who(entry), entry.messageId ?? '-', preview(entry.body), `delivery ${entry.deliveryCount + 1}`];
    case 'outcome':
      return [who(entry), entry.messageId ?? '-', outcome(entry.outcome), entry.lockLost ? 'lock lost' : ''];
    case 'dead-letter':
      return [who(entry), entry.messageId ?? '-', entry.reason];
    case 'feedback':
      return entry.records.map(({ originalMessageId, statusCode }) => `${originalMessageId} ${statusCode}`);
    case 'file':
      return [who(entry), entry.blobName, `${entry.bytes} bytes`, entry.succeeded ? '' : 'failed'];
    case 'method':
      return [who(entry), entry.name, String(entry.status ?? '-')];
    case 'twin':
      return [who(entry), entry.operation, String(entry.status)];
    case 'registry':
      return [who(entry), entry.change];
    case 'fault':
      return [entry.fault];
    case 'trouble':
      return [entry.text];
  }
}

function who({ deviceId, moduleId }: { deviceId?: string; moduleId?: string | undefined }): string {
  return moduleId === undefined ? (deviceId ?? '-') : `${deviceId ?? '-'}/${moduleId}`;
}

function connection(number: number): string {
  return `#${number}`;
}

function link({ link: kind, direction }: { link: string; direction: string }): string {
  return `${kind} ${direction}`;
}

function outcome(value: { outcome: string; condition?: string | undefined }): string {
  return value.condition === undefined ? value.outcome : `${value.outcome} ${value.condition}`;
}

function preview(body: Buffer): string {
  const most = 100;
  const text = bodyForPeople(body);
  return text.length > most ? `${text.slice(0, most)}… (${body.length} bytes)` : text;
}
