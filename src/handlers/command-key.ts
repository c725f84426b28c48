import { hash } from 'node:crypto';

import type { Command } from '../model.js';

/**
 * What makes two deliveries the same command: the hub's sequence number and time of enqueuing, the message id, and a
 * digest of the body. The message id alone will not do: it is the sender's to choose and may repeat.
 *
 * Undefined when there is neither a sequence number nor a message id: then nothing tells a second delivery from a
 * second command.
 */
export function commandKey(command: Command): string | undefined {
  const { deviceId, moduleId, sequenceNumber, messageId, enqueuedAt, body } = command;
  if (sequenceNumber === undefined && messageId === undefined) return undefined;
  const facts = [deviceId, moduleId ?? null, sequenceNumber ?? null, enqueuedAt ?? null, messageId ?? null];
  return hash('sha256', Buffer.concat([Buffer.from(`${JSON.stringify(facts)}\0`), body]), 'base64url');
}
