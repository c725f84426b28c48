import { AgentError } from '../../errors.js';
import type { Frame } from './frame.js';
import type { FrameWriter } from './frame-writer.js';
import { MessageCheck } from './message.js';
import { fieldOf } from './performatives.js';
import { ReceivedDeliveries, type ReceivingLink } from './received-deliveries.js';
import { SentDeliveries, type SendingLink, sumOf } from './sent-deliveries.js';
import { TransfersForRhea } from './transfers-for-rhea.js';
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
  /** What is sent on it, where we send. */
  sending: SendingLink | undefined;
  /** What the peer sends on it, where we do not. */
  receiving: ReceivingLink | undefined;
  /** The peer answered our attach. */
  answered: boolean;
  /** Where the peer starts to count deliveries. */
  initialCount: number;
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
  readonly #forRhea: TransfersForRhea;
  /** What goes beside rhea. */
  readonly sending: SentDeliveries;
  readonly receiving: ReceivedDeliveries;
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

  /** `out` writes what goes beside rhea. */
  constructor(limits: SessionLimits, walker: Walker, out: FrameWriter) {
    this.#limits = limits;
    const check = new MessageCheck(walker, limits.maxMessageBytes);
    this.#forRhea = new TransfersForRhea(check);
    this.sending = new SentDeliveries(out);
    this.receiving = new ReceivedDeliveries(out, this.sending, check);
  }

  /** We send this frame. Returns the frame that has to leave in its place, if any. */
  sent(frame: Frame): Buffer | undefined {
    switch (frame.performative) {
      case 'attach': {
        const { name, handle, role } = fieldOf.attach;
        const ownHandle = frame.uint(handle);
        const receives = frame.flag(role);
        const link: Link = {
          name: frame.text(name),
          sending: receives ? undefined : sendingLink(ownHandle),
          receiving: receives ? { handle: ownHandle, credit: 0, count: 0 } : undefined,
          answered: false,
          initialCount: 0,
        };
        this.#byName.set(link.name, link);
        this.#byOwnHandle.set(ownHandle, link);
        return undefined;
      }
      case 'flow':
        return this.#sentFlow(frame);
      case 'transfer': {
        const { deliveryId } = fieldOf.transfer;
        if (this.sending.isInUse)
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
        this.close();
        return undefined;
      case 'end':
        this.close();
        return undefined;
      default:
        return undefined;
    }
  }

  /** The peer answered our begin with this frame, and takes frames of `frameBytes`. */
  begun(frame: Frame, frameBytes: number): void {
    const { nextOutgoingId, incomingWindow } = fieldOf.begin;
    this.answered = true;
    this.sending.begin(frame.uint(incomingWindow), frameBytes);
    this.receiving.nextIs(frame.uint(nextOutgoingId));
  }

  /** The session or a link of it is ending, and nothing more goes beside rhea. */
  close(): void {
    this.sending.close();
    this.receiving.close();
  }

  /** The link of this name, if it is there and we send on it. */
  sendingLink(name: string): SendingLink | undefined {
    return this.#byName.get(name)?.sending;
  }

  /** The link of this name, if it is there and we receive on it. */
  receivingLink(name: string): ReceivingLink | undefined {
    return this.#byName.get(name)?.receiving;
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
        this.close();
        return 'pass';
      }
      default:
        throw new Violation('it does not belong to a session');
    }
  }

  #sentFlow(frame: Frame): Buffer | undefined {
    const { nextIncomingId, incomingWindow, nextOutgoingId, handle, deliveryCount, linkCredit } =
      fieldOf.flow;
    const link = frame.has(handle) ? this.#byOwnHandle.get(frame.uint(handle)) : undefined;
    if (link?.receiving !== undefined) link.receiving.credit = frame.uint(linkCredit);
    this.receiving.windowMoved(frame.uint(incomingWindow));
    const isBehindBy = this.receiving.isInUse
      ? this.receiving.nextTransferId - frame.uint(nextIncomingId)
      : 0;
    return shifted(
      frame,
      [nextIncomingId, isBehindBy],
      [nextOutgoingId, this.sending.nextTransferId],
      [deliveryCount, link?.initialCount ?? 0],
    );
  }

  #receivedAttach(frame: Frame): Verdict {
    const { name, handle, role, initialDeliveryCount } = fieldOf.attach;
    const link = this.#byName.get(frame.text(name));
    if (link === undefined || link.answered) throw new Violation('it answers no attach of ours');
    if ((link.receiving !== undefined) === frame.flag(role))
      throw new Violation('it takes the same role as we do');
    if (this.#byHandle.has(frame.uint(handle))) throw new Violation('the handle is in use');
    link.answered = true;
    if (link.receiving !== undefined && frame.has(initialDeliveryCount)) {
      link.initialCount = frame.uint(initialDeliveryCount);
      link.receiving.count = link.initialCount;
    }
    this.#byHandle.set(frame.uint(handle), link);
    return 'pass';
  }

  #receivedFlow(frame: Frame): Verdict {
    const { nextIncomingId, incomingWindow, nextOutgoingId, handle, deliveryCount, linkCredit, drain } =
      fieldOf.flow;
    this.sending.windowMoved(
      frame.has(nextIncomingId) ? frame.uint(nextIncomingId) : 0,
      frame.uint(incomingWindow),
    );
    this.receiving.nextIs(frame.uint(nextOutgoingId));
    if (!frame.has(handle)) return 'pass';
    const link = this.#link(frame.uint(handle));
    if (link.receiving?.onDelivery !== undefined) this.#receivedStateOf(link.receiving, frame);
    if (link.receiving !== undefined && !frame.flag(drain)) return 'pass'; // rhea reads no more than that
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
    // Not drained yet, where rhea would print that it is odd; or drained without being asked to.
    if (link.receiving === undefined || credit > 0 || link.receiving.onDelivery !== undefined) return 'drop';
    link.receiving.credit = 0;
    return shifted(frame, [deliveryCount, -link.initialCount]) ?? 'pass';
  }

  /** What the peer's flow says of a link that goes beside rhea. */
  #receivedStateOf(link: ReceivingLink, frame: Frame): void {
    const { deliveryCount, echo } = fieldOf.flow;
    const hasPassed = frame.has(deliveryCount) && this.receiving.countedTo(link, frame.uint(deliveryCount));
    if (hasPassed || frame.flag(echo)) this.receiving.grant(link, 0);
  }

  /** The hub may take more than before. */
  #proceed(): void {
    this.sending.proceed();
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
    if (isOfOurs && this.sending.isInUse) {
      this.sending.received(frame, firstId, lastId);
      this.#proceed();
      return 'drop';
    }
    // What the peer settles by itself, a lock that ran out, it delivers again: nothing here keeps a list of them.
    if (!isOfOurs && this.receiving.isInUse) return 'drop';
    const next = isOfOurs ? this.#nextSent : this.#nextReceived;
    // Of an id that left its ring long ago, rhea finds another delivery: that one would count as settled.
    const known = next !== undefined && (inRing(firstId, next) || inRing(lastId, next));
    if (!known) return 'drop';
    const by = isOfOurs ? 0 : -this.#idOffset;
    return shifted(frame, [first, by], [last, by]) ?? 'pass';
  }

  #receivedTransfer(frame: Frame): Verdict {
    const { handle, more, aborted } = fieldOf.transfer;
    const link = this.#link(frame.uint(handle)).receiving;
    if (link === undefined) throw new Violation('it comes on a link that we send on');
    if (link.credit === 0) throw new Violation('it goes beyond the credit of its link');
    if (frame.flag(more) && frame.flag(aborted)) throw new Violation('it is aborted and has more to come');
    this.#countDelivery(link, frame);
    this.receiving.arrived();
    if (!frame.flag(more)) {
      link.credit -= 1;
      link.count = (link.count + 1) >>> 0;
    }
    if (link.onDelivery === undefined) {
      const verdict = this.#translate(frame);
      return this.#forRhea.instead(link, frame) ?? verdict;
    }
    this.receiving.take(link, frame);
    return 'drop';
  }

  /** Deliveries are numbered without gaps over all links of the session; their first transfers say how. */
  #countDelivery({ partial, onDelivery }: ReceivingLink, frame: Frame): void {
    const { deliveryId, deliveryTag } = fieldOf.transfer;
    if (partial !== undefined) {
      // What goes to rhea is known by the number that it has there.
      const by = onDelivery === undefined ? this.#idOffset : 0;
      if (frame.has(deliveryId) && (frame.uint(deliveryId) - by) >>> 0 !== partial.id)
        throw new Violation('it starts a delivery before the last one is complete');
      return;
    }
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

  #link(handle: number): Link {
    const link = this.#byHandle.get(handle);
    if (link === undefined) throw new Violation('no link has this handle');
    return link;
  }
}

/** Far more than any hub grants, and counted down in a few milliseconds. */
const mostDrained = 2 ** 20;

/** Whether rhea can still have the delivery `id`, when `next` is the one to come: it keeps 2 048 of a session. */
function inRing(id: number, next: number): boolean {
  return (next - 1 - id) >>> 0 < 2048;
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
