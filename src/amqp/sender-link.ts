import type { Delivery, EventContext, Sender } from 'rhea';

import type { AgentError } from '../errors.js';
import type { SendOutcome } from '../model.js';
import { anyOf } from '../signals.js';
import { toAgentError } from './errors.js';
import type { SessionScope } from './scope.js';

/**
 * A link that we send on, with an outcome for each message.
 *
 * rhea takes 2 048 messages on a credit of two and then throws, so callers keep to `credit`.
 */
export class SenderLink {
  readonly #scope: Pick<SessionScope, 'over' | 'fail'>;
  readonly #sender: CreditedSender;
  readonly #unsettled = new Map<number, Waiter>();
  #sent = 0;
  #nextTag = 0;

  constructor(sender: Sender, scope: Pick<SessionScope, 'over' | 'fail'>) {
    const { over } = scope;
    this.#scope = scope;
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
      const waiters = [...this.#unsettled.values()];
      this.#unsettled.clear();
      for (const waiter of waiters) waiter.lost(over.reason as Error);
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
      else this.ship(encoded, format, { settled: resolve, lost: reject });
    });
  }

  /** As `send`, for many: tells the waiter instead of making a promise of each. Not once the session is over. */
  ship(encoded: Buffer, format: number, waiter: Waiter): void {
    const delivery = this.#sender.send(encoded, this.#tag(), format);
    this.#sent++;
    this.#unsettled.set(delivery.id, waiter);
  }

  /** Gives the link up, and with it the session that it is on. */
  fail(error: AgentError): void {
    this.#scope.fail(error);
  }

  #settle(delivery: Delivery): void {
    const waiter = this.#unsettled.get(delivery.id);
    if (waiter === undefined) return;
    this.#unsettled.delete(delivery.id);
    // A hub that states an outcome without settling waits for us to settle (second settle mode).
    if (!delivery.remote_settled) delivery.update(true);
    waiter.settled(outcomeOf(delivery));
  }

  /** Four bytes, unique among what is unsettled. */
  #tag(): Buffer {
    const tag = Buffer.allocUnsafe(4);
    tag.writeUInt32BE(this.#nextTag);
    this.#nextTag = (this.#nextTag + 1) >>> 0;
    return tag;
  }
}

/** Who wants to know what became of a message. */
export interface Waiter {
  settled: (outcome: SendOutcome) => void;
  /** The session is over, and the hub's answer will not come. */
  lost: (error: Error) => void;
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
