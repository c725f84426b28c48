import type { RecordEntry } from '../../emulator/record.js';
import { visible } from '../../visible.js';

/** An event as one line for people: time, what, who, and what matters of it. */
export function eventText(entry: RecordEntry): string {
  const time = new Date(entry.at).toISOString().slice(11, 23);
  return visible([time, entry.event.padEnd(12), ...words(entry)].join('  '));
}

/** An event as one line of JSON; a body stands under `body`, `bodyText` or `bodyBase64`, by what it is. */
export function eventJson(entry: RecordEntry): string {
  const { at, ...facts } = entry;
  const shown: Record<string, unknown> = { time: new Date(at).toISOString() };
  for (const [name, value] of Object.entries(facts)) {
    if (name === 'body' && Buffer.isBuffer(value)) {
      Object.assign(shown, bodyField(value, 'contentType' in facts ? facts.contentType : undefined));
    } else shown[name] = Buffer.isBuffer(value) ? value.toString('base64') : value;
  }
  return JSON.stringify(shown);
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
  const text = body.subarray(0, most).toString('utf8');
  return body.length > most ? `${text}… (${body.length} bytes)` : text;
}

function bodyField(body: Buffer, contentType: string | undefined): object {
  const text = utf8(body);
  if (text === undefined) return { bodyBase64: body.toString('base64') };
  if (contentType?.toLowerCase().startsWith('application/json') === true) {
    try {
      return { body: JSON.parse(text) as unknown };
    } catch {
      // It says JSON and is not; text, then.
    }
  }
  return { bodyText: text };
}

function utf8(bytes: Buffer): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
