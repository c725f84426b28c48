/**
 * Many wait for the same promise, as for a write to the disk that they share: one reaction to it goes on with all of
 * them. A reaction each would cost more than all the rest that is done for a command.
 */
export class SharedWait<T> {
  #promise: Promise<unknown> | undefined;
  #waiting: T[] = [];

  constructor(
    private readonly goOn: (waiting: T) => void,
    private readonly fail: (waiting: T, error: unknown) => void,
  ) {}

  wait(promise: Promise<unknown>, waiting: T): void {
    if (promise === this.#promise) this.#waiting.push(waiting);
    else this.#listen(promise, [waiting]);
  }

  #listen(promise: Promise<unknown>, all: T[]): void {
    this.#promise = promise;
    this.#waiting = all;
    const isOver = (): void => {
      if (promise === this.#promise) this.#promise = undefined;
    };
    promise.then(
      () => {
        isOver();
        for (const waiting of all) this.#goOn(waiting);
      },
      (error: unknown) => {
        isOver();
        for (const waiting of all) this.fail(waiting, error);
      },
    );
  }

  /** What goes wrong with one is no matter of the others. */
  #goOn(waiting: T): void {
    try {
      this.goOn(waiting);
    } catch (error) {
      this.fail(waiting, error);
    }
  }
}
