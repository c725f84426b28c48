import type { Delivery } from 'rhea';

import type { CommandOutcome } from '../model.js';

/**
 * Settles deliveries in the order they are handed in, and never two with different outcomes in one turn of the
 * event loop: rhea writes the dispositions of a turn as ranges and gives a range of two neighbours the outcome of
 * the first (`write_dispositions` in its lib/session.js), so that a reject next to an accept would be accepted.
 */
export class Settlement {
  readonly #queue: { delivery: Delivery; outcome: SettledAs }[] = [];
  /** What this turn settles as; undefined while nothing has been settled in it. */
  #turn: SettledAs | undefined;

  settle(delivery: Delivery, outcome: SettledAs): void {
    if (this.#queue.length === 0 && this.#fits(outcome)) apply(delivery, outcome);
    else this.#queue.push({ delivery, outcome });
  }

  /** Resolves when everything handed in so far has been given to the connection. */
  async flushed(): Promise<void> {
    while (this.#queue.length > 0 || this.#turn !== undefined) {
      await new Promise<void>((resolve) => {
        setImmediate(resolve);
      });
    }
  }

  /** Whether it may be settled in this turn; the first to be makes it one of its kind. */
  #fits(outcome: SettledAs): boolean {
    if (this.#turn !== undefined) return isSame(this.#turn, outcome);
    this.#turn = outcome;
    // rhea writes in a nextTick of this turn; a new turn of the loop comes after it.
    setImmediate(() => {
      this.#turn = undefined;
      this.#drain();
    });
    return true;
  }

  #drain(): void {
    const end = this.#queue.findIndex(({ outcome }) => !this.#fits(outcome));
    const settled = this.#queue.splice(0, end < 0 ? this.#queue.length : end);
    for (const { delivery, outcome } of settled) apply(delivery, outcome);
  }
}

function isSame(one: SettledAs, other: SettledAs): boolean {
  if (one.outcome === 'accept') return other.outcome === 'accept';
  return JSON.stringify(one) === JSON.stringify(other);
}

/** The outcomes of AMQP 1.0 messaging, 3.4; `modified` is for a command that this receiver should not see again. */
export type SettledAs =
  CommandOutcome | { outcome: 'modified'; deliveryFailed: boolean; undeliverableHere: boolean };

function apply(delivery: Delivery, settledAs: SettledAs): void {
  switch (settledAs.outcome) {
    case 'accept':
      delivery.accept();
      return;
    case 'reject':
      delivery.reject(
        settledAs.reason === undefined
          ? undefined
          : { condition: 'amqp:precondition-failed', description: settledAs.reason },
      );
      return;
    case 'release':
      delivery.release();
      return;
    case 'modified':
      delivery.modified({
        delivery_failed: settledAs.deliveryFailed,
        undeliverable_here: settledAs.undeliverableHere,
      });
      return;
  }
}
