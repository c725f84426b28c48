import { AgentError } from '../../errors.js';
import type { InboxEntry } from '../../store/inbox.js';
import { formatDuration, formatSize } from '../../units.js';
import { visible } from '../../visible.js';
import type { Io } from '../io.js';
import { jsonOnOneLine } from '../json-text.js';
import { bodyForPeople, messageLine } from '../output-message.js';
import { columns, table, type Printable, type Printer, type TextLook } from '../output.js';
import type { InboxAccess } from './inbox-access.js';

/** What all of these look at, and where they print. */
export interface InboxView {
  io: Io;
  inbox: InboxAccess;
  printer: Printer;
}

export interface Selection {
  /** Numbers of commands; none: all. */
  readonly ids: readonly number[];
  /** Default: both. */
  readonly state?: 'waiting' | 'dead' | undefined;
  /** Name of the handler that took them. */
  readonly handler?: string | undefined;
  /** Only what was taken so long ago, milliseconds. */
  readonly olderThan?: number | undefined;
}

/** A line for each command, the oldest first. */
export async function printList({ io, inbox, printer }: InboxView, selection: Selection): Promise<void> {
  for (const entry of await select(inbox, selection)) {
    await printer.print(entryLine(entry));
    if (io.stdout.readerGone.aborted) return;
  }
}

/** Commands as a whole, with what is in them. */
export async function printCommands({ inbox, printer }: InboxView, ids: readonly number[]): Promise<void> {
  let isFirst = true;
  for (const entry of await select(inbox, { ids })) {
    const page = commandPage(entry, await inbox.body(entry.id));
    const gap = isFirst ? '' : '\n';
    await printer.print({ json: page.json, text: (look) => gap + page.text(look) });
    isFirst = false;
  }
}

/** Tries commands once more, or throws them away. `yes` is wanted when none is named: it may be a great many. */
export async function changeCommands(
  { inbox, printer }: InboxView,
  what: 'retry' | 'drop',
  { yes, ...selection }: Selection & { yes: boolean },
): Promise<void> {
  const { ids } = selection;
  const state = selection.state ?? (ids.length > 0 ? undefined : 'dead');
  const entries = await select(inbox, { ...selection, state });
  const commands = `${entries.length} ${entries.length === 1 ? 'command' : 'commands'}`;
  if (entries.length > 0 && ids.length === 0 && !yes) {
    const would = what === 'retry' ? `would run ${commands} again` : `would throw away ${commands} for good`;
    throw new AgentError('usage', `this ${would}`, {
      hint: 'add --yes if that is meant, or name commands by their numbers',
    });
  }
  await inbox.change(
    what,
    entries.map(({ id }) => id),
  );
  const done = what === 'retry' ? 'retried' : 'dropped';
  await printer.print({
    json: () => JSON.stringify({ [done]: entries.length }),
    text: () => (what === 'retry' ? `${commands} will run again` : `dropped ${commands}`),
  });
}

/** Errors: `no-input` for a number that no command has. */
async function select(
  inbox: InboxAccess,
  { ids, state, handler, olderThan }: Selection,
): Promise<InboxEntry[]> {
  const entries = new Map((await inbox.entries()).map((entry) => [entry.id, entry]));
  const named =
    ids.length === 0 ? [...entries.values()] : [...new Set(ids)].map((id) => entryOf(entries, id));
  return named.filter(
    (entry) =>
      (state === undefined || (entry.state === 'dead') === (state === 'dead')) &&
      (handler === undefined || entry.handler === handler) &&
      (olderThan === undefined || entry.ageMs > olderThan),
  );
}

function entryOf(entries: ReadonlyMap<number, InboxEntry>, id: number): InboxEntry {
  const entry = entries.get(id);
  if (entry !== undefined) return entry;
  throw new AgentError('no-input', `the inbox has no command ${id}`, {
    hint: 'iothub-device inbox list shows what it has',
  });
}

function entryLine(entry: InboxEntry): Printable {
  return {
    json: () => jsonOnOneLine(JSON.stringify(entryFacts(entry))),
    text: ({ columns: limit, time }) =>
      columns(
        [
          String(entry.id),
          entry.state,
          time(entry.takenAt),
          visible(entry.handler),
          visible(entry.command.messageId ?? '-'),
          `${entry.attempts}×`,
          visible(entry.reason ?? ''),
        ],
        [6, 7, 23, 12, 26, 3],
        limit,
      ),
  };
}

/** What is known of a command without its body. */
function entryFacts(entry: InboxEntry): object {
  const { id, state, handler, command, attempts, failures, reason, takenAt, dueInMs, bodyBytes } = entry;
  return {
    number: id,
    state,
    handler,
    messageId: command.messageId,
    deviceId: command.deviceId,
    moduleId: command.moduleId,
    takenAt: new Date(takenAt).toISOString(),
    attempts,
    failures,
    reason,
    dueInMs: Number.isFinite(dueInMs) ? Math.round(dueInMs) : undefined,
    bytes: bodyBytes,
  };
}

function commandPage(entry: InboxEntry, body: Buffer): Printable {
  const { deviceId, moduleId, enqueuedAt, sequenceNumber, deliveryCount, ack, ...fields } = entry.command;
  return {
    json: () => {
      const facts = JSON.stringify(entryFacts(entry));
      const hub = { deviceId, moduleId, enqueuedAt, sequenceNumber, deliveryCount, ack };
      const command = messageLine({ ...fields, body, hub }, { exact: true }).json();
      return jsonOnOneLine(`${facts.slice(0, -1)},"command":${command}}`);
    },
    text: (look) => pageText(entry, body, look),
  };
}

function pageText(entry: InboxEntry, body: Buffer, { time }: TextLook): string {
  const { command, state, dueInMs } = entry;
  const { deviceId, moduleId, contentType, contentEncoding, enqueuedAt, expiresAt } = command;
  const dueSeconds = Math.ceil(dueInMs / 1000);
  const due = state === 'waiting' && dueSeconds > 0 ? `, again in ${formatDuration(dueSeconds * 1000)}` : '';
  const rows: [string, string | undefined][] = [
    ['number', String(entry.id)],
    ['state', state + due],
    ['why', entry.reason],
    ['handler', entry.handler],
    ['attempts', `${entry.attempts}, of which ${entry.failures} failed`],
    ['taken', time(entry.takenAt)],
    ['device', moduleId === undefined ? deviceId : `${deviceId}/${moduleId}`],
    ['message id', command.messageId],
    ['correlation id', command.correlationId],
    ['user id', command.userId],
    ['content', [contentType, contentEncoding].filter((part) => part !== undefined).join('; ')],
    ['enqueued', enqueuedAt === undefined ? undefined : time(enqueuedAt)],
    ['expires', expiresAt === undefined ? undefined : time(expiresAt)],
    ...Object.entries(command.properties).map(([name, value]): [string, string] => [
      'property',
      `${name}=${value}`,
    ]),
    ['size', formatSize(body.length)],
    ['body', bodyForPeople(body)],
  ];
  return table(rows.filter((row): row is [string, string] => row[1] !== undefined && row[1] !== ''));
}
