import type { Frame } from './frame.js';
import { fieldOf } from './performatives.js';
import { Violation, describedCode, typeOf, type Walker } from './values.js';

/**
 * What becomes of a message that rhea must not decode. Its sender is not the peer but anyone who may write to the
 * hub, and the hub delivers it again after every reconnect: so the connection stays, and the message arrives as an empty one that
 * says why, to be rejected by its delivery like any other.
 */
const annotation = 'iothub-device:unreadable';

/** Why a message that rhea delivered is only the mark of one that could not be read; undefined for all others. */
export function unreadableReason(message: { delivery_annotations?: unknown }): string | undefined {
  const annotations = message.delivery_annotations;
  if (typeof annotations !== 'object' || annotations === null) return undefined;
  const reason = (annotations as Record<string, unknown>)[annotation];
  return typeof reason === 'string' ? reason : undefined;
}

/** The encoded message that stands for an unreadable one. */
export function unreadableMark(reason: string): Buffer {
  const key = Buffer.from(annotation);
  const text = Buffer.from(reason).subarray(0, 255);
  const pair = Buffer.concat([Buffer.from([0xa3, key.length]), key, Buffer.from([0xa1, text.length]), text]);
  const sizeAndCount = Buffer.alloc(8);
  sizeAndCount.writeUInt32BE(4 + pair.length, 0);
  sizeAndCount.writeUInt32BE(2, 4);
  const annotations = Buffer.concat([Buffer.from([0x00, 0x53, 0x71, 0xd1]), sizeAndCount, pair]);
  const noData = Buffer.from([0x00, 0x53, 0x75, 0xa0, 0x00]);
  return Buffer.concat([annotations, noData]);
}

/** Whether what a transfer carries is, or starts, a message of the format that everyone knows. */
export function isMessage(frame: Frame): boolean {
  const { messageFormat } = fieldOf.transfer;
  return frame.has(messageFormat) && frame.uint(messageFormat) === 0;
}

/** Finds what must not be decoded. */
export class MessageCheck {
  readonly #walker: Walker;
  readonly maxMessageBytes: number;

  constructor(walker: Walker, maxMessageBytes: number) {
    this.#walker = walker;
    this.maxMessageBytes = maxMessageBytes;
  }

  /** Why a message of this size, which `lastTransfer` has completed, is not to be looked at; undefined when it is. */
  faultOf(lastTransfer: Frame, size: number): string | undefined {
    if (lastTransfer.flag(fieldOf.transfer.aborted)) return 'its sender gave it up';
    return size > this.maxMessageBytes ? `it is larger than ${this.maxMessageBytes} bytes` : undefined;
  }

  /** Why what is in `bytes` is no message to decode, in words; undefined when it is one. AMQP 1.0 part 3, section 3.2. */
  faultIn(bytes: Buffer, start: number, end: number): string | undefined {
    if (start === end) return 'it is empty';
    this.#walker.over(bytes, end - start);
    try {
      for (let at = start; at < end;) at = sectionEnd(this.#walker, bytes, at, end);
      return undefined;
    } catch (error) {
      if (error instanceof Violation) return error.message;
      throw error;
    }
  }
}

function sectionEnd(walker: Walker, bytes: Buffer, at: number, end: number): number {
  if (bytes[at] !== describedCode) throw new Violation('it holds something that is no section');
  const valueAt = walker.descriptor(at + 1, end);
  const section = sections[walker.named(at)];
  if (section === undefined) throw new Violation('it has a section of an unknown kind');
  const next = walker.value(valueAt, end);
  const code = bytes.readUInt8(valueAt);
  if (section.holds === 'anything') return next;
  if (code === describedCode || typeOf(code).kind !== section.holds)
    throw new Violation(`its ${section.name} are no ${section.holds}`);
  return next;
}

/** By descriptor. rhea takes these types for granted. */
const sections: Record<number, { name: string; holds: 'list' | 'map' | 'binary' | 'anything' }> = {
  0x70: { name: 'header fields', holds: 'list' },
  0x71: { name: 'delivery annotations', holds: 'map' },
  0x72: { name: 'message annotations', holds: 'map' },
  0x73: { name: 'properties', holds: 'list' },
  0x74: { name: 'application properties', holds: 'map' },
  0x75: { name: 'data', holds: 'binary' },
  0x76: { name: 'sequence elements', holds: 'list' },
  0x77: { name: 'value', holds: 'anything' },
  0x78: { name: 'footers', holds: 'map' },
};

/** The payload of a delivery whose transfers are still coming. */
export class HeldMessage {
  readonly #maxBytes: number;
  #room = Buffer.alloc(0);
  /** How large the message is so far. */
  size = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  append(bytes: Buffer, from: number, to: number): void {
    const at = this.size;
    this.size += to - from;
    if (this.size > this.#maxBytes) {
      this.#room = Buffer.alloc(0);
      return;
    }
    if (this.size > this.#room.length) {
      const larger = Buffer.allocUnsafe(Math.min(Math.max(this.size, 2 * this.#room.length), this.#maxBytes));
      this.#room.copy(larger, 0, 0, at);
      this.#room = larger;
    }
    bytes.copy(this.#room, at, from, to);
  }

  /** All of it; nothing once it is larger than allowed. */
  get bytes(): Buffer {
    return this.#room.subarray(0, this.size);
  }
}
