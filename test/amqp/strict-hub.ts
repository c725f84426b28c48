import { Duplex } from 'node:stream';

import { describeFrame, type FrameFields } from '../../src/amqp/guard/describe.js';
import { Frame } from '../../src/amqp/guard/frame.js';
import { Walker } from '../../src/amqp/guard/values.js';
import * as wire from './guard-frames.js';
import { answers, clientFlight, fromHub } from './guard-peer.js';

/** Where a hub starts to count: its deliveries in all, those of the link, and transfers. */
export interface Counts {
  deliveryId: number;
  deliveryCount: number;
  transferId: number;
}

/** How a hub sends a delivery. */
export interface Sending {
  transfers: number;
  /** Which of its transfers says that it is settled; none when there is no such transfer. */
  settledBy: number;
  isGivenUp: boolean;
  /** It counts a delivery as it begins, and not when it is whole. */
  countsEarly: boolean;
}

/**
 * A hub without a network that keeps count of everything, and sends nothing that it may not: AMQP 1.0 part 2, sections
 * 2.5.6 and 2.6.7. What it says leaves with `speak`, what it was told is looked at by `hear`.
 */
export class StrictHub {
  readonly socket: Duplex;
  /** Deliveries and transfers that it may send. */
  credit = 0;
  window = 0;
  /** What it was told of deliveries: descriptors of outcomes by delivery id, each time. */
  readonly told = new Map<number, unknown[]>();
  readonly #next: Counts;
  readonly #frame = new Frame(new Walker(32));
  #said: Buffer[] = [];
  #written: Buffer = Buffer.alloc(0);

  constructor(from: Counts) {
    this.#next = { ...from };
    this.socket = new LocalSocket((bytes) => {
      this.#written = Buffer.concat([this.#written, bytes]);
    });
  }

  /** Answers the first flight of the client. */
  open(): void {
    const { deliveryCount, transferId } = this.#next;
    this.#written = this.#written.subarray(wire.amqpHeader.length);
    if (this.#frames().length !== clientFlight) throw new Error('the client has not begun');
    this.#said.push(answers({ initialDeliveryCount: deliveryCount, nextOutgoingId: transferId }));
    this.speak();
  }

  get nextDeliveryId(): number {
    return this.#next.deliveryId;
  }

  /** False when the client has no room for it. */
  deliver(payload: Buffer, { transfers, settledBy, isGivenUp, countsEarly }: Sending): boolean {
    if (this.credit === 0 || this.window < transfers) return false;
    const { deliveryId } = this.#next;
    this.#next.deliveryId = (deliveryId + 1) >>> 0;
    this.credit--;
    if (countsEarly) this.#count(1);
    for (let n = 0; n < transfers; n++) {
      const isLast = n === transfers - 1;
      const [from, to] = [n, n + 1].map((end) => Math.floor((payload.length * end) / transfers));
      this.#said.push(
        wire.transfer({
          handle: fromHub,
          ...(n === 0 ? { deliveryId } : { tag: wire.nul, format: wire.nul }),
          ...{ settled: n === settledBy, more: !isLast, aborted: isLast && isGivenUp },
          payload: payload.subarray(from, to),
        }),
      );
      this.window--;
      this.#next.transferId = (this.#next.transferId + 1) >>> 0;
      // In the middle of it too.
      if (!isLast) this.tell(false);
    }
    if (!countsEarly) this.#count(1);
    return true;
  }

  /** Gives up credit. */
  passOver(deliveries: number): void {
    const passed = Math.min(deliveries, this.credit);
    this.credit -= passed;
    this.#count(passed);
    this.tell(false);
  }

  /** Says how far it has counted, and may want to hear the same. */
  tell(echo: boolean): void {
    const { deliveryCount, transferId } = this.#next;
    const link = {
      handle: fromHub,
      deliveryCount: wire.uint(deliveryCount),
      linkCredit: wire.uint(this.credit),
    };
    this.#said.push(wire.flow({ ...link, echo, nextOutgoingId: transferId }));
  }

  speak(): void {
    const bytes = Buffer.concat(this.#said);
    this.#said = [];
    if (bytes.length > 0) this.socket.emit('data', bytes);
  }

  hear(): void {
    for (const fields of this.#frames()) {
      if (fields['link-credit'] !== undefined)
        this.credit = this.#ahead('deliveryCount', fields, 'link-credit');
      if (fields['incoming-window'] !== undefined)
        this.window = this.#ahead('transferId', fields, 'incoming-window');
      if (fields['role'] === true)
        this.#hearOutcome(fields as { first: number; last: number; state: unknown });
    }
  }

  /** How far what the client allows goes beyond what was sent. */
  #ahead(of: keyof Counts, fields: FrameFields, allowance: string): number {
    const from = of === 'transferId' ? 'next-incoming-id' : 'delivery-count';
    const ahead = (Number(fields[from]) + Number(fields[allowance]) - this.#next[of]) | 0;
    if (ahead < 0 || ahead > Number(fields[allowance]))
      throw new Error(`${from} is ${String(fields[from])} where ${this.#next[of]} comes next`);
    return ahead;
  }

  #hearOutcome({ first, last, state }: { first: number; last: number; state: unknown }): void {
    for (let id = first; id !== (last + 1) >>> 0; id = (id + 1) >>> 0)
      this.told.set(id, [...(this.told.get(id) ?? []), (state as { is: string }).is]);
  }

  #count(deliveries: number): void {
    this.#next.deliveryCount = (this.#next.deliveryCount + deliveries) >>> 0;
  }

  /** What the client has written since. */
  #frames(): FrameFields[] {
    const bytes = this.#written;
    const found: FrameFields[] = [];
    for (let at = 0; at < bytes.length; at += this.#frame.size) {
      this.#frame.read(bytes, at, bytes.readUInt32BE(at));
      found.push(describeFrame(this.#frame));
    }
    this.#written = Buffer.alloc(0);
    return found;
  }
}

class LocalSocket extends Duplex {
  constructor(written: (bytes: Buffer) => void) {
    super({
      read: () => undefined,
      write(bytes: Buffer, _encoding, done) {
        written(Buffer.from(bytes));
        done();
      },
    });
  }
}
