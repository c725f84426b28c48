import type { SendOutcome } from '../../model.js';
import { readValue } from './describe.js';
import type { Frame } from './frame.js';
import type { FrameWriter } from './frame-writer.js';
import { fieldOf } from './performatives.js';

/** What a delivery carries: bytes, or what writes itself where it leaves from, so that it is copied once. */
export interface Payload {
  readonly length: number;
  copy(target: Buffer, at: number): unknown;
}

/** Who wants to know what became of a delivery. */
export interface Waiter {
  settled: (outcome: SendOutcome) => void;
  /** The session is over, and the hub's answer will not come. */
  lost: (error: Error) => void;
}

/** A link that we send on, as the frames of both sides tell. Counts are of 32 bits, and go round. */
export interface SendingLink {
  readonly handle: number;
  /** What the hub has allowed in all: delivery count and credit of its last flow, together; see `sumOf`. */
  allowed: number;
  /** Deliveries that were given to it, and those of them that have begun to leave. */
  given: number;
  sent: number;
  /** Is told when the hub may have granted more. */
  onCredit: () => void;
}

/**
 * The deliveries that we send on one session beside rhea. It makes an object of every frame and every value in it,
 * starts each frame as a KiB of zeros and copies the payload from one buffer to the next, which takes ten times as long
 * as sending it. So rhea attaches the links, ends them and hears of their credit, and the transfers and their outcomes
 * go by it: to rhea nothing was ever sent on such a session. What it says of its own count in a flow, the guard's
 * `Session` puts right.
 *
 * AMQP 1.0 part 2 (transport), sections 2.5.6 (session flow control), 2.6.7 (link flow control), 2.6.12.
 */
export class SentDeliveries {
  readonly #out: FrameWriter;
  /** Who waits for the outcome of which delivery, at its id modulo the length; made for the first. */
  #unsettled: (Waiter | undefined)[] = [];
  /** What may not leave yet, or not wholly: the hub's window closed in the middle. Oldest first. */
  #queue: Queued[] = [];
  #nextId: number;
  #nextTransferId: number;
  /** The first transfer that the hub has no room for. */
  #windowEnd: number;
  #payloadBytes = 512 - headBytes;
  #isInUse = false;
  #isOver = false;
  /** Why those who waited were told that there is nothing to wait for. */
  #lostBy: Error | undefined;

  /** `firstId` is what ids start from; rhea tells the hub that it is zero. */
  constructor(out: FrameWriter, firstId = 0) {
    this.#nextId = firstId;
    this.#nextTransferId = firstId;
    this.#windowEnd = firstId;
    this.#out = out;
  }

  /** The hub has begun its end of the session, and takes frames of this size. */
  begin(windowFrames: number, frameBytes: number): void {
    this.windowMoved(this.#nextTransferId, windowFrames);
    this.#payloadBytes = frameBytes - headBytes;
  }

  /** The most that one transfer can carry. */
  get payloadBytes(): number {
    return this.#payloadBytes;
  }

  /** Whether anything was sent, so that dispositions are for us. */
  get isInUse(): boolean {
    return this.#isInUse;
  }

  /** What rhea takes for zero. */
  get nextTransferId(): number {
    return this.#nextTransferId;
  }

  /** How many deliveries of this link the hub would take now. */
  credit(link: SendingLink): number {
    if (this.#isOver || this.#queue.length > 0 || !this.#hasSlot) return 0;
    return Math.min((link.allowed - link.given) | 0, this.#room);
  }

  /** Sends a delivery as soon as it may leave. The outcome is told to `waiter`, unless the session ends before. */
  send(link: SendingLink, payload: Payload, format: number, waiter: Waiter): void {
    if (this.#lostBy !== undefined) {
      waiter.lost(this.#lostBy);
      return;
    }
    const mayLeave = this.credit(link) > 0;
    link.given = (link.given + 1) >>> 0;
    if (mayLeave && payload.length <= this.#payloadBytes) {
      const id = this.#leaves(link, waiter);
      const at = this.#transfer(link.handle, id, format, payload.length, false);
      payload.copy(this.#out.bytes, at);
      this.#out.end(at - headBytes, headBytes + payload.length);
      return;
    }
    const bytes = Buffer.allocUnsafe(payload.length);
    payload.copy(bytes, 0);
    this.#queue.push({ link, waiter, format, bytes, id: 0, at: 0 });
    this.#sendQueued();
  }

  /** The hub said in a flow what it has room for. */
  windowMoved(nextIncomingId: number, windowFrames: number): void {
    this.#windowEnd = sumOf(nextIncomingId, windowFrames);
  }

  /** After a flow or a disposition: what waited for it leaves. */
  proceed(): void {
    if (this.#queue.length > 0) this.#sendQueued();
  }

  /** The hub's disposition for deliveries of ours; `first` and `last` have been checked. */
  received(frame: Frame, first: number, last: number): void {
    const isSettled = frame.flag(fieldOf.disposition.settled);
    const outcome = outcomeIn(frame, isSettled);
    if (outcome === undefined) return;
    const newest = this.#nextId - 1;
    const end = (last + 1) >>> 0;
    let mustSettle = !isSettled;
    for (let id = first; id !== end; id = (id + 1) >>> 0) {
      // An id that left the ring long ago has the place of another delivery.
      if ((newest - id) >>> 0 >= mostUnsettled) continue;
      const waiter = this.#unsettled[id % mostUnsettled];
      if (waiter === undefined) continue;
      // A hub that states an outcome without settling waits for us to settle (second settle mode).
      if (mustSettle && !this.#isOver) this.#settle(first, last);
      mustSettle = false;
      this.#unsettled[id % mostUnsettled] = undefined;
      waiter.settled(outcome);
    }
  }

  /** Nothing leaves any more: the session or a link of it is ending. */
  close(): void {
    this.#isOver = true;
  }

  /** Tells all that wait for an outcome that it will not come, because of this. */
  abandon(error: Error): void {
    this.close();
    this.#lostBy = error;
    // What has begun to leave waits among the unsettled.
    const inQueue = this.#queue.filter(({ at }) => at === 0);
    const waiters = [...this.#unsettled, ...inQueue.map(({ waiter }) => waiter)];
    this.#unsettled.fill(undefined);
    this.#queue = [];
    for (const waiter of waiters) waiter?.lost(error);
  }

  get #room(): number {
    return (this.#windowEnd - this.#nextTransferId) | 0;
  }

  get #hasSlot(): boolean {
    return this.#unsettled[this.#nextId % mostUnsettled] === undefined;
  }

  /** The delivery gets its id, and counts. */
  #leaves(link: SendingLink, waiter: Waiter): number {
    this.#isInUse = true;
    if (this.#unsettled.length === 0)
      this.#unsettled = new Array<Waiter | undefined>(mostUnsettled).fill(undefined);
    const id = this.#nextId;
    this.#nextId = (id + 1) >>> 0;
    this.#unsettled[id % mostUnsettled] = waiter;
    link.sent = (link.sent + 1) >>> 0;
    return id;
  }

  #sendQueued(): void {
    if (this.#isOver) return;
    for (let next = this.#queue[0]; next !== undefined; next = this.#queue[0]) {
      const { link, waiter, format, bytes } = next;
      if (next.at === 0 && (!this.#hasSlot || ((link.allowed - link.sent) | 0) <= 0)) return;
      do {
        if (this.#room <= 0) return;
        if (next.at === 0) next.id = this.#leaves(link, waiter);
        const end = Math.min(next.at + this.#payloadBytes, bytes.length);
        const at = this.#transfer(link.handle, next.id, format, end - next.at, end < bytes.length);
        bytes.copy(this.#out.bytes, at, next.at, end);
        this.#out.end(at - headBytes, headBytes + end - next.at);
        next.at = end;
      } while (next.at < bytes.length);
      this.#queue.shift();
    }
  }

  /** Writes a transfer up to its payload of `length` bytes; returns where that belongs. */
  #transfer(handle: number, id: number, format: number, length: number, more: boolean): number {
    this.#nextTransferId = (this.#nextTransferId + 1) >>> 0;
    const start = this.#out.start(headBytes + length);
    const { bytes } = this.#out;
    // Descriptor 0x14, and a list of six fields in 23 bytes.
    bytes.writeUInt32BE(0x0053_14c0, start + 8);
    bytes.writeUInt16BE(0x1806, start + 12);
    bytes[start + 14] = 0x70;
    bytes.writeUInt32BE(handle, start + 15);
    bytes[start + 19] = 0x70;
    bytes.writeUInt32BE(id, start + 20);
    bytes.writeUInt16BE(0xa004, start + 24); // the tag is the id again
    bytes.writeUInt32BE(id, start + 26);
    bytes[start + 30] = 0x70;
    bytes.writeUInt32BE(format, start + 31);
    bytes[start + 35] = 0x42; // not settled
    bytes[start + 36] = more ? 0x41 : 0x42;
    return start + headBytes;
  }

  #settle(first: number, last: number): void {
    const start = this.#out.start(dispositionBytes);
    const { bytes } = this.#out;
    bytes.writeUInt32BE(0x0053_15c0, start + 8);
    bytes.writeUInt16BE(0x0d04, start + 12);
    bytes[start + 14] = 0x42; // we are the sender
    bytes[start + 15] = 0x70;
    bytes.writeUInt32BE(first, start + 16);
    bytes[start + 20] = 0x70;
    bytes.writeUInt32BE(last, start + 21);
    bytes[start + 25] = 0x41; // settled
    this.#out.end(start, dispositionBytes);
  }
}

/** What a count and an allowance from there on come to. More than half of all numbers ahead would count as behind. */
export function sumOf(count: number, allowance: number): number {
  return (count + Math.min(allowance, 0x7fff_ffff)) >>> 0;
}

interface Queued {
  link: SendingLink;
  waiter: Waiter;
  format: number;
  bytes: Buffer;
  /** Once it has begun to leave. */
  id: number;
  /** So much of them has left. */
  at: number;
}

/**
 * Deliveries of a session that can be without an outcome, from the oldest to the newest. A Map would hold any number,
 * but V8 chains the tables that a busy one leaves behind, and all that was in them survives collection after collection.
 */
const mostUnsettled = 2048;
const headBytes = 37;
const dispositionBytes = 26;
const accepted: SendOutcome = { outcome: 'accepted' };

/**
 * The terminal outcomes of AMQP 1.0 messaging, 3.4; undefined where the frame names none. Settled without any state
 * counts as accepted, and with a state that is no outcome as given back.
 */
function outcomeIn(frame: Frame, isSettled: boolean): SendOutcome | undefined {
  const { state } = fieldOf.disposition;
  if (!frame.has(state)) return isSettled ? accepted : undefined;
  const at = frame.at(state);
  if (frame.bytes.readUInt16BE(at + 1) === 0x5324) return accepted;
  const value = readValue(frame.bytes, at) as OutcomeValue;
  switch (value.is) {
    case 'accepted':
      return accepted;
    case 'rejected': {
      const { condition, description } = value.error ?? {};
      return { outcome: 'rejected', condition, description };
    }
    case 'released':
      return { outcome: 'released' };
    case 'modified':
      return { outcome: 'modified', undeliverableHere: value['undeliverable-here'] === true };
    default:
      return isSettled ? { outcome: 'released' } : undefined;
  }
}

/** An outcome as `readValue` gives it. */
type OutcomeValue = { is?: string } & {
  error?: { condition?: string; description?: string };
  'undeliverable-here'?: boolean;
};
