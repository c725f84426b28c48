import type { Delivery, EventContext, Sender } from 'rhea';

import type { AgentError } from '../errors.js';
import type { SendOutcome } from '../model.js';
import { anyOf } from '../signals.js';
import type { Outlet } from './connection.js';
import { toAgentError } from './errors.js';
import type { Payload } from './guard/cargo.js';
import { singleOf } from './messages.js';
import type { SessionScope } from './scope.js';

/**
 * A link that we send on, with an outcome for each message.
 *
 * rhea takes 2 048 messages on a credit of two and then throws, so callers keep to `credit`.
 */
export class SenderLink {
  readonly #scope: Pick<SessionScope, 'over' | 'fail'>;
  readonly #sender: CreditedSender;
  readonly #outlet: Outlet | undefined;
  readonly #unsettled = new Map<number, Unsettled>();
  #sent = 0;
  #nextTag = 0;

  /** With an `outlet`, payloads that rhea would be slow with go round it. */
  constructor(sender: Sender, scope: Pick<SessionScope, 'over' | 'fail'>, outlet?: Outlet) {
    const { over } = scope;
    this.#scope = scope;
    this.#outlet = outlet;
    this.#sender = sender as CreditedSender;
    const onState = ({ delivery }: EventContext) => {
      if (delivery === undefined) return;
      try {
        this.#settle(delivery);
      } catch (error) {
        this.fail(toAgentError(error));
      }
    };
    for (const event of ['accepted', 'rejected', 'released', 'modified', 'settled'])
      sender.on(event, onState);
    over.addEventListener('abort', () => {
      const unsettled = [...this.#unsettled.values()];
      this.#unsettled.clear();
      for (const { waiter } of unsettled) waiter.lost(over.reason as Error);
      const tags = unsettled.flatMap(({ tag }) => tag ?? []);
      if (tags.length === 0) return;
      // Until it has ended the session rhea may still write what it was given, and that must not leave empty.
      setTimeout(() => {
        for (const tag of tags) outlet?.cargo.drop(tag);
      }, rheaIsDoneMs).unref();
    });
  }

  /**
   * How many messages the hub would take now. rhea moves one from credit to delivery count as it leaves, so that
   * their sum is what the hub has allowed in all.
   */
  get credit(): number {
    return this.#sender.delivery_count + this.#sender.credit - this.#sent;
  }

  /** Resolves when the hub grants credit; rejects when the session is over. */
  async moreCredit(signal: AbortSignal): Promise<void> {
    using until = anyOf(signal, this.#scope.over);
    until.throwIfAborted();
    while (this.credit <= 0) await nextFlow(this.#sender, until);
  }

  /**
   * Sends an encoded message, or in another format what that stands for; resolves with the hub's disposition, rejects
   * when the session is over before.
   */
  send(encoded: Buffer, format = 0): Promise<SendOutcome> {
    return new Promise((resolve, reject) => {
      if (this.#scope.over.aborted) reject(this.#scope.over.reason as Error);
      else this.ship(singleOf(encoded), format, { settled: resolve, lost: reject });
    });
  }

  /** As `send`, for many: tells the waiter instead of making a promise of each. Not once the session is over. */
  ship(payload: Payload, format: number, waiter: Waiter): void {
    const cargo = this.#goesRound(payload) ? this.#outlet?.cargo : undefined;
    const tag = cargo === undefined ? this.#tag() : cargo.load(payload);
    const delivery = this.#sender.send(cargo === undefined ? bytesOf(payload) : empty, tag, format);
    this.#sent++;
    this.#unsettled.set(delivery.id, { waiter, tag: cargo && tag });
  }

  /** Bytes that a transfer of one frame can carry. */
  get frameBytes(): number {
    const { max_frame_size: peerTakes = mostFrameBytes } = this.#sender.connection;
    return Math.min(peerTakes, mostFrameBytes) - frameHeadBytes;
  }

  /** Whether the socket has more than it can send at once, so that more would only wait here. */
  get congested(): boolean {
    return this.#outlet?.congested ?? false;
  }

  /** Resolves when it has not; rejects when the session is over. */
  async drained(signal: AbortSignal): Promise<void> {
    using until = anyOf(signal, this.#scope.over);
    await this.#outlet?.drained(until);
  }

  /** Gives the link up, and with it the session that it is on. */
  fail(error: AgentError): void {
    this.#scope.fail(error);
  }

  #settle(delivery: Delivery): void {
    const unsettled = this.#unsettled.get(delivery.id);
    if (unsettled === undefined) return;
    this.#unsettled.delete(delivery.id);
    // A hub that states an outcome without settling waits for us to settle (second settle mode).
    if (!delivery.remote_settled) delivery.update(true);
    unsettled.waiter.settled(outcomeOf(delivery));
  }

  /** rhea is quick with what fits into the KiB that it starts with, and has to cut up what is larger than a frame. */
  #goesRound({ length }: Payload): boolean {
    return length > 1024 - frameHeadBytes && length <= this.frameBytes;
  }

  /** Four bytes, unique among what is unsettled. */
  #tag(): Buffer {
    const tag = Buffer.allocUnsafe(4);
    tag.writeUInt32BE(this.#nextTag);
    this.#nextTag = (this.#nextTag + 1) >>> 0;
    return tag;
  }
}

function bytesOf(payload: Payload): Buffer {
  const bytes = Buffer.allocUnsafe(payload.length);
  payload.copyTo(bytes, 0);
  return bytes;
}

const empty = Buffer.alloc(0);
const rheaIsDoneMs = 10_000;
/** No frame of ours is larger: IoT Hub's own size. */
const mostFrameBytes = 65_536;
/** What a transfer has besides its payload, and a little more. */
const frameHeadBytes = 64;

/** Who wants to know what became of a message. */
export interface Waiter {
  settled: (outcome: SendOutcome) => void;
  /** The session is over, and the hub's answer will not come. */
  lost: (error: Error) => void;
}

interface Unsettled {
  waiter: Waiter;
  /** Of a payload that goes round rhea. */
  tag: Buffer | undefined;
}

/** Two fields of rhea's sender that its types leave out. */
type CreditedSender = Sender & { credit: number; delivery_count: number };

function nextFlow(sender: Sender, until: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = () => {
      sender.off('sender_flow', onFlow);
      until.removeEventListener('abort', onAbort);
    };
    const onFlow = () => {
      stop();
      resolve();
    };
    const onAbort = () => {
      stop();
      reject(until.reason as Error);
    };
    sender.on('sender_flow', onFlow);
    until.addEventListener('abort', onAbort);
  });
}

const accepted: SendOutcome = { outcome: 'accepted' };

/** The terminal outcomes of AMQP 1.0 messaging, 3.4. Settled without any state counts as accepted. */
function outcomeOf({ remote_state: state }: Delivery): SendOutcome {
  // rhea names the type of an outcome on its constructor, and nowhere else.
  const type = (state?.constructor as { composite_type?: string } | undefined)?.composite_type;
  if (type === 'accepted') return accepted;
  const { error, undeliverable_here: undeliverableHere } = (state ?? {}) as {
    error?: { condition?: string; description?: string };
    undeliverable_here?: boolean;
  };
  if (type === 'rejected') {
    return { outcome: 'rejected', condition: error?.condition, description: error?.description };
  }
  if (type === 'released') return { outcome: 'released' };
  if (type === 'modified') return { outcome: 'modified', undeliverableHere: undeliverableHere === true };
  return accepted;
}
