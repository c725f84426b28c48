import { AgentError } from '../../errors.js';
import type { Entry, Selection } from '../../store/spool-entries.js';
import type { Printable } from '../output.js';
import type { SpoolAccess } from './spool-access.js';
import type { SpoolView } from './spool-look.js';

export interface Change extends Selection {
  /** Wanted when no message is named: it may be a great many. */
  yes: boolean;
}

/** Sends rejected messages once more, as if they were new. */
export async function requeueMessages(view: SpoolView, change: Change): Promise<void> {
  const selection = { ...change, state: 'rejected' } as const;
  await mustBeConfirmed(view.spool, selection, change.yes, (what) => `this would send ${what} once more`);
  const count = await inGroups(view.spool.entries(selection), (entries) => view.spool.requeue(entries));
  await view.printer.print(countLine('requeued', count));
}

/** Throws messages away: the rejected ones, unless it says the pending. */
export async function dropMessages(view: SpoolView, change: Change): Promise<void> {
  const { spool } = view;
  const selection = { ...change, state: change.state ?? (change.ids.length > 0 ? undefined : 'rejected') };
  await mustBeConfirmed(spool, selection, change.yes, (what) => `this would throw away ${what} for good`);
  const count = await inGroups(spool.entries(selection), (entries) => spool.drop(entries));
  await view.printer.print(countLine('dropped', count));
}

async function mustBeConfirmed(
  spool: SpoolAccess,
  selection: Selection,
  yes: boolean,
  wouldDo: (what: string) => string,
): Promise<void> {
  // All numbers have to be there before anything is done.
  const counts = { pending: 0, rejected: 0 };
  for await (const { state } of spool.entries(selection)) counts[state]++;
  if (yes || selection.ids.length > 0) return;
  const { state = 'rejected' } = selection;
  if (counts[state] === 0) return;
  const noun = counts[state] === 1 ? 'message' : 'messages';
  throw new AgentError('usage', wouldDo(`${counts[state]} ${state} ${noun}`), {
    hint: 'add --yes if that is meant, or name messages by their numbers',
  });
}

const groupCount = 500;

/** Hands the entries on in groups, which share the writes of the disk; returns how many there were. */
async function inGroups(
  entries: AsyncIterable<Entry>,
  work: (entries: readonly Entry[]) => Promise<void>,
): Promise<number> {
  let count = 0;
  let group: Entry[] = [];
  for await (const entry of entries) {
    group.push(entry);
    count++;
    if (group.length < groupCount) continue;
    await work(group);
    group = [];
  }
  if (group.length > 0) await work(group);
  return count;
}

function countLine(what: string, count: number): Printable {
  return {
    json: () => JSON.stringify({ [what]: count }),
    text: () => `${what} ${count} ${count === 1 ? 'message' : 'messages'}`,
  };
}
