import type { DeadLetter } from '../../store/dead-letter.js';
import type { Entry } from '../../store/spool-entries.js';
import { formatSize } from '../../units.js';
import { visible } from '../../visible.js';
import { jsonOnOneLine } from '../json-text.js';
import { columns, type Printable } from '../output.js';

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
