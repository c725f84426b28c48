import type { InboxLine, InboxPage } from '../../daemon/control-inbox.js';
import type { Log } from '../../log.js';
import type { InboxEntry } from '../../store/inbox.js';
import type { Store } from '../../store/store.js';
import type { Io } from '../io.js';
import { askFor } from './agent-client.js';
import type { SpoolFlags } from './spool-options.js';
import { storeOwner } from './store-owner.js';

/** The inbox of a device, wherever it is. */
export interface InboxAccess extends AsyncDisposable {
  /** The oldest first. */
  entries(): Promise<InboxEntry[]>;
  body(id: number): Promise<Buffer>;
  /** To be tried at once, or forgotten. */
  change(what: 'retry' | 'drop', ids: readonly number[]): Promise<void>;
}

/** The inbox that the flags mean: through the agent that has it, or, where none runs, in its store. Errors: as `storeOwner`. */
export async function openInbox(io: Io, flags: SpoolFlags, log: Log): Promise<InboxAccess> {
  const owner = await storeOwner(io, flags, log);
  return 'socket' in owner ? inboxOfAgent(owner.socket) : inboxOfStore(owner.store);
}

/** So many at once: they share the writes of the disk. */
const mostChanges = 100;

function inboxOfStore(store: Store): InboxAccess {
  const { inbox } = store;
  return {
    entries: () => Promise.resolve([...inbox.entries()]),
    body: (id) => inbox.body(id),
    change: (what, ids) =>
      inGroups(ids, async (group) => {
        const changes = group.map((id) => inbox[what](id));
        await Promise.allSettled(changes);
        await Promise.all(changes);
      }),
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  };
}

function inboxOfAgent(socket: string): InboxAccess {
  return {
    async entries() {
      const entries: InboxEntry[] = [];
      for (let next: number | undefined = 0; next !== undefined;) {
        const query: string = next === 0 ? '' : `?after=${next}`;
        const page = (await askFor(socket, 'GET', `/v1/inbox${query}`)) as InboxPage;
        entries.push(...page.entries.map(entryOf));
        next = page.next;
      }
      return entries;
    },
    async body(id) {
      const command = await askFor(socket, 'GET', `/v1/inbox/command?id=${id}`);
      return Buffer.from((command as { bodyBase64: string }).bodyBase64, 'base64');
    },
    change: (what, ids) =>
      inGroups(ids, async (group) => {
        await askFor(socket, 'POST', `/v1/inbox/${what}?${group.map((id) => `id=${id}`).join('&')}`);
      }),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

async function inGroups(
  ids: readonly number[],
  work: (group: readonly number[]) => Promise<void>,
): Promise<void> {
  for (let at = 0; at < ids.length; at += mostChanges) await work(ids.slice(at, at + mostChanges));
}

function entryOf({ takenAt, dueInMs = Infinity, ...facts }: InboxLine): InboxEntry {
  return { ...facts, takenAt: Date.parse(takenAt), dueInMs };
}
