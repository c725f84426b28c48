/**
 * A lane is what must happen one after the other. `enter` returns when everything that entered the lane before has
 * left; leaving is disposing of what it returns. What has no lane waits for nobody.
 */
export class Lanes {
  /** Who waits behind the one that is in a lane. */
  readonly #waiting = new Map<string, Waiting>();

  enter(lane: string | undefined): Disposable | Promise<Disposable> {
    if (lane === undefined) return nothingHeld;
    const turn = {
      [Symbol.dispose]: () => {
        this.#leave(lane);
      },
    };
    const waiting = this.#waiting.get(lane);
    if (waiting !== undefined) return waiting.behind(turn);
    this.#waiting.set(lane, new Waiting());
    return turn;
  }

  #leave(lane: string): void {
    if (!this.#waiting.get(lane)?.callNext()) this.#waiting.delete(lane);
  }
}

/** So many at once; who comes later waits, first come first served. */
export class Limit implements Disposable {
  #room: number;
  readonly #waiting = new Waiting();

  constructor(room: number) {
    this.#room = room;
  }

  /** Returns a place, to be disposed of once. */
  enter(): Disposable | Promise<Disposable> {
    if (this.#room === 0) return this.#waiting.behind(this);
    this.#room--;
    return this;
  }

  [Symbol.dispose](): void {
    if (!this.#waiting.callNext()) this.#room++;
  }
}

/** Counts what is in hand, and tells when that changes. */
export class Slots {
  readonly total: number;
  #listeners: readonly ((free: number) => void)[] = [];
  #taken = 0;
  #closed = false;

  constructor(total: number) {
    this.total = total;
  }

  get free(): number {
    return this.#closed ? 0 : Math.max(0, this.total - this.#taken);
  }

  take(): void {
    this.#taken++;
    this.#tell();
  }

  giveBack(): void {
    this.#taken--;
    this.#tell();
  }

  /** From now on none is free. */
  close(): void {
    this.#closed = true;
    this.#tell();
  }

  onChange(listener: (free: number) => void): Disposable {
    this.#listeners = [...this.#listeners, listener];
    const stop = (): void => {
      this.#listeners = this.#listeners.filter((other) => other !== listener);
    };
    return { [Symbol.dispose]: stop };
  }

  #tell(): void {
    for (const listener of this.#listeners) listener(this.free);
  }
}

/** First come, first served. */
class Waiting {
  readonly #calls: (() => void)[] = [];

  /** Resolves to what is waited for when it is called. */
  behind<T>(place: T): Promise<T> {
    return new Promise((resolve) => {
      this.#calls.push(() => {
        resolve(place);
      });
    });
  }

  /** False when nobody waits. */
  callNext(): boolean {
    const call = this.#calls.shift();
    call?.();
    return call !== undefined;
  }
}

const nothingHeld: Disposable = {
  [Symbol.dispose]: () => undefined,
};
