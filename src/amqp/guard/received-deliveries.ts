import type { Frame } from './frame.js';
import type { FrameWriter } from './frame-writer.js';
import { HeldMessage, isMessage, type MessageCheck } from './message.js';
import { fieldOf } from './performatives.js';
import type { SentDeliveries } from './sent-deliveries.js';

/** A link that the peer sends on, as the frames of both sides tell. */
export interface ReceivingLink {
  readonly handle: number;
  /** Deliveries that the peer may still send. */
  credit: number;
  /** The peer's count of its deliveries, of 32 bits. */
  count: number;
  /** Takes them beside rhea. Absent: they are rhea's. */
  onDelivery?: ((delivery: ReceivedDelivery) => void) | undefined;
  /** A delivery of which more transfers have to come. */
  partial?: PartialDelivery | undefined;
}

/** What the transfers of a delivery have said so far, nearly all of it the first, and their payload. */
export interface PartialDelivery {
  readonly id: number;
  readonly tag: Buffer;
  isSettled: boolean;
  readonly isMessage: boolean;
  readonly held: HeldMessage;
}

export function partialDelivery(frame: Frame, maxMessageBytes: number): PartialDelivery {
  const head = headOf(frame);
  // The tag outlives the frame.
  return { ...head, tag: Buffer.from(head.tag), held: new HeldMessage(maxMessageBytes) };
}

/** A delivery that has arrived whole. Nothing has looked at its payload. */
export interface ReceivedDelivery {
  readonly id: number;
  readonly tag: Buffer;
  /** The payload is from `start` to `end`; the bytes stay as they are. */
  readonly bytes: Buffer;
  readonly start: number;
  readonly end: number;
  /** Its sender wants no outcome. */
  readonly isSettled: boolean;
  /** Why the payload is no message, or not all of it. */
  readonly fault: string | undefined;
}

/**
 * The deliveries that we receive on one session beside rhea, for the reasons that `SentDeliveries` has, and one more:
 * rhea gives two neighbours that are settled in one turn the outcome of the first. Credit and outcomes are written here;
 * to rhea nothing ever arrived on such a link. What it says of the peer's count in a flow, the guard's `Session` puts
 * right.
 *
 * AMQP 1.0 part 2 (transport), sections 2.5.6 (session flow control), 2.6.7 (link flow control), 2.7.6 (disposition).
 */
export class ReceivedDeliveries {
  readonly #out: FrameWriter;
  readonly #sent: SentDeliveries;
  readonly #check: MessageCheck;
  /** The number of the peer's next transfer, and the first that we have not said we have room for. */
  #nextTransferId = 0;
  #windowEnd = windowFrames;
  #isInUse = false;
  #isOver = false;
  /** Neighbours that have the same outcome and have not been told of yet: one frame says it of all. */
  #settled: { first: number; last: number; state: Buffer } | undefined;

  constructor(out: FrameWriter, sent: SentDeliveries, check: MessageCheck) {
    this.#out = out;
    this.#sent = sent;
    this.#check = check;
  }

  /** Whether a link of the session goes beside rhea: then all that the peer sends on do. */
  get isInUse(): boolean {
    return this.#isInUse;
  }

  /** What rhea may have another number for. */
  get nextTransferId(): number {
    return this.#nextTransferId;
  }

  /** The peer said, in its begin or a flow, what number its next transfer has. */
  nextIs(transferId: number): void {
    this.#nextTransferId = transferId;
  }

  /** We said that we have room for this many transfers. */
  windowMoved(frames: number): void {
    this.#windowEnd = this.#nextTransferId + frames;
  }

  /** A transfer has arrived. */
  arrived(): void {
    this.#nextTransferId = (this.#nextTransferId + 1) >>> 0;
    if (!this.#isInUse || ((this.#windowEnd - this.#nextTransferId) | 0) >= windowFrames / 2) return;
    if (!this.#isOver) this.#flow();
  }

  /** A transfer on a link that goes beside rhea: its delivery is handed on when it is whole. */
  take(link: ReceivingLink, frame: Frame): void {
    const hasMore = frame.flag(fieldOf.transfer.more);
    if (link.partial === undefined && !hasMore) {
      const { id, tag, isSettled, isMessage } = headOf(frame);
      const { bytes, payloadAt: start, end } = frame;
      const fault = isMessage ? this.#check.faultOf(frame, end - start) : foreignFormat;
      link.onDelivery?.({ id, tag, isSettled, bytes, start, end, fault });
      return;
    }
    const partial = (link.partial ??= partialDelivery(frame, this.#check.maxMessageBytes));
    partial.isSettled ||= isSettledBy(frame);
    partial.held.append(frame.bytes, frame.payloadAt, frame.end);
    if (hasMore) return;
    link.partial = undefined;
    const { id, tag, isSettled, isMessage, held } = partial;
    const { bytes, size } = held;
    const fault = isMessage ? this.#check.faultOf(frame, size) : foreignFormat;
    link.onDelivery?.({ id, tag, isSettled, bytes, start: 0, end: size, fault });
  }

  /** From now on what arrives on this link goes to `onDelivery`, as soon as the peer is granted credit. */
  receive(link: ReceivingLink, onDelivery: (delivery: ReceivedDelivery) => void): void {
    this.#isInUse = true;
    link.onDelivery = onDelivery;
  }

  /**
   * The peer said in a flow what it has counted to. Returns whether it has passed over some that it never sent, and with
   * them credit: who granted it does not know, and grants no other.
   */
  countedTo(link: ReceivingLink, count: number): boolean {
    // Of a delivery that is on its way some peers count the beginning, and we the end.
    const begun = link.partial === undefined ? 0 : 1;
    const passed = (count - link.count - begun) | 0;
    if (passed <= 0) return false;
    link.count = (link.count + passed) >>> 0;
    return true;
  }

  /** Lets the peer send so many deliveries more, and tells it of all that it may. */
  grant(link: ReceivingLink, credit: number): void {
    if (this.#isOver) return;
    link.credit += credit;
    this.#flow(link);
  }

  /**
   * Tells the peer the outcome of a delivery (`state`, encoded), at the end of this turn of the event loop at the latest,
   * so that neighbours share a frame. `false` when it is too late for that.
   */
  settle(id: number, state: Buffer): boolean {
    if (this.#isOver) return false;
    const open = this.#settled;
    if (
      open !== undefined &&
      id === (open.last + 1) >>> 0 &&
      (state === open.state || state.equals(open.state))
    ) {
      open.last = id;
      return true;
    }
    if (open === undefined) process.nextTick(this.#flush);
    else this.#flush();
    this.#settled = { first: id, last: id, state };
    return true;
  }

  /** What is settled is told, as far as we may still speak. */
  readonly #flush = (): void => {
    if (this.#settled === undefined) return;
    const { first, last, state } = this.#settled;
    this.#settled = undefined;
    if (!this.#isOver) this.#disposition(first, last, state);
  };

  flush(): void {
    this.#flush();
  }

  /** Nothing is said of deliveries and credit any more: the session or a link of it is ending. */
  close(): void {
    this.#flush();
    this.#isOver = true;
  }

  /** What the session has room for, and what the link may send. */
  #flow(link?: ReceivingLink): void {
    this.windowMoved(windowFrames);
    const length = link === undefined ? sessionFlowBytes : linkFlowBytes;
    const start = this.#out.start(length);
    const { bytes } = this.#out;
    bytes.writeUInt32BE(0x0053_13c0, start + 8); // descriptor, and a list of fields of five bytes each
    bytes[start + 12] = length - 13;
    bytes[start + 13] = link === undefined ? 4 : 7;
    let at = this.#out.uint(start + 14, this.#nextTransferId);
    at = this.#out.uint(at, windowFrames);
    at = this.#out.uint(at, this.#sent.nextTransferId);
    at = this.#out.uint(at, windowFrames);
    if (link !== undefined) {
      at = this.#out.uint(at, link.handle);
      at = this.#out.uint(at, link.count);
      this.#out.uint(at, link.credit);
    }
    this.#out.end(start, length);
  }

  #disposition(first: number, last: number, state: Buffer): void {
    const length = dispositionBytes + state.length;
    const start = this.#out.start(length);
    const { bytes } = this.#out;
    bytes.writeUInt32BE(0x0053_15d0, start + 8); // descriptor, and a list of five fields
    bytes.writeUInt32BE(length - 16, start + 12);
    bytes.writeUInt32BE(5, start + 16);
    bytes[start + 20] = 0x41; // we are the receiver
    let at = this.#out.uint(start + 21, first);
    at = this.#out.uint(at, last);
    bytes[at] = 0x41; // settled
    state.copy(bytes, at + 1);
    this.#out.end(start, length);
  }
}

/** Frames that may be on their way to us; rhea says the same when it begins a session. */
const windowFrames = 2048;
const sessionFlowBytes = 14 + 4 * 5;
const linkFlowBytes = 14 + 7 * 5;
const dispositionBytes = 32;
const foreignFormat = 'it is in a format of its own';

function headOf(frame: Frame): Omit<PartialDelivery, 'held'> {
  const { deliveryId, deliveryTag } = fieldOf.transfer;
  return {
    id: frame.uint(deliveryId),
    tag: frame.binary(deliveryTag),
    isSettled: isSettledBy(frame),
    isMessage: isMessage(frame),
  };
}

/** One that is given up is settled by that; and any transfer of a delivery can say that it is. 2.7.5. */
function isSettledBy(frame: Frame): boolean {
  const { settled, aborted } = fieldOf.transfer;
  return frame.flag(settled) || frame.flag(aborted);
}
