import type { HubEvent } from '../amqp/event-message.js';
import type { Reading } from './reading.js';

/** Events that came and are not dealt with yet, one of them in the hands of the caller. */
export class EventQueue {
  #waiting: { event: HubEvent; reading: Reading }[] = [];
  #inHand: { event: HubEvent; reading: Reading } | undefined;
  #wake: () => void = () => undefined;
  #failure: { error: unknown } | undefined;

  push(event: HubEvent, reading: Reading): void {
    if (this.#failure !== undefined) return;
    this.#waiting.push({ event, reading });
    this.#wake();
  }

  /** No more will be handed out, because of this. */
  fail(error: unknown): void {
    this.#failure ??= { error };
    this.#waiting = [];
    this.#wake();
  }

  /** Resolves with the next event. The one before is dealt with, then. */
  async next(): Promise<HubEvent> {
    this.done();
    for (;;) {
      this.#inHand = this.#waiting.shift();
      if (this.#inHand !== undefined) return this.#inHand.event;
      if (this.#failure !== undefined) throw this.#failure.error;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** The event that the caller has is dealt with. */
  done(): void {
    const { event, reading } = this.#inHand ?? {};
    this.#inHand = undefined;
    if (event !== undefined) reading?.finished(event);
  }

  /** Whether the caller has an event of this reading. */
  hasInHand(reading: Reading): boolean {
    return this.#inHand?.reading === reading;
  }

  /** Throws away what waits of a reading; should it go on, it begins with that. */
  drop(reading: Reading): void {
    this.#waiting = this.#waiting.filter((each) => each.reading !== reading);
    reading.rewind(this.hasInHand(reading) ? this.#inHand?.event : undefined);
  }
}
