import { AgentError } from '../errors.js';
import { IdSet } from './id-set.js';
import type { DurableLog } from './log/durable-log.js';
import type { Operation } from './log/record.js';

/** Beyond this, the disk has to recover before more is handed out. */
const mostOwed = 10_000;

/**
 * Commits of facts that are true whether the disk can record them or not: the hub has taken a message, or refused it.
 * What cannot be recorded now is remembered, so that the message is not handed out again, and tried again later.
 */
export class OwedCommits {
  /** Removed right now, or to be. */
  readonly #held = new IdSet();
  #owed: (readonly Operation[])[] = [];

  constructor(private readonly log: DurableLog) {}

  /** Whether the item is as good as gone. */
  has({ id }: { readonly id: number }): boolean {
    return this.#held.has(id);
  }

  /** Commits each record as a whole. Rejects with the first failure; what failed is owed. */
  async commit(records: readonly (readonly Operation[])[]): Promise<void> {
    for (const record of records) {
      for (const operation of record) if ('remove' in operation) this.#held.add(operation.remove.id);
    }
    await this.#write(records);
    await this.settle();
  }

  /** Tries again what is owed. Throws only when it is too much to go on. */
  async settle(): Promise<void> {
    if (this.#owed.length === 0) return;
    const owed = this.#owed;
    this.#owed = [];
    try {
      await this.#write(owed);
    } catch (error) {
      const count = this.#owed.reduce((sum, record) => sum + record.length, 0);
      if (count < mostOwed) return;
      throw new AgentError('io', `${count} deliveries could not be recorded`, {
        cause: error,
        hint: 'the disk has to take them before anything else is sent, else it would all be sent again',
      });
    }
  }

  async #write(records: readonly (readonly Operation[])[]): Promise<void> {
    const results = await Promise.allSettled(records.map((record) => this.#writeOne(record)));
    const failure = results.find((result) => result.status === 'rejected');
    if (failure) throw failure.reason;
  }

  async #writeOne(record: readonly Operation[]): Promise<void> {
    try {
      await this.log.commit(record);
    } catch (error) {
      this.#owed.push(record);
      throw error;
    }
    for (const operation of record) if ('remove' in operation) this.#held.delete(operation.remove.id);
  }
}
