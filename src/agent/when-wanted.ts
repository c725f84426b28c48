import type { HubSession } from '../amqp/session.js';
import { aborted, anyOf } from '../signals.js';

/** Something that is wanted from some moment on, and then for good. */
export class Want {
  readonly #began = new AbortController();

  /** Aborted when it is wanted. */
  get began(): AbortSignal {
    return this.#began.signal;
  }

  begin(): void {
    this.#began.abort();
  }
}

/** Does the work of a session once it is wanted; before that it holds nothing open. Resolves when `stopping` aborts. */
export async function whenWanted(
  { began }: Want,
  { over }: Pick<HubSession, 'over'>,
  stopping: AbortSignal,
  work: () => Promise<void>,
): Promise<void> {
  {
    using until = anyOf(began, over, stopping);
    await aborted(until);
  }
  over.throwIfAborted();
  if (began.aborted) await work();
}
