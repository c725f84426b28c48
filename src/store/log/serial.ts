/** Runs one piece of work after the other, in the order they were asked for. */
export class Serial {
  #last: Promise<unknown> = Promise.resolve();
  #unfinished = 0;

  /** Whether nothing runs and nothing waits. */
  get isIdle(): boolean {
    return this.#unfinished === 0;
  }

  run<T>(work: () => Promise<T>): Promise<T> {
    this.#unfinished++;
    const result = this.#last.then(work);
    const finished = (): void => {
      this.#unfinished--;
    };
    this.#last = result.then(finished, finished);
    return result;
  }
}
