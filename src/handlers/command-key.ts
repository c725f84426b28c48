import { hash } from 'node:crypto';
import { crc32 } from 'node:zlib';

import type { Command } from '../model.js';

/**
 * What makes two deliveries the same command: the hub's sequence number and time of enqueuing, the message id, and a
 * digest of the body. The message id alone will not do: it is the sender's to choose and may repeat.
 *
 * The hub gives each command a sequence number of its own. That and the time stand for themselves; a checksum of the rest
 * tells the commands of a hub from those of another one that counts anew, and takes a fifth of the time of a digest.
 * Where there is no sequence number, all depends on what the sender chose, and it is a SHA-256.
 *
 * Undefined when there is neither a sequence number nor a message id: then nothing tells a second delivery from a
 * second command.
 */
export function commandKey(command: Command): string | undefined {
  const { deviceId, moduleId, sequenceNumber, messageId, enqueuedAt, body } = command;
  if (sequenceNumber !== undefined) {
    const checksum = crc32(body, crc32(messageId ?? '', checksumOf(deviceId, moduleId)));
    // As a number with a sign, it needs no object of its own.
    return `${sequenceNumber}.${enqueuedAt ?? ''}.${body.length}.${checksum | 0}`;
  }
  if (messageId === undefined) return undefined;
  const facts = JSON.stringify([deviceId, moduleId ?? null, enqueuedAt ?? null, messageId]);
  return hash('sha256', Buffer.concat([Buffer.from(`${facts}\0`), body]), 'base64url');
}

let last: { deviceId: string; moduleId: string | undefined; checksum: number } | undefined;

/** It is the same for all commands of an agent. */
function checksumOf(deviceId: string, moduleId: string | undefined): number {
  if (last?.deviceId !== deviceId || last.moduleId !== moduleId) {
    last = { deviceId, moduleId, checksum: crc32(JSON.stringify([deviceId, moduleId ?? null])) };
  }
  return last.checksum;
}
