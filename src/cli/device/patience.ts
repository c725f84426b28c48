/** How long what is on its way may take after the first Ctrl-C. */
export const finishWithinMs = 5_000;

/** Runs out when an answer has been outstanding for too long. */
export class Patience {
  readonly #expiry = new AbortController();
  #limitMs: number;
  #timer: NodeJS.Timeout | undefined;

  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  get over(): AbortSignal {
    return this.#expiry.signal;
  }

  /** Something is waited for. */
  begin(): void {
    if (this.#timer === undefined) this.#arm();
  }

  /** An answer has come, and so many are still waited for. */
  answered(outstanding: number): void {
    if (outstanding === 0) this.end();
    else if (this.#timer === undefined) this.#arm();
    else this.#timer.refresh();
  }

  shorten(limitMs: number): void {
    this.#limitMs = Math.min(limitMs, this.#limitMs);
    this.end();
    this.#arm();
  }

  end(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #arm(): void {
    // Node takes a timer that never ends for one that ends at once.
    if (!Number.isFinite(this.#limitMs)) return;
    this.#timer = setTimeout(() => {
      this.#expiry.abort();
    }, this.#limitMs);
  }
}
