import type { SendOutcome } from '../model.js';
import { deliveryState } from './wire.js';
import type { Delivery } from './wire.js';

/**
 * The one way in which the hub settles deliveries of a session.
 *
 * rhea gathers the dispositions of a tick into ranges, and a range takes the outcome of its first delivery: a reject
 * beside an accept would leave as accepted. So different outcomes never share a tick here.
 */
export class Settler {
  readonly #waiting: { delivery: Delivery; outcome: SendOutcome; key: string }[] = [];
  /** The outcome that this tick is for, until the next one begins. */
  #tick: string | undefined;

  settle(delivery: Delivery, outcome: SendOutcome): void {
    this.#waiting.push({ delivery, outcome, key: outcomeKey(outcome) });
    this.#flush();
  }

  #flush(): void {
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if (this.#tick === undefined) {
        this.#tick = next.key;
        setImmediate(() => {
          this.#tick = undefined;
          this.#flush();
        });
      }
      if (next.key !== this.#tick) return;
      this.#waiting.shift();
      next.delivery.update(true, deliveryState(next.outcome));
    }
  }
}

/** Equal for outcomes that may share a range. Two rejections may differ in their text. */
function outcomeKey(outcome: SendOutcome): string {
  return outcome.outcome === 'accepted' ? 'accepted' : JSON.stringify(outcome);
}
