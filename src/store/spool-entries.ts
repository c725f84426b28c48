import { systemClock } from '../clock.js';
import { AgentError } from '../errors.js';
import { AgeClock } from './age.js';
import type { DeadLetter } from './dead-letter.js';
import type { Spool } from './spool.js';
import type { SpooledMessage } from './spooled-message.js';

/** `pending` waits for the hub; `rejected` is what the hub refused for good. */
export const entryStates = ['pending', 'rejected'] as const;
export type EntryState = (typeof entryStates)[number];

/** A message in the spool. */
export type Entry =
  | { readonly state: 'pending'; readonly message: SpooledMessage }
  | { readonly state: 'rejected'; readonly message: SpooledMessage; readonly letter: DeadLetter };

export interface Selection {
  /** Numbers of messages; none: all. */
  readonly ids: readonly number[];
  /** Default: both. */
  readonly state?: EntryState | undefined;
  /** Only what was queued so long ago, milliseconds. */
  readonly olderThan?: number | undefined;
}

/**
 * The messages that are meant: those with the numbers, in the order of the numbers, or all, as they will be sent and
 * then the rejected ones, oldest first. Errors: `no-input` for a number that no message has.
 */
export async function* entriesOf(spool: Spool, { ids, state, olderThan }: Selection): AsyncGenerator<Entry> {
  const age = new AgeClock(systemClock);
  const isMeant = (entry: Entry): boolean =>
    (state === undefined || entry.state === state) &&
    (olderThan === undefined || age.ageMs(entry.message.storedAt) > olderThan);
  for await (const entry of ids.length > 0 ? withIds(spool, ids, state) : all(spool)) {
    if (isMeant(entry)) yield entry;
  }
}

async function* withIds(
  spool: Spool,
  ids: readonly number[],
  state: EntryState | undefined,
): AsyncGenerator<Entry> {
  for (const id of new Set(ids)) {
    const found = await spool.find(id);
    const entry = found && ('message' in found ? rejected(found) : pending(found));
    if (entry === undefined || (state !== undefined && entry.state !== state)) {
      const which = state === undefined ? '' : `${state} `;
      throw new AgentError('no-input', `the spool has no ${which}message ${id}`, {
        hint: 'iothub-device spool list shows what it has',
      });
    }
    yield entry;
  }
}

async function* all(spool: Spool): AsyncGenerator<Entry> {
  for await (const message of spool.waiting()) yield pending(message);
  for await (const letter of spool.deadLetters()) yield rejected(letter);
}

function pending(message: SpooledMessage): Entry {
  return { state: 'pending', message };
}

function rejected(letter: DeadLetter): Entry {
  return { state: 'rejected', message: letter.message, letter };
}
