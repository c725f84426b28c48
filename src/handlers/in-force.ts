import type { HandlerEvent } from './contract.js';
import type { Handler } from './handler.js';
import { findRoute } from './route.js';

/**
 * The handlers that take events now. They can be replaced at any moment: what runs on one goes on, and a handler that
 * was replaced is closed when its last run has ended.
 */
export class HandlersInForce implements AsyncDisposable {
  #handlers: readonly Handler[];
  readonly #runs = new Map<Handler, number>();
  readonly #closing = new Set<Promise<void>>();

  constructor(handlers: readonly Handler[]) {
    this.#handlers = handlers;
  }

  get all(): readonly Handler[] {
    return this.#handlers;
  }

  /** The one that takes the event. It may be another after any wait. */
  find(event: HandlerEvent): Handler | undefined {
    return findRoute(this.#handlers, event);
  }

  /** Of a handler that was found without a wait since. */
  runBegins(handler: Handler): void {
    this.#runs.set(handler, this.#runsOf(handler) + 1);
  }

  runEnds(handler: Handler): void {
    const left = this.#runsOf(handler) - 1;
    if (left > 0) {
      this.#runs.set(handler, left);
      return;
    }
    this.#runs.delete(handler);
    this.#closeUnlessNeeded(handler);
  }

  replace(handlers: readonly Handler[]): void {
    const former = this.#handlers;
    this.#handlers = handlers;
    for (const handler of former) this.#closeUnlessNeeded(handler);
  }

  /** Closes them all, and waits for those that were replaced. Nothing may run any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.replace([]);
    await Promise.all(this.#closing);
  }

  #runsOf(handler: Handler): number {
    return this.#runs.get(handler) ?? 0;
  }

  #closeUnlessNeeded(handler: Handler): void {
    if (this.#handlers.includes(handler) || this.#runsOf(handler) > 0) return;
    const closing = close(handler).finally(() => this.#closing.delete(closing));
    this.#closing.add(closing);
  }
}

async function close(handler: Handler): Promise<void> {
  try {
    await handler[Symbol.asyncDispose]();
  } catch {
    // Whatever it says on its way out, nobody needs it any more.
  }
}
