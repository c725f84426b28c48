/**
 * A lane is what must happen one after the other. `enter` resolves when everything that entered the lane before has
 * left; leaving is disposing of what it resolves to.
 */
export class Lanes {
  readonly #tails = new Map<string, Promise<void>>();

  async enter(lane: string): Promise<Disposable> {
    const before = this.#tails.get(lane);
    const { promise: left, resolve: leave } = openPromise();
    const tail = (before ?? Promise.resolve()).then(() => left);
    this.#tails.set(lane, tail);
    await before;
    return {
      [Symbol.dispose]: () => {
        if (this.#tails.get(lane) === tail) this.#tails.delete(lane);
        leave();
      },
    };
  }
}

/** So many at once; who comes later waits, first come first served. */
export class Limit {
  #room: number;
  readonly #waiting: (() => void)[] = [];

  constructor(room: number) {
    this.#room = room;
  }

  async enter(): Promise<Disposable> {
    if (this.#room > 0) {
      this.#room--;
    } else {
      const { promise: called, resolve: call } = openPromise();
      this.#waiting.push(call);
      await called;
    }
    return {
      [Symbol.dispose]: () => {
        const next = this.#waiting.shift();
        if (next === undefined) this.#room++;
        else next();
      },
    };
  }
}

/** Counts what is in hand, and tells when that changes. */
export class Slots {
  readonly total: number;
  readonly #listeners = new Set<(free: number) => void>();
  #taken = 0;
  #closed = false;

  constructor(total: number) {
    this.total = total;
  }

  get free(): number {
    return this.#closed ? 0 : Math.max(0, this.total - this.#taken);
  }

  take(): Disposable {
    let held = true;
    this.#taken++;
    this.#tell();
    return {
      [Symbol.dispose]: () => {
        if (!held) return;
        held = false;
        this.#taken--;
        this.#tell();
      },
    };
  }

  /** From now on none is free. */
  close(): void {
    this.#closed = true;
    this.#tell();
  }

  onChange(listener: (free: number) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  #tell(): void {
    for (const listener of this.#listeners) listener(this.free);
  }
}

function openPromise(): { promise: Promise<void>; resolve: () => void } {
  let resolve: () => void = () => undefined;
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}
