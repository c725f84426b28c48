import { AgentError } from '../../errors.js';
import type { Frame } from './frame.js';
import { HeldMessage, faultOfMessage, unreadableMark } from './message.js';
import { fieldOf } from './performatives.js';
import { type SendingLink, type SentDeliveries, sumOf } from './sent-deliveries.js';
import { Violation, type Walker } from './values.js';

export interface SessionLimits {
  /** Deliveries of one session that can be unsettled at a time: as many may be settled by one frame. */
  maxOutstandingDeliveries: number;
  /** Bytes of one message, all its sections together. */
  maxMessageBytes: number;
}

/** What to do with a frame of the peer: hand it to rhea, keep it from rhea, or hand over these bytes in its place. */
export type Verdict = 'pass' | 'drop' | Buffer;

interface Link {
  name: string;
  /** Its own handle and what is sent on it, where we send. */
  sending: SendingLink | undefined;
  /** The peer sends on it. */
  receives: boolean;
  /** The peer answered our attach. */
  answered: boolean;
  /** Deliveries that the peer may still send. */
  credit: number;
  /** Where the peer starts to count deliveries. */
  initialCount: number;
  /** A delivery of which more transfers have to come. */
  delivery?: Delivery | undefined;
}

interface Delivery {
  /** As rhea knows it. */
  id: number;
  held: HeldMessage;
}

/**
 * One session: its links, credit and delivery numbers as the frames of both sides tell.
 *
 * rhea counts deliveries from where the peer starts and stops at 2^32, and counts those of a link from zero whatever
 * the peer says. For a peer that starts elsewhere the numbers are translated in both directions, so that to rhea they
 * start at zero.
 */
export class Session {
  readonly #limits: SessionLimits;
  readonly #walker: Walker;
  /** What we send beside rhea. */
  readonly deliveries: SentDeliveries;
  /** Links that we attached and the peer has not detached, by name; those it answered by its handle; all by ours. */
  readonly #byName = new Map<string, Link>();
  readonly #byHandle = new Map<number, Link>();
  readonly #byOwnHandle = new Map<number, Link>();
  /** The ids that our and the peer's next delivery will have; undefined before the first. */
  #nextSent: number | undefined;
  #nextReceived: number | undefined;
  /** What is taken off the peer's delivery ids for rhea. */
  #idOffset = 0;
  /** The peer answered our begin. */
  answered = false;

  constructor(limits: SessionLimits, walker: Walker, deliveries: SentDeliveries) {
    this.#limits = limits;
    this.#walker = walker;
    this.deliveries = deliveries;
  }

  /** We send this frame. Returns the frame that has to leave in its place, if any. */
  sent(frame: Frame): Buffer | undefined {
    switch (frame.performative) {
      case 'attach': {
        const { name, handle, role } = fieldOf.attach;
        const receives = frame.flag(role);
        const link = {
          name: frame.text(name),
          receives,
          sending: receives ? undefined : sendingLink(frame.uint(handle)),
          answered: false,
          credit: 0,
          initialCount: 0,
        };
        this.#byName.set(link.name, link);
        this.#byOwnHandle.set(frame.uint(handle), link);
        return undefined;
      }
      case 'flow':
        return this.#sentFlow(frame);
      case 'transfer': {
        const { deliveryId } = fieldOf.transfer;
        if (this.deliveries.isInUse)
          throw new AgentError('bug', 'rhea sends on a session whose deliveries go beside it');
        if (frame.has(deliveryId)) this.#nextSent = (frame.uint(deliveryId) + 1) >>> 0;
        return undefined;
      }
      case 'disposition': {
        const { role, first, last } = fieldOf.disposition;
        const by = frame.flag(role) ? this.#idOffset : 0;
        return shifted(frame, [first, by], [last, by]);
      }
      case 'detach':
        this.#byOwnHandle.delete(frame.uint(fieldOf.detach.handle));
        this.deliveries.close();
        return undefined;
      case 'end':
        this.deliveries.close();
        return undefined;
      default:
        return undefined;
    }
  }

  /** The link of this name, if it is there and we send on it. */
  sendingLink(name: string): SendingLink | undefined {
    return this.#byName.get(name)?.sending;
  }

  /** The peer sent this frame. Throws a Violation when it may not. */
  received(frame: Frame): Verdict {
    switch (frame.performative) {
      case 'attach':
        return this.#receivedAttach(frame);
      case 'flow': {
        const verdict = this.#receivedFlow(frame);
        this.#proceed();
        return verdict;
      }
      case 'transfer':
        return this.#receivedTransfer(frame);
      case 'disposition':
        return this.#receivedDisposition(frame);
      case 'detach': {
        const handle = frame.uint(fieldOf.detach.handle);
        const link = this.#link(handle);
        this.#byHandle.delete(handle);
        if (this.#byName.get(link.name) === link) this.#byName.delete(link.name);
        this.deliveries.close();
        return 'pass';
      }
      default:
        throw new Violation('it does not belong to a session');
    }
  }

  #sentFlow(frame: Frame): Buffer | undefined {
    const { nextOutgoingId, handle, deliveryCount, linkCredit } = fieldOf.flow;
    const link = frame.has(handle) ? this.#byOwnHandle.get(frame.uint(handle)) : undefined;
    if (link?.receives === true) link.credit = frame.uint(linkCredit);
    return shifted(
      frame,
      [nextOutgoingId, this.deliveries.nextTransferId],
      [deliveryCount, link?.initialCount ?? 0],
    );
  }

  #receivedAttach(frame: Frame): Verdict {
    const { name, handle, role, initialDeliveryCount } = fieldOf.attach;
    const link = this.#byName.get(frame.text(name));
    if (link === undefined || link.answered) throw new Violation('it answers no attach of ours');
    if (link.receives === frame.flag(role)) throw new Violation('it takes the same role as we do');
    if (this.#byHandle.has(frame.uint(handle))) throw new Violation('the handle is in use');
    link.answered = true;
    if (link.receives && frame.has(initialDeliveryCount))
      link.initialCount = frame.uint(initialDeliveryCount);
    this.#byHandle.set(frame.uint(handle), link);
    return 'pass';
  }

  #receivedFlow(frame: Frame): Verdict {
    const { nextIncomingId, incomingWindow, handle, deliveryCount, linkCredit, drain } = fieldOf.flow;
    this.deliveries.windowMoved(
      frame.has(nextIncomingId) ? frame.uint(nextIncomingId) : 0,
      frame.uint(incomingWindow),
    );
    if (!frame.has(handle)) return 'pass';
    const link = this.#link(frame.uint(handle));
    if (link.receives && !frame.flag(drain)) return 'pass'; // rhea reads no more than that
    // Here it computes with both.
    if (!frame.has(deliveryCount) || !frame.has(linkCredit))
      throw new Violation('it says nothing of the credit of its link');
    const credit = frame.uint(linkCredit);
    if (link.sending !== undefined) {
      link.sending.allowed = sumOf(frame.uint(deliveryCount), credit);
      // What rhea has left of it when it is told to drain, it counts down one by one.
      if (frame.flag(drain) && credit > mostDrained) throw new Violation('it drains an absurd credit');
      return 'pass';
    }
    if (credit > 0) return 'drop'; // not drained yet: rhea would print that it is odd
    link.credit = 0;
    return shifted(frame, [deliveryCount, -link.initialCount]) ?? 'pass';
  }

  /** The hub may take more than before. */
  #proceed(): void {
    this.deliveries.proceed();
    for (const { sending } of this.#byOwnHandle.values()) sending?.onCredit();
  }

  #receivedDisposition(frame: Frame): Verdict {
    const { role, first, last } = fieldOf.disposition;
    const firstId = frame.uint(first);
    const lastId = frame.has(last) ? frame.uint(last) : firstId;
    const { maxOutstandingDeliveries: most } = this.#limits;
    const count = ((lastId - firstId) >>> 0) + 1;
    // rhea goes through the range one by one.
    if (count > most)
      throw new Violation(`it settles ${count} deliveries where ${most} at most are outstanding`);
    const isOfOurs = frame.flag(role);
    if (isOfOurs && this.deliveries.isInUse) {
      this.deliveries.received(frame, firstId, lastId);
      this.#proceed();
      return 'drop';
    }
    const next = isOfOurs ? this.#nextSent : this.#nextReceived;
    // Of an id that left its ring long ago, rhea finds another delivery: that one would count as settled.
    const known = next !== undefined && (inRing(firstId, next) || inRing(lastId, next));
    if (!known) return 'drop';
    const by = isOfOurs ? 0 : -this.#idOffset;
    return shifted(frame, [first, by], [last, by]) ?? 'pass';
  }

  #receivedTransfer(frame: Frame): Verdict {
    const link = this.#link(frame.uint(fieldOf.transfer.handle));
    if (!link.receives) throw new Violation('it comes on a link that we send on');
    if (link.credit === 0) throw new Violation('it goes beyond the credit of its link');
    const { deliveryId, more, aborted } = fieldOf.transfer;
    if (frame.flag(more) && frame.flag(aborted)) throw new Violation('it is aborted and has more to come');
    if (link.delivery === undefined) this.#countDelivery(frame);
    const verdict = this.#translate(frame);
    if (link.delivery !== undefined && frame.has(deliveryId) && frame.uint(deliveryId) !== link.delivery.id) {
      throw new Violation('it starts a delivery before the last one is complete');
    }
    if (!frame.flag(more)) link.credit -= 1;
    if (link.delivery === undefined && !frame.flag(more)) return this.#checkWhole(frame) ?? verdict;
    return this.#holdPart(link, frame);
  }

  /** The first transfer of a delivery: deliveries are numbered without gaps over all links of the session. */
  #countDelivery(frame: Frame): void {
    const { deliveryId, deliveryTag } = fieldOf.transfer;
    if (!frame.has(deliveryId) || !frame.has(deliveryTag))
      throw new Violation('it starts a delivery without id or tag');
    const id = frame.uint(deliveryId);
    if (this.#nextReceived === undefined && id >= 2 ** 31) this.#idOffset = id;
    else if (this.#nextReceived !== undefined && id !== this.#nextReceived) {
      throw new Violation(`it is delivery ${id} where ${this.#nextReceived} comes next`);
    }
    this.#nextReceived = (id + 1) >>> 0;
  }

  /** Makes the delivery id one that rhea can count from. The frame is then read from new bytes, which are the verdict. */
  #translate(frame: Frame): Verdict {
    const { deliveryId } = fieldOf.transfer;
    const bytes = shifted(frame, [deliveryId, -this.#idOffset]);
    if (bytes === undefined) return 'pass';
    frame.read(bytes, 0, bytes.length);
    return bytes;
  }

  /** A delivery in one transfer, as nearly all are. Returns what to hand over instead, if anything. */
  #checkWhole(frame: Frame): Buffer | undefined {
    if (!isMessage(frame)) return undefined; // rhea does not decode other formats
    const fault = this.#faultOf(frame, frame.bytes, frame.payloadAt, frame.end);
    return fault === undefined ? undefined : frame.withPayload(unreadableMark(fault));
  }

  /**
   * A transfer of a delivery in several. Only the whole message can be checked, so rhea gets all the transfers, but
   * the payload with the last one; except for the first byte, because rhea fails over an empty first transfer. That
   * byte is the same in every message: zero, which starts a described value.
   */
  #holdPart(link: Link, frame: Frame): Buffer {
    const { deliveryId, more } = fieldOf.transfer;
    if (link.delivery === undefined) {
      if (!isMessage(frame)) {
        throw new Violation('it starts a delivery in several transfers that is no AMQP message');
      }
      const held = new HeldMessage(this.#limits.maxMessageBytes);
      held.append(frame.bytes, frame.payloadAt, frame.end);
      link.delivery = { id: frame.uint(deliveryId), held };
      return frame.withPayload(firstByte);
    }
    const { held } = link.delivery;
    held.append(frame.bytes, frame.payloadAt, frame.end);
    if (frame.flag(more)) return frame.withPayload(nothing);
    link.delivery = undefined;
    const fault = this.#faultOf(frame, held.bytes, 0, held.size);
    const payload = fault === undefined ? held.bytes : unreadableMark(fault);
    return frame.withPayload(payload.subarray(firstByte.length));
  }

  /** Why rhea must not decode the message that `frame` completes. */
  #faultOf(frame: Frame, bytes: Buffer, start: number, end: number): string | undefined {
    const { maxMessageBytes } = this.#limits;
    if (frame.flag(fieldOf.transfer.aborted)) return 'its sender gave it up';
    if (end - start > maxMessageBytes) return `it is larger than ${maxMessageBytes} bytes`;
    return faultOfMessage(this.#walker, bytes, start, end);
  }

  #link(handle: number): Link {
    const link = this.#byHandle.get(handle);
    if (link === undefined) throw new Violation('no link has this handle');
    return link;
  }
}

/** Far more than any hub grants, and counted down in a few milliseconds. */
const mostDrained = 2 ** 20;
const firstByte = Buffer.from([0]);
const nothing = Buffer.alloc(0);

/** Whether rhea can still have the delivery `id`, when `next` is the one to come: it keeps 2 048 of a session. */
function inRing(id: number, next: number): boolean {
  return (next - 1 - id) >>> 0 < 2048;
}

function isMessage(frame: Frame): boolean {
  const { messageFormat } = fieldOf.transfer;
  return frame.has(messageFormat) && frame.uint(messageFormat) === 0;
}

/** The frame with something added to some of its sequence numbers; undefined when that changes nothing. */
function shifted(
  frame: Frame,
  ...shifts: readonly (readonly [field: number, by: number])[]
): Buffer | undefined {
  const changes = shifts.filter(([field, by]) => by !== 0 && frame.has(field));
  if (changes.length === 0) return undefined;
  return frame.withUints(new Map(changes.map(([field, by]) => [field, (frame.uint(field) + by) >>> 0])));
}

/** The hub counts from zero, as every session and link of ours does. */
function sendingLink(handle: number): SendingLink {
  return { handle, allowed: 0, given: 0, sent: 0, onCredit: () => undefined };
}
