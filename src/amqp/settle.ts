import type { CommandOutcome } from '../model.js';
import { ValueWriter } from './value-writer.js';

/** The outcomes of AMQP 1.0 messaging, 3.4; `modified` is for a command that this receiver should not see again. */
export type SettledAs =
  CommandOutcome | { outcome: 'modified'; deliveryFailed: boolean; undeliverableHere: boolean };

/** The delivery state that stands for an outcome, encoded. */
export function stateOf(settledAs: SettledAs): Buffer {
  switch (settledAs.outcome) {
    case 'accept':
      return accepted;
    case 'release':
      return released;
    case 'reject':
      return settledAs.reason === undefined ? rejected : rejectedBecause(settledAs.reason);
    case 'modified':
      return modified(settledAs.deliveryFailed, settledAs.undeliverableHere);
  }
}

const emptyList = 0x45;
const accepted = Buffer.from([0x00, 0x53, 0x24, emptyList]);
const rejected = Buffer.from([0x00, 0x53, 0x25, emptyList]);
const released = Buffer.from([0x00, 0x53, 0x26, emptyList]);

function rejectedBecause(description: string): Buffer {
  const writer = new ValueWriter();
  writer.describe(0x25);
  const outcome = writer.begin('list');
  writer.describe(0x1d);
  const error = writer.begin('list');
  writer.symbol('amqp:precondition-failed');
  writer.string(description);
  writer.end(error, 2);
  writer.end(outcome, 1);
  return writer.followedBy(nothing);
}

function modified(deliveryFailed: boolean, undeliverableHere: boolean): Buffer {
  // A list of two, in three bytes.
  return Buffer.from([0x00, 0x53, 0x27, 0xc0, 3, 2, boolean(deliveryFailed), boolean(undeliverableHere)]);
}

function boolean(value: boolean): number {
  return value ? 0x41 : 0x42;
}

const nothing = Buffer.alloc(0);
