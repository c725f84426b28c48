import { kinds } from './kinds.js';
import type { DurableLog } from './log/durable-log.js';
import type { Ref } from './log/record.js';
import { Serial } from './log/serial.js';

/** Why messages are not there any more although nobody delivered them. */
export type DropReason =
  /** Made room for newer ones (`drop_oldest`). */
  | 'oldest'
  /** Came when the spool was full (`drop_newest`). */
  | 'newest'
  | 'expired'
  /** Dead letters that made room for newer ones. */
  | 'deadLetters';

export type Drops = Readonly<Record<DropReason, { readonly count: number; readonly bytes: number }>>;

const none: Drops = {
  oldest: { count: 0, bytes: 0 },
  newest: { count: 0, bytes: 0 },
  expired: { count: 0, bytes: 0 },
  deadLetters: { count: 0, bytes: 0 },
};
/** So that a record of removals and account stays short. */
const dropsPerCommit = 1000;

/**
 * Counts what the spool has dropped since the store was made. The count changes in the same commit that removes the
 * messages, so it is exact whatever happens.
 */
export class DropAccount {
  readonly #serial = new Serial();

  private constructor(
    private readonly log: DurableLog,
    private state: { readonly drops: Drops; readonly ref: Ref | undefined },
  ) {}

  static async open(log: DurableLog): Promise<DropAccount> {
    let state: { drops: Drops; ref: Ref | undefined } = { drops: none, ref: undefined };
    for await (const { ref, value } of log.items(kinds.account)) {
      state = { drops: { ...none, ...(JSON.parse(value.toString()) as Drops) }, ref };
    }
    return new DropAccount(log, state);
  }

  get drops(): Drops {
    return this.state.drops;
  }

  /** Removes stored messages and counts them. Those that have gone meanwhile are not counted. */
  remove(reason: DropReason, refs: readonly Ref[]): Promise<void> {
    return this.#serial.run(async () => {
      for (let i = 0; i < refs.length; i += dropsPerCommit) {
        const alive = refs.slice(i, i + dropsPerCommit).filter((ref) => this.log.isAlive(ref));
        if (alive.length > 0) await this.#count(reason, alive.length, sumOf(alive), alive);
      }
    });
  }

  /** Counts messages that were never stored. */
  count(reason: DropReason, count: number, bytes: number): Promise<void> {
    return this.#serial.run(() => this.#count(reason, count, bytes, []));
  }

  async #count(reason: DropReason, count: number, bytes: number, refs: readonly Ref[]): Promise<void> {
    const before = this.state.drops[reason];
    const drops = {
      ...this.state.drops,
      [reason]: { count: before.count + count, bytes: before.bytes + bytes },
    };
    const put = { kind: kinds.account, value: [Buffer.from(JSON.stringify(drops))] };
    const old = this.state.ref ? [{ remove: this.state.ref }] : [];
    const removes = refs.map((ref) => ({ remove: ref }));
    const [ref] = await this.log.commit([{ put }, ...old, ...removes], { essential: true });
    this.state = { drops, ref };
  }
}

function sumOf(refs: readonly Ref[]): number {
  return refs.reduce((sum, { bytes }) => sum + bytes, 0);
}
