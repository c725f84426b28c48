import type { IncomingMessage } from 'node:http';

import type { SpoolFacts, SpoolLine } from '../../daemon/control-spool.js';
import { spoolStatus } from '../../daemon/status.js';
import { AgentError } from '../../errors.js';
import { readLines } from '../../lines.js';
import type { Log } from '../../log.js';
import type { Priority } from '../../store/kinds.js';
import { entriesOf, type Entry, type Selection } from '../../store/spool-entries.js';
import type { Store } from '../../store/store.js';
import { formatDuration } from '../../units.js';
import type { Io } from '../io.js';
import { askFor, openRequest, refusedBy } from './agent-client.js';
import type { SpoolFlags } from './spool-options.js';
import { storeOwner } from './store-owner.js';

/** The telemetry of a device that is on disk, wherever that is. */
export interface SpoolAccess extends AsyncDisposable {
  facts(): Promise<SpoolFacts>;
  /** As `entriesOf`. */
  entries(selection: Selection): AsyncIterable<Entry>;
  /** Sends rejected messages once more, in this order. */
  requeue(entries: readonly Entry[]): Promise<void>;
  /** Throws them away. Errors: `try-again` for one that an agent is about to send. */
  drop(entries: readonly Entry[]): Promise<void>;
}

/** The spool that the flags mean: through the agent that has it, or, where none runs, in its store. Errors: as `storeOwner`. */
export async function openSpoolAccess(io: Io, flags: SpoolFlags, log: Log): Promise<SpoolAccess> {
  const owner = await storeOwner(io, flags, log);
  return 'socket' in owner ? spoolOfAgent(owner.socket) : spoolOfStore(owner.store, owner.directory);
}

function spoolOfStore(store: Store, directory: string): SpoolAccess {
  const { spool } = store;
  return {
    async facts() {
      const { segments, diskBytes } = store.stats();
      const place = { directory, limitBytes: spool.maximumBytes };
      return { ...(await spoolStatus(spool)), ...place, segments, diskBytes };
    },
    entries: (selection) => entriesOf(spool, selection),
    requeue: (entries) =>
      // Asked for in their order, so that they are stored in it.
      allDone(entries.map((entry) => entry.state === 'rejected' && spool.requeue(entry.letter))),
    async drop(entries) {
      await spool.remove(entries.flatMap((entry) => (entry.state === 'pending' ? [entry.message] : [])));
      await allDone(entries.map((entry) => entry.state === 'rejected' && spool.discard(entry.letter)));
    },
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  };
}

/** Waits for all, whatever becomes of them, and then for the first failure. */
async function allDone(works: readonly unknown[]): Promise<void> {
  await Promise.allSettled(works);
  await Promise.all(works);
}

function spoolOfAgent(socket: string): SpoolAccess {
  const change = async (what: 'requeue' | 'drop', entries: readonly Entry[]) => {
    // The path of a request has an end.
    for (let at = 0; at < entries.length; at += mostChanges) {
      const ids = entries.slice(at, at + mostChanges).map(({ message }) => `id=${message.ref.id}`);
      await askFor(socket, 'POST', `/v1/spool/${what}?${ids.join('&')}`);
    }
  };
  return {
    facts: async () => (await askFor(socket, 'GET', '/v1/spool')) as SpoolFacts,
    entries: (selection) => askForEntries(socket, selection),
    requeue: (entries) => change('requeue', entries),
    drop: (entries) => change('drop', entries),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

const mostChanges = 100;
/** A message of 256 KB in base64, and what is said of it. */
const longestLineBytes = 1024 * 1024;

async function* askForEntries(socket: string, { ids, state, olderThan }: Selection): AsyncGenerator<Entry> {
  const query = new URLSearchParams();
  for (const id of ids) query.append('id', String(id));
  if (state !== undefined) query.set('state', state);
  if (olderThan !== undefined) query.set('olderThan', formatDuration(olderThan));
  const [asked, response] = openRequest(socket, 'GET', `/v1/spool/messages?${query.toString()}`);
  asked.end();
  try {
    const answer = await response;
    if (answer.statusCode !== 200 && answer.statusCode !== 204) throw await refusedBy(answer);
    for await (const { bytes } of readLines(whole(answer), longestLineBytes)) {
      if (bytes.length > 0) yield entryOf(JSON.parse(bytes.toString()) as SpoolLine);
    }
  } finally {
    asked.destroy();
  }
}

/** An answer that breaks off is not one that has ended. */
async function* whole(answer: IncomingMessage): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of answer) yield chunk as Buffer;
  } catch (error) {
    throw new AgentError('unavailable', 'the agent stopped in the middle of its answer', { cause: error });
  }
}

function entryOf(line: SpoolLine): Entry {
  const { id, state, messageId, deviceId, moduleId, queuedAt, amqpBase64, rejectedAt } = line;
  const encoded = Buffer.from(amqpBase64, 'base64');
  const ref = { kind: 0, id, bytes: encoded.length };
  const about = { ref, messageId, deviceId, moduleId, priority: line.priority as Priority };
  const message = { ...about, storedAt: stampOf(queuedAt), encoded };
  if (state === 'pending') return { state, message };
  const { condition, description } = line;
  const letter = { ref, condition, description, setAsideAt: stampOf(rejectedAt ?? queuedAt), message };
  return { state, message, letter };
}

/** Ages are told by the agent. */
function stampOf(time: string) {
  return { wallMs: Date.parse(time), boot: 0, uptimeMs: 0 };
}
