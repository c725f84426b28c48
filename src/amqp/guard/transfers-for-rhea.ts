import type { Frame } from './frame.js';
import { isMessage, unreadableMark, type MessageCheck } from './message.js';
import { fieldOf } from './performatives.js';
import { partialDelivery, type ReceivingLink } from './received-deliveries.js';
import { Violation } from './values.js';

/** What rhea gets of the messages that do not go beside it: only those that it can decode. */
export class TransfersForRhea {
  readonly #check: MessageCheck;

  constructor(check: MessageCheck) {
    this.#check = check;
  }

  /** What rhea is to get in place of this transfer; undefined when it can have it as it is. */
  instead(link: ReceivingLink, frame: Frame): Buffer | undefined {
    const { more } = fieldOf.transfer;
    if (link.partial === undefined && !frame.flag(more)) return this.#ofWhole(frame);
    return this.#ofPart(link, frame);
  }

  /** A delivery in one transfer, as nearly all are. */
  #ofWhole(frame: Frame): Buffer | undefined {
    if (!isMessage(frame)) return undefined; // rhea does not decode other formats
    const fault = this.#faultOf(frame, frame.bytes, frame.payloadAt, frame.end);
    return fault === undefined ? undefined : frame.withPayload(unreadableMark(fault));
  }

  /**
   * A transfer of a delivery in several. Only the whole message can be checked, so rhea gets all the transfers, but
   * the payload with the last one; except for the first byte, because rhea fails over an empty first transfer. That
   * byte is the same in every message: zero, which starts a described value.
   */
  #ofPart(link: ReceivingLink, frame: Frame): Buffer {
    const isFirst = link.partial === undefined;
    const { held } = (link.partial ??= partialDelivery(frame, this.#check.maxMessageBytes));
    if (isFirst && !isMessage(frame))
      throw new Violation('it starts a delivery in several transfers that is no AMQP message');
    held.append(frame.bytes, frame.payloadAt, frame.end);
    if (isFirst) return frame.withPayload(firstByte);
    if (frame.flag(fieldOf.transfer.more)) return frame.withPayload(nothing);
    link.partial = undefined;
    const fault = this.#faultOf(frame, held.bytes, 0, held.size);
    const payload = fault === undefined ? held.bytes : unreadableMark(fault);
    return frame.withPayload(payload.subarray(firstByte.length));
  }

  #faultOf(lastTransfer: Frame, bytes: Buffer, start: number, end: number): string | undefined {
    return this.#check.faultOf(lastTransfer, end - start) ?? this.#check.faultIn(bytes, start, end);
  }
}

const firstByte = Buffer.from([0]);
const nothing = Buffer.alloc(0);
