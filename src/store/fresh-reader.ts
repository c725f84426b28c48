import { kinds, priorities, type Priority } from './kinds.js';
import type { DurableLog } from './log/durable-log.js';
import type { ReadLimit } from './log/reader.js';
import type { Put, Ref } from './log/record.js';
import { decodeMessage, freshMessage, kindOf, type SpooledMessage } from './spooled-message.js';

/** What is kept at most, in bytes on disk. With more, the reader has fallen behind, and reads from the disk again. */
const mostBytes = 2 * 1024 * 1024;

/** What was stored in one priority since somebody had read all that there was. */
interface Lane {
  readonly priority: Priority;
  readonly messages: SpooledMessage[];
  bytes: number;
  /** Whatever waits and has an id above this one is in here; unknown until the disk has said that there is no more. */
  since: number | undefined;
}

/**
 * Reads messages, and keeps those that were stored a moment ago, so that a reader who keeps up need not have them read
 * back from the disk. While nobody reads, or while a backlog is read, nothing is kept.
 */
export class FreshReader {
  readonly #lanes = new Map<Priority, Lane>();

  constructor(private readonly log: DurableLog) {
    log.onStored((ref, put) => {
      this.#keep(ref, put);
    });
  }

  /** What comes after `after`, oldest first; none when there is no more. Errors: `io`. */
  async read(priority: Priority, after: number, limit: ReadLimit): Promise<SpooledMessage[]> {
    const lane = this.#lanes.get(priority);
    if (lane?.since !== undefined && after >= lane.since) return this.#take(lane, after, limit);
    // Begun before the disk is asked: what it does not know of yet is kept.
    const begun: Lane = { priority, messages: [], bytes: 0, since: undefined };
    this.#lanes.set(priority, begun);
    let isEnd = false;
    try {
      const items = await this.log.read(kindOf(priority), after, limit);
      isEnd = items.length === 0;
      return items.map(({ ref, value }) => decodeMessage(ref, value));
    } finally {
      if (isEnd) begun.since = after;
      else if (this.#lanes.get(priority) === begun) this.#lanes.delete(priority);
    }
  }

  #keep(ref: Ref, { kind, value }: Put): void {
    const priority = priorities[kind - kinds.telemetry];
    const lane = priority === undefined ? undefined : this.#lanes.get(priority);
    if (!lane) return;
    lane.messages.push(freshMessage(ref, value));
    lane.bytes += ref.bytes;
    if (lane.bytes > mostBytes) this.#lanes.delete(lane.priority);
  }

  /** They are not kept any longer. */
  #take(lane: Lane, after: number, { count, bytes }: ReadLimit): SpooledMessage[] {
    const taken: SpooledMessage[] = [];
    let end = 0;
    let bytesLeft = bytes;
    for (const message of lane.messages) {
      if (taken.length >= count || bytesLeft <= 0) break;
      const { ref } = message;
      end++;
      lane.bytes -= ref.bytes;
      if (ref.id <= after) continue;
      taken.push(message);
      bytesLeft -= ref.bytes;
      lane.since = ref.id;
    }
    lane.messages.splice(0, end);
    return taken;
  }
}
