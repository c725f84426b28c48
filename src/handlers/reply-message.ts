import { isUtf8 } from 'node:buffer';

import type { CommandOutcome, CommandReply, MessageFields, TelemetryMessage } from '../model.js';
import type { HandlerTelemetry } from './contract.js';
import { parseJson } from './json.js';

/**
 * What goes back about a command, as telemetry: its correlation id is the command's message id, the body what the
 * handler replied, and these properties say what became of it.
 */
export const replyProperties = {
  /** `accept` or `reject`. */
  outcome: 'iothub-command-outcome',
  /** Why it was rejected: the hub may not pass that on. */
  reason: 'iothub-command-reason',
  /** Only when the body is cut: how many bytes all of it had. */
  wholeBytes: 'iothub-command-reply-bytes',
} as const;

export function replyMessage(
  messageId: string,
  command: Pick<MessageFields, 'messageId'>,
  outcome: CommandOutcome,
  { body, wholeBytes }: CommandReply,
): TelemetryMessage {
  const reason = outcome.outcome === 'accept' ? undefined : outcome.reason;
  const properties: Record<string, string> = { [replyProperties.outcome]: outcome.outcome };
  if (reason !== undefined) properties[replyProperties.reason] = reason;
  if (wholeBytes !== undefined) properties[replyProperties.wholeBytes] = String(wholeBytes);
  return { messageId, correlationId: command.messageId, ...contentOf(body), properties, body };
}

/** What a module sends. */
export function telemetryOf(messageId: string, sent: HandlerTelemetry): TelemetryMessage {
  const { body: given, correlationId, properties = {} } = sent;
  const body =
    given instanceof Uint8Array
      ? Buffer.from(given)
      : Buffer.from(typeof given === 'string' ? given : JSON.stringify(given ?? null));
  const content = { ...contentOf(body), ...(sent.contentType && { contentType: sent.contentType }) };
  return { messageId: sent.messageId ?? messageId, correlationId, ...content, properties, body };
}

/** The hub routes on a body only when it is told that it is JSON, and in which encoding. */
function contentOf(body: Buffer): Pick<MessageFields, 'contentType' | 'contentEncoding'> {
  if (body.length === 0) return {};
  if (!isUtf8(body)) return { contentType: 'application/octet-stream' };
  const contentType = parseJson(body).ok ? 'application/json' : 'text/plain';
  return { contentType, contentEncoding: 'utf-8' };
}
