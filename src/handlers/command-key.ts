import { hash } from 'node:crypto';

import { hubLimits, type Command } from '../model.js';

/** What is hashed is put together here: a buffer for each command takes longer than its digest. */
const scratch = Buffer.allocUnsafeSlow(hubLimits.commandBytes + 4096);

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
  const facts = JSON.stringify([
    deviceId,
    moduleId ?? null,
    sequenceNumber ?? null,
    enqueuedAt ?? null,
    messageId ?? null,
  ]);
  const mostBytes = 3 * facts.length + 1 + body.length;
  const whole = mostBytes > scratch.length ? Buffer.allocUnsafe(mostBytes) : scratch;
  const start = whole.write(`${facts}\0`);
  whole.set(body, start);
  return hash('sha256', whole.subarray(0, start + body.length), 'base64url');
}
