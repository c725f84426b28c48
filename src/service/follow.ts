import { anyOf } from '../signals.js';
import { openServiceClient, type ServiceClient, type ServiceOptions } from './client.js';
import { Reconnection } from './reconnection.js';

/** What a receiver of the service side gets, over lost connections: `open` attaches it anew on each. */
export async function* follow<T>(
  hub: ServiceOptions,
  open: (client: ServiceClient, onItem: (item: T) => void, signal: AbortSignal) => Promise<void>,
  signal: AbortSignal,
  onOnline: () => void = () => undefined,
): AsyncGenerator<T, never, undefined> {
  const reconnection = new Reconnection('the hub');
  for (;;) {
    let online = false;
    try {
      await using client = await openServiceClient(hub, signal);
      using until = anyOf(signal, client.over);
      const arrived = new Arrivals<T>();
      await open(
        client,
        (item) => {
          arrived.add(item);
        },
        until,
      );
      online = true;
      if (!reconnection.wasOnline) onOnline();
      for (;;) yield await arrived.next(until);
    } catch (thrown) {
      await reconnection.pause({ thrown, online }, hub, signal);
    }
  }
}

/** Things in the order in which they came. */
class Arrivals<T> {
  readonly #items: T[] = [];
  #wake: () => void = () => undefined;

  add(item: T): void {
    this.#items.push(item);
    this.#wake();
  }

  async next(signal: AbortSignal): Promise<T> {
    for (;;) {
      signal.throwIfAborted();
      const item = this.#items.shift();
      if (item !== undefined) return item;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        signal.addEventListener('abort', this.#wake, { once: true });
      });
      signal.removeEventListener('abort', this.#wake);
    }
  }
}
