import type { Stamp } from './age.js';
import { kinds } from './kinds.js';
import type { PutOperation, Ref } from './log/record.js';
import { decodeMessage, putMessage, type SpooledMessage } from './spooled-message.js';

/**
 * A message that the hub refused for good, with what it said. In the log: the length of the JSON below (2 bytes,
 * little-endian), the JSON, and the message as `spooled-message.ts` lays it out.
 */
export interface DeadLetter {
  readonly ref: Ref;
  /** AMQP condition that the hub gave, if it did. */
  readonly condition: string | undefined;
  readonly description: string | undefined;
  readonly setAsideAt: Stamp;
  readonly message: SpooledMessage;
}

export interface Refusal {
  readonly condition?: string | undefined;
  readonly description?: string | undefined;
}

/** Hubs explain themselves in a line or two. */
const longestDescription = 1000;

export function putDeadLetter(message: SpooledMessage, refusal: Refusal, setAsideAt: Stamp): PutOperation {
  const { condition, description } = refusal;
  const facts = {
    condition: condition?.slice(0, longestDescription),
    description: description?.slice(0, longestDescription),
    setAsideAt,
  };
  const json = Buffer.from(JSON.stringify(facts));
  const length = Buffer.alloc(2);
  length.writeUInt16LE(json.length);
  const original = putMessage(message, message.storedAt).put.value;
  return { put: { kind: kinds.deadLetter, value: [length, json, ...original] } };
}

export function decodeDeadLetter(ref: Ref, value: Buffer): DeadLetter {
  const end = 2 + value.readUInt16LE(0);
  const facts = JSON.parse(value.toString('utf8', 2, end)) as Omit<DeadLetter, 'ref' | 'message'>;
  return {
    ref,
    condition: facts.condition,
    description: facts.description,
    setAsideAt: facts.setAsideAt,
    message: decodeMessage(ref, value.subarray(end)),
  };
}
