import { AgentError } from '../errors.js';
import type { LogStats } from '../store/log/durable-log.js';
import type { Spool } from '../store/spool.js';
import { entriesOf, entryStates, type Entry, type Selection } from '../store/spool-entries.js';
import { parseDuration } from '../units.js';
import { answer, type Route, writeLine } from './http-server.js';
import { spoolStatus, type SpoolStatus } from './status.js';

/** `GET /v1/spool` */
export interface SpoolFacts extends SpoolStatus {
  directory: string;
  limitBytes: number;
  segments: number;
  diskBytes: number;
}

/** A message of the spool as the control socket shows it. */
export interface SpoolLine {
  id: number;
  state: Entry['state'];
  messageId: string;
  deviceId: string;
  moduleId?: string | undefined;
  priority: number;
  /** RFC 3339. */
  queuedAt: string;
  /** The message as it is sent: encoded, in base64. */
  amqpBase64: string;
  rejectedAt?: string | undefined;
  condition?: string | undefined;
  description?: string | undefined;
}

/** `GET /v1/spool`: how much waits, since when, and what was dropped. */
export function spoolRoute(spool: Spool, directory: string, disk: () => LogStats): Route {
  return async ({ response }) => {
    const { byPriority } = spool.stats();
    const { segments, diskBytes } = disk();
    const facts: SpoolFacts = {
      ...(await spoolStatus(spool)),
      ...{ directory, limitBytes: spool.maximumBytes, segments, diskBytes },
    };
    answer(response, 200, { ...facts, byPriority });
  };
}

/**
 * `GET /v1/spool/messages?state=rejected&olderThan=1h&id=17`: a line of JSON for each message that is meant, as it is
 * read: those that wait in the order in which they will be sent, then the rejected ones.
 */
export function spoolMessagesRoute(spool: Spool): Route {
  return async ({ response, query, over }) => {
    const selection = selectionOf(query);
    // An id that is not there is said before anything else is.
    if (selection.ids.length > 0) for await (const _ of entriesOf(spool, selection));
    response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
    for await (const entry of entriesOf(spool, selection)) {
      over.throwIfAborted();
      await writeLine(response, lineOf(entry), over);
    }
    response.end();
  };
}

/** `POST /v1/spool/requeue?id=17&id=18` and `POST /v1/spool/drop?id=…`: rejected messages, all of them or none. */
export function spoolChangeRoute(spool: Spool, what: 'requeue' | 'drop'): Route {
  return async ({ response, query }) => {
    const { ids } = selectionOf(query);
    if (ids.length === 0) throw new AgentError('usage', 'it takes the ids of messages: ?id=17&id=18');
    const letters = [];
    for await (const entry of entriesOf(spool, { ids })) {
      if (entry.state === 'pending') throw onItsWay(entry.message.ref.id);
      letters.push(entry.letter);
    }
    const change = what === 'requeue' ? spool.requeue.bind(spool) : spool.discard.bind(spool);
    const changes = letters.map(change);
    await Promise.allSettled(changes);
    await Promise.all(changes);
    answer(response, 200, { [what === 'requeue' ? 'requeued' : 'dropped']: letters.length });
  };
}

function onItsWay(id: number): AgentError {
  return new AgentError('try-again', `message ${id} waits to be sent, and may be on its way`, {
    hint: 'stop the agent first: what is rejected can be sent once more or dropped at any time',
  });
}

function selectionOf(query: URLSearchParams): Selection {
  const state = query.get('state') ?? undefined;
  const olderThan = query.get('olderThan');
  const named = entryStates.find((known) => known === state);
  if (state !== undefined && named === undefined)
    throw new AgentError('usage', `state: it is ${entryStates.join(' or ')}`);
  try {
    return {
      ids: query.getAll('id').map(numberOf),
      state: named,
      olderThan: olderThan === null ? undefined : parseDuration(olderThan),
    };
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new AgentError('usage', `olderThan: ${error.message}`);
  }
}

function numberOf(text: string): number {
  if (!/^[1-9]\d{0,14}$/.test(text)) throw new AgentError('usage', `"${text}" is no id of a message`);
  return Number(text);
}

function lineOf(entry: Entry): SpoolLine {
  const { ref, messageId, deviceId, moduleId, priority, storedAt, encoded } = entry.message;
  const line = {
    ...{ id: ref.id, state: entry.state, messageId, deviceId, moduleId, priority },
    queuedAt: new Date(storedAt.wallMs).toISOString(),
    amqpBase64: encoded.toString('base64'),
  };
  if (entry.state === 'pending') return line;
  const { condition, description, setAsideAt } = entry.letter;
  return { ...line, rejectedAt: new Date(setAsideAt.wallMs).toISOString(), condition, description };
}
