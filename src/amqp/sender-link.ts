import type { AgentError } from '../errors.js';
import type { SendOutcome } from '../model.js';
import { anyOf } from '../signals.js';
import type { Payload, SendingLink, SentDeliveries, Waiter } from './guard/sent-deliveries.js';
import type { SessionScope } from './scope.js';

export type { Waiter };

/** A link that rhea has attached and that we send on, with an outcome for each message. Throws what it is over by. */
export class SenderLink {
  readonly #scope: Pick<SessionScope, 'over' | 'fail' | 'outlet'>;
  readonly #link: SendingLink;
  readonly #deliveries: SentDeliveries;
  /** Those who wait for credit. */
  #waiting: (() => void)[] = [];

  constructor(name: string, scope: Pick<SessionScope, 'over' | 'fail' | 'outlet'>) {
    const { over, outlet } = scope;
    // A hub can take a link back in the same breath.
    over.throwIfAborted();
    const { link, deliveries } = outlet.sendingLink(name);
    this.#scope = scope;
    this.#link = link;
    this.#deliveries = deliveries;
    link.onCredit = () => {
      for (const proceed of this.#waiting.splice(0)) proceed();
    };
    over.addEventListener('abort', () => {
      deliveries.abandon(over.reason as Error);
      link.onCredit();
    });
  }

  /** How many messages the hub would take now. */
  get credit(): number {
    return this.#deliveries.credit(this.#link);
  }

  /** Resolves when the hub grants credit; rejects when the session is over. */
  async moreCredit(signal: AbortSignal): Promise<void> {
    using until = anyOf(signal, this.#scope.over);
    const stop = () => {
      this.#link.onCredit();
    };
    until.addEventListener('abort', stop);
    try {
      until.throwIfAborted();
      while (this.credit <= 0) {
        await new Promise<void>((resolve) => this.#waiting.push(resolve));
        until.throwIfAborted();
      }
    } finally {
      until.removeEventListener('abort', stop);
    }
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

  /**
   * As `send`, for many: tells the waiter instead of making a promise of each. Not once the session is over. Without
   * credit the message waits for it.
   */
  ship(payload: Payload, format: number, waiter: Waiter): void {
    this.#deliveries.send(this.#link, payload, format, waiter);
  }

  /** Bytes that one transfer can carry. */
  get frameBytes(): number {
    return this.#deliveries.payloadBytes;
  }

  /** Whether the socket has more than it can send at once, so that more would only wait here. */
  get congested(): boolean {
    return this.#scope.outlet.congested;
  }

  /** Resolves when it has not; rejects when the session is over. */
  async drained(signal: AbortSignal): Promise<void> {
    if (!this.congested) return;
    using until = anyOf(signal, this.#scope.over);
    await this.#scope.outlet.drained(until);
  }

  /** Gives the link up, and with it the session that it is on. */
  fail(error: AgentError): void {
    this.#scope.fail(error);
  }
}
