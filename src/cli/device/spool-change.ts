import { AgentError } from '../../errors.js';
import type { Spool } from '../../store/spool.js';
import type { Printable } from '../output.js';
import { entriesOf, type Entry, type Selection } from './spool-entries.js';
import type { SpoolView } from './spool-look.js';

export interface Change extends Selection {
  /** Wanted when no message is named: it may be a great many. */
  yes: boolean;
}

/** Sends rejected messages once more, as if they were new. */
export async function requeueMessages(view: SpoolView, change: Change): Promise<void> {
  const selection = { ...change, state: 'rejected' } as const;
  await mustBeConfirmed(
    view.store.spool,
    selection,
    change.yes,
    (what) => `this would send ${what} once more`,
  );
  const count = await inGroups(entriesOf(view.store.spool, selection), async (entries) => {
    // Asked for in their order, so that they are stored in it.
    await allDone(
      entries.map((entry) => entry.state === 'rejected' && view.store.spool.requeue(entry.letter)),
    );
  });
  await view.printer.print(countLine('requeued', count));
}

/** Throws messages away: the rejected ones, unless it says the pending. */
export async function dropMessages(view: SpoolView, change: Change): Promise<void> {
  const { spool } = view.store;
  const selection = { ...change, state: change.state ?? (change.ids.length > 0 ? undefined : 'rejected') };
  await mustBeConfirmed(spool, selection, change.yes, (what) => `this would throw away ${what} for good`);
  const count = await inGroups(entriesOf(spool, selection), async (entries) => {
    await spool.remove(entries.flatMap((entry) => (entry.state === 'pending' ? [entry.message] : [])));
    await allDone(entries.map((entry) => entry.state === 'rejected' && spool.discard(entry.letter)));
  });
  await view.printer.print(countLine('dropped', count));
}

async function mustBeConfirmed(
  spool: Spool,
  selection: Selection,
  yes: boolean,
  wouldDo: (what: string) => string,
): Promise<void> {
  // All numbers have to be there before anything is done.
  const counts = { pending: 0, rejected: 0 };
  for await (const { state } of entriesOf(spool, selection)) counts[state]++;
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

/** Waits for all, whatever becomes of them, and then for the first failure. */
async function allDone(works: readonly unknown[]): Promise<void> {
  await Promise.allSettled(works);
  await Promise.all(works);
}

function countLine(what: string, count: number): Printable {
  return {
    json: () => JSON.stringify({ [what]: count }),
    text: () => `${what} ${count} ${count === 1 ? 'message' : 'messages'}`,
  };
}
