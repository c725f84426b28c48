import { join } from 'node:path';

import { decodeTelemetry } from '../../amqp/messages.js';
import { AgentError } from '../../errors.js';
import type { Drops } from '../../store/drop-account.js';
import type { Entry, Selection } from '../../store/spool-entries.js';
import type { Store } from '../../store/store.js';
import { formatDuration, formatSize } from '../../units.js';
import { visible } from '../../visible.js';
import { exitCodeFor, exitCodes } from '../exit-codes.js';
import type { Io } from '../io.js';
import { jsonOnOneLine } from '../json-text.js';
import { bodyForPeople, messageLine } from '../output-message.js';
import { table, type Printable, type Printer, type TextLook } from '../output.js';
import type { SpoolAccess } from './spool-access.js';
import { entryFacts, entryLine, refusal } from './spool-entries.js';

/** What all of these look at, and where they print. */
export interface SpoolView {
  io: Io;
  spool: SpoolAccess;
  printer: Printer;
}

/** How much is in the spool, how old it is, and what was dropped. */
export async function printStats({ spool, printer }: SpoolView): Promise<void> {
  const { waiting, deadLetters, dropped, oldestAgeMs, ...place } = await spool.facts();
  const { directory, limitBytes, segments, diskBytes } = place;
  const facts = { directory, pending: waiting, oldestAgeMs, rejected: deadLetters, dropped, limitBytes };
  const oldest =
    oldestAgeMs === undefined ? '' : `, the oldest for ${formatDuration(toSeconds(oldestAgeMs))}`;
  await printer.print({
    json: () => JSON.stringify({ ...facts, segments, diskBytes }),
    text: () =>
      table([
        ['directory', visible(directory)],
        [
          'pending',
          `${messages(waiting.count)}, ${formatSize(waiting.bytes)} of ${formatSize(limitBytes)}${oldest}`,
        ],
        ['rejected', `${messages(deadLetters.count)}, ${formatSize(deadLetters.bytes)}`],
        ['dropped', dropsForPeople(dropped)],
        ['disk', formatSize(diskBytes)],
      ]),
  });
}

/** A line for each message. */
export async function printList({ io, spool, printer }: SpoolView, selection: Selection): Promise<void> {
  for await (const entry of spool.entries(selection)) {
    await printer.print(entryLine(entry));
    if (io.stdout.readerGone.aborted) return;
  }
}

/** Messages as a whole, with what is in them. */
export async function printMessages({ spool, printer }: SpoolView, ids: readonly number[]): Promise<void> {
  let isFirst = true;
  for await (const entry of spool.entries({ ids })) {
    const page = messagePage(entry);
    const gap = isFirst ? '' : '\n';
    await printer.print({ json: page.json, text: (look) => gap + page.text(look) });
    isFirst = false;
  }
}

/**
 * Lines that `send --ndjson` takes: the same messages, byte for byte. One that cannot be read is said and left out.
 * Returns the exit code.
 */
export async function exportMessages({ io, spool }: SpoolView, selection: Selection): Promise<number> {
  let exitCode: number = exitCodes.ok;
  for await (const entry of spool.entries(selection)) {
    try {
      await io.stdout.write(`${exportLine(entry)}\n`);
    } catch (error) {
      if (!(error instanceof AgentError) || error.code !== 'data') throw error;
      await io.stderr.write(`warning: message ${entry.message.ref.id}: ${visible(error.message)}\n`);
      exitCode = exitCodeFor('data');
    }
    if (io.stdout.readerGone.aborted) break;
  }
  return exitCode;
}

/** Reads everything. Returns the exit code: `io` when something was damaged. */
export async function verifyStore(store: Store, directory: string, printer: Printer): Promise<number> {
  const { items } = await store.verify();
  // Also what was found when the store was opened.
  const { regions, bytes } = store.stats().damage;
  const keptIn = regions === 0 ? undefined : join(directory, 'damaged');
  await printer.print({
    json: () => JSON.stringify({ items, damaged: regions, damagedBytes: bytes, keptIn }),
    text: () =>
      keptIn === undefined
        ? `sound: ${items} items`
        : `damaged: ${formatSize(bytes)} in ${regions} places, kept in ${visible(keptIn)}; ${items} items are sound`,
  });
  return regions === 0 ? exitCodes.ok : exitCodeFor('io');
}

function exportLine(entry: Entry): string {
  const message = decodeTelemetry(entry.message.encoded);
  if (entry.state === 'pending') return messageLine(message, { exact: true }).json();
  const { condition, description } = entry.letter;
  return messageLine({ ...message, hub: { condition, error: description } }, { exact: true }).json();
}

function messagePage(entry: Entry): Printable {
  return {
    json: () => {
      const facts = JSON.stringify(entryFacts(entry));
      const message = messageLine(decodeTelemetry(entry.message.encoded), { exact: true }).json();
      return jsonOnOneLine(`${facts.slice(0, -1)},"message":${message}}`);
    },
    text: (look) => pageText(entry, look),
  };
}

function pageText(entry: Entry, { time }: TextLook): string {
  const { ref, deviceId, moduleId, storedAt, encoded } = entry.message;
  const message = decodeTelemetry(encoded);
  const at = entry.state === 'rejected' ? time(entry.letter.setAsideAt.wallMs) : '';
  const rows: [string, string | undefined][] = [
    ['number', String(ref.id)],
    ['state', entry.state],
    ['device', moduleId === undefined ? deviceId : `${deviceId}/${moduleId}`],
    ['queued', time(storedAt.wallMs)],
    ['rejected', entry.state === 'rejected' ? `${at} ${refusal(entry.letter)}` : undefined],
    ['message id', message.messageId],
    ['correlation id', message.correlationId],
    ['user id', message.userId],
    [
      'content',
      [message.contentType, message.contentEncoding].filter((part) => part !== undefined).join('; '),
    ],
    ['created', message.creationTime],
    ['expires', message.expiresAt === undefined ? undefined : time(message.expiresAt)],
    ['component', message.component],
    ['output', message.outputName],
    ...Object.entries(message.properties).map(([name, value]): [string, string] => [
      'property',
      `${name}=${value}`,
    ]),
    ['size', formatSize(encoded.length)],
    ['body', bodyForPeople(message.body)],
  ];
  return table(rows.filter((row): row is [string, string] => row[1] !== undefined && row[1] !== ''));
}

const dropNames: Record<keyof Drops, string> = {
  oldest: 'as the oldest',
  newest: 'as the newest',
  expired: 'too old',
  deadLetters: 'rejected before',
};

function dropsForPeople(drops: Drops): string {
  const parts = Object.entries(dropNames).flatMap(([reason, name]) => {
    const { count } = drops[reason as keyof Drops];
    return count === 0 ? [] : [`${count} ${name}`];
  });
  return parts.join(', ') || 'none';
}

function messages(count: number): string {
  return count === 1 ? '1 message' : `${count} messages`;
}

function toSeconds(ms: number): number {
  return Math.round(ms / 1000) * 1000;
}
