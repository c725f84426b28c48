import { systemClock } from '../../clock.js';
import { AgentError } from '../../errors.js';
import { AgeClock } from '../../store/age.js';
import type { DeadLetter } from '../../store/dead-letter.js';
import type { Spool } from '../../store/spool.js';
import type { SpooledMessage } from '../../store/spooled-message.js';
import { formatSize } from '../../units.js';
import { visible } from '../../visible.js';
import { jsonOnOneLine } from '../json-text.js';
import { columns, type Printable } from '../output.js';

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

/** One line of `spool list`. */
export function entryLine(entry: Entry): Printable {
  const { message } = entry;
  const why = entry.state === 'rejected' ? refusal(entry.letter) : '';
  return {
    json: () => jsonOnOneLine(JSON.stringify(entryFacts(entry))),
    text: ({ columns: limit, time }) =>
      columns(
        [
          String(message.ref.id),
          entry.state,
          time(message.storedAt.wallMs),
          formatSize(message.encoded.length).padStart(8),
          visible(message.messageId),
          visible(why),
        ],
        [6, 8, 23, 8, 26],
        limit,
      ),
  };
}

/** What is known of a message without looking into it. */
export function entryFacts(entry: Entry): object {
  const { ref, messageId, deviceId, moduleId, priority, storedAt, encoded } = entry.message;
  const facts = { id: ref.id, state: entry.state, messageId, deviceId, moduleId, priority };
  const about = { ...facts, bytes: encoded.length, queuedAt: isoTime(storedAt.wallMs) };
  if (entry.state === 'pending') return about;
  const { condition, description, setAsideAt } = entry.letter;
  return { ...about, rejectedAt: isoTime(setAsideAt.wallMs), condition, error: description };
}

/** Why the hub refused a message, for people. */
export function refusal({ condition, description }: DeadLetter): string {
  return [condition, description].filter((part) => part !== undefined).join(': ');
}

function isoTime(ms: number): string {
  return new Date(ms).toISOString();
}
