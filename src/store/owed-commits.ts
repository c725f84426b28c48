import { AgentError } from '../errors.js';
import type { DurableLog } from './log/durable-log.js';
import type { Operation, PutOperation, Ref } from './log/record.js';

/** An item that goes, and what takes its place, if anything does. */
export interface Replacement {
  readonly replaces: Ref;
  readonly by?: PutOperation;
}

/** Beyond this, the disk has to recover before more is handed out. */
const mostOwed = 10_000;
const removesPerRecord = 1000;

/**
 * Commits of facts that are true whether the disk can record them or not: the hub has taken a message, or refused it.
 * What cannot be recorded now is remembered, so that the message is not handed out again, and tried again later.
 */
export class OwedCommits {
  /** Committed right now, or owed. */
  readonly #held = new Set<number>();
  #owed: Replacement[] = [];

  constructor(private readonly log: DurableLog) {}

  /** Whether the item is as good as gone. */
  has({ id }: Ref): boolean {
    return this.#held.has(id);
  }

  /** Rejects with the first failure; what failed is owed. */
  async commit(replacements: readonly Replacement[]): Promise<void> {
    for (const { replaces } of replacements) this.#held.add(replaces.id);
    await this.#write(replacements);
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
      if (this.#owed.length < mostOwed) return;
      throw new AgentError('io', `${this.#owed.length} deliveries could not be recorded`, {
        cause: error,
        hint: 'the disk has to take them before anything else is sent, else it would all be sent again',
      });
    }
  }

  async #write(replacements: readonly Replacement[]): Promise<void> {
    const results = await Promise.allSettled(
      [...records(replacements)].map(async (record) => {
        try {
          await this.log.commit(record.flatMap(operationsOf));
          for (const { replaces } of record) this.#held.delete(replaces.id);
        } catch (error) {
          this.#owed.push(...record);
          throw error;
        }
      }),
    );
    const failure = results.find((result) => result.status === 'rejected');
    if (failure) throw failure.reason;
  }
}

/** Many removals share a record; what is put has one of its own. */
function* records(replacements: readonly Replacement[]): Generator<Replacement[]> {
  const removals = replacements.filter(({ by }) => by === undefined);
  for (let i = 0; i < removals.length; i += removesPerRecord) yield removals.slice(i, i + removesPerRecord);
  for (const replacement of replacements) if (replacement.by !== undefined) yield [replacement];
}

function operationsOf({ replaces, by }: Replacement): Operation[] {
  return by === undefined ? [{ remove: replaces }] : [by, { remove: replaces }];
}
