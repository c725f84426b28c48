import { hash } from 'node:crypto';

import { hubLimits, type Command } from '../model.js';

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
  const [start, rest] = [startOf(deviceId, moduleId), `,${json(messageId)}]\0`];
  const into = bufferOf(3 * (start.length + rest.length) + longestNumbers + body.length);
  let end = into.write(start);
  end = writeNumber(into, end, sequenceNumber);
  into[end++] = comma;
  end = writeNumber(into, end, enqueuedAt);
  end += into.write(rest, end);
  into.set(body, end);
  return hash('sha256', into.subarray(0, end + body.length), 'base64url');
}

/*
 * What is hashed is `["device","module",sequenceNumber,enqueuedAt,"messageId"]` as JSON, a zero byte, and the body. It
 * is put together in one buffer, and large numbers digit by digit, which V8 does three times as slowly: this is a good
 * part of what a command takes.
 */

const scratch = Buffer.allocUnsafeSlow(hubLimits.commandBytes + 4096);
const comma = 0x2c;
const zero = 0x30;
/** Two of 17 digits, a sign, a point and an exponent each, and what is between them. */
const longestNumbers = 64;

function bufferOf(bytes: number): Buffer {
  return bytes > scratch.length ? Buffer.allocUnsafe(bytes) : scratch;
}

let last: { deviceId: string; moduleId: string | undefined; start: string } | undefined;

/** It is the same for all commands of an agent. */
function startOf(deviceId: string, moduleId: string | undefined): string {
  if (last?.deviceId !== deviceId || last.moduleId !== moduleId) {
    last = { deviceId, moduleId, start: `[${json(deviceId)},${json(moduleId)},` };
  }
  return last.start;
}

function json(value: string | number | undefined): string {
  return JSON.stringify(value ?? null);
}

/** Returns where it ends. */
function writeNumber(into: Buffer, at: number, value: number | undefined): number {
  if (value === undefined || !Number.isSafeInteger(value) || value < 0) {
    return at + into.write(json(value), at);
  }
  let end = at + 1;
  for (let left = value; left >= 10; left = Math.floor(left / 10)) end++;
  for (let left = value, digit = end - 1; digit >= at; digit--) {
    const tens = Math.floor(left / 10);
    into[digit] = zero + (left - 10 * tens);
    left = tens;
  }
  return end;
}
