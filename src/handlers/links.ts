/**
 * Waits that are pointless when a link is gone, whose signal is aborted then. However many wait there is one listener
 * for each link: an EventTarget goes through all that it has whenever one comes or goes.
 */
export class Links {
  readonly #links = new Map<AbortSignal, Link>();

  /** What the promise resolves to, or `ifGone` when the link is gone before. */
  unlessGone<T>(signal: AbortSignal, promise: Promise<T>, ifGone: T): Promise<T> {
    if (signal.aborted) return Promise.resolve(ifGone);
    return new Promise((resolve, reject) => {
      const onGone = (): void => {
        resolve(ifGone);
      };
      const link = this.#enter(signal, onGone);
      promise.then(
        (value) => {
          this.#leave(link, onGone);
          resolve(value);
        },
        (error: unknown) => {
          this.#leave(link, onGone);
          // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- passed on as it is
          reject(error);
        },
      );
    });
  }

  #enter(signal: AbortSignal, onGone: () => void): Link {
    const link = this.#links.get(signal) ?? this.#listen(signal);
    link.waiting.add(onGone);
    return link;
  }

  #listen(signal: AbortSignal): Link {
    const waiting = new Set<() => void>();
    const onAbort = (): void => {
      for (const onGone of waiting) onGone();
    };
    signal.addEventListener('abort', onAbort);
    const link = { signal, waiting, onAbort };
    this.#links.set(signal, link);
    return link;
  }

  #leave({ signal, waiting, onAbort }: Link, onGone: () => void): void {
    waiting.delete(onGone);
    if (waiting.size > 0) return;
    signal.removeEventListener('abort', onAbort);
    this.#links.delete(signal);
  }
}

interface Link {
  readonly signal: AbortSignal;
  readonly waiting: Set<() => void>;
  readonly onAbort: () => void;
}
