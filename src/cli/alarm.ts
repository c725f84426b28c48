/** Says "enough" when its time is over. */
export class Alarm {
  #timer: NodeJS.Timeout | undefined;

  constructor(
    readonly afterMs: number | undefined,
    readonly enough: AbortController,
  ) {}

  restart(): void {
    this.stop();
    if (this.afterMs === undefined) return;
    this.#timer = setTimeout(() => {
      this.enough.abort();
    }, this.afterMs);
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}
