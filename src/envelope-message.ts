import { isUtf8 } from 'node:buffer';

import { AgentError } from './errors.js';
import type { Envelope } from './message-envelope.js';
import type { Properties, TelemetryMessage } from './model.js';

/** What holds for messages that do not say otherwise. */
export interface MessageDefaults {
  correlationId?: string | undefined;
  userId?: string | undefined;
  /** Absent: as the form of the body says. */
  contentType?: string | undefined;
  /** Absent: `utf-8` for text that is. */
  contentEncoding?: string | undefined;
  expiresAfterMs?: number | undefined;
  properties?: Properties | undefined;
  creationTime?: string | undefined;
  component?: string | undefined;
  outputName?: string | undefined;
}

/**
 * The message that an envelope describes, with the fields of telemetry; that of a command has none of those. What the
 * envelope says wins.
 */
export function messageOf(
  envelope: Envelope,
  defaults: MessageDefaults,
  nextId: () => string,
): TelemetryMessage {
  const contentType = given(envelope.contentType, () => defaults.contentType ?? typeOf[envelope.form]);
  const { expiresAfterMs } = defaults;
  const expiresAt =
    envelope.expiresAt ?? (expiresAfterMs === undefined ? undefined : Date.now() + expiresAfterMs);
  return {
    messageId: envelope.messageId ?? nextId(),
    correlationId: envelope.correlationId ?? defaults.correlationId,
    userId: envelope.userId ?? defaults.userId,
    contentType,
    contentEncoding: given(
      envelope.contentEncoding,
      () => defaults.contentEncoding ?? encodingOf(contentType, envelope.body),
    ),
    expiresAt,
    properties: propertiesOf(envelope, defaults),
    body: envelope.body,
    creationTime: envelope.creationTime ?? defaults.creationTime,
    component: envelope.component ?? defaults.component,
    outputName: envelope.outputName ?? defaults.outputName,
  };
}

/** A spread copies a name such as `__proto__` like any other; and it takes a microsecond, so that most do without. */
function propertiesOf({ properties: own }: Envelope, { properties: common }: MessageDefaults): Properties {
  return common === undefined ? (own ?? {}) : { ...common, ...own };
}

/** null says that there is to be none. */
function given(value: string | null | undefined, otherwise: () => string | undefined): string | undefined {
  return value === undefined ? otherwise() : (value ?? undefined);
}

const typeOf: Record<Envelope['form'], string> = {
  json: 'application/json',
  text: 'text/plain',
  bytes: 'application/octet-stream',
};

/** The hub looks into a body only when both type and encoding say that it can. */
function encodingOf(contentType: string | undefined, body: Buffer): string | undefined {
  return contentType !== undefined && /^text\/|[/+]json\b/i.test(contentType) && isUtf8(body)
    ? 'utf-8'
    : undefined;
}

/** Bytes of the longest line for a message: text in JSON may be six times as long as it is (`\u0000`), and there are names around it. */
export function longestEnvelope(limitBytes: number): number {
  return 6 * limitBytes + 16 * 1024;
}

export function checkSize(bytes: number, limitBytes: number): void {
  if (bytes > limitBytes) throw tooLarge(limitBytes);
}

export function tooLarge(limitBytes: number): AgentError {
  return new AgentError(
    'data',
    `the message is larger than the ${String(limitBytes / 1024)} KiB that the hub takes`,
    {
      hint: 'the body counts, and so do the properties with their names',
    },
  );
}
