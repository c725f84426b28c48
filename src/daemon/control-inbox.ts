import { AgentError } from '../errors.js';
import type { Inbox, InboxEntry } from '../store/inbox.js';
import { answer, type Route } from './http-server.js';

/** A command of the inbox as the control socket shows it. */
export interface InboxLine extends Omit<InboxEntry, 'takenAt' | 'dueInMs'> {
  /** RFC 3339. */
  takenAt: string;
  /** Absent for one that was given up. */
  dueInMs?: number | undefined;
}

export interface InboxPage {
  waiting: number;
  dead: number;
  entries: InboxLine[];
  /** There are more: the next page is `?after=` this. */
  next?: number | undefined;
}

/** An answer has an end, whatever the inbox holds. */
const mostEntries = 1_000;

/**
 * `GET /v1/inbox?after=17`: commands that were accepted and are not done, and those that were given up, without their
 * bodies, the oldest first.
 */
export function inboxRoute(inbox: Pick<Inbox, 'entries' | 'size'>): Route {
  return ({ response, query }) => {
    const after = query.has('after') ? numberOf(query.get('after') ?? '') : 0;
    const page: InboxPage = { ...inbox.size, entries: [] };
    for (const entry of inbox.entries()) {
      if (entry.id <= after) continue;
      if (page.entries.length === mostEntries) {
        page.next = page.entries.at(-1)?.id;
        break;
      }
      page.entries.push(lineOf(entry));
    }
    answer(response, 200, page);
    return Promise.resolve();
  };
}

/** `GET /v1/inbox/command?id=17`: one of them with its body, as `bodyBase64`. */
export function inboxCommandRoute(inbox: Pick<Inbox, 'entries' | 'body'>): Route {
  return async ({ response, query }) => {
    const [entry, ...others] = chosen(inbox, query);
    if (entry === undefined || others.length > 0) throw new AgentError('usage', 'it takes one id');
    const body = await inbox.body(entry.id);
    answer(response, 200, { ...lineOf(entry), bodyBase64: body.toString('base64') });
  };
}

/** `POST /v1/inbox/retry?id=17&id=18` and `POST /v1/inbox/drop?id=…`: all of them, or an error and perhaps some. */
export function inboxChangeRoute(
  inbox: Pick<Inbox, 'entries' | 'retry' | 'drop'>,
  what: 'retry' | 'drop',
): Route {
  return async ({ response, query }) => {
    const entries = chosen(inbox, query);
    const changes = await Promise.allSettled(entries.map(({ id }) => inbox[what](id)));
    for (const change of changes) if (change.status === 'rejected') throw change.reason;
    answer(response, 200, { [what === 'retry' ? 'retried' : 'dropped']: entries.length });
  };
}

/** Each has to be there before anything is done. */
function chosen(inbox: Pick<Inbox, 'entries'>, query: URLSearchParams): InboxEntry[] {
  const ids = new Set(query.getAll('id').map(numberOf));
  if (ids.size === 0) throw new AgentError('usage', 'it takes the ids of commands: ?id=17&id=18');
  const entries = new Map([...inbox.entries()].map((entry) => [entry.id, entry]));
  return [...ids].map((id) => {
    const entry = entries.get(id);
    if (entry === undefined) throw new AgentError('no-input', `the inbox has no command ${id}`);
    return entry;
  });
}

function numberOf(text: string): number {
  if (!/^[1-9]\d{0,14}$/.test(text)) throw new AgentError('usage', `"${text}" is no id of a command`);
  return Number(text);
}

function lineOf({ takenAt, dueInMs, ...facts }: InboxEntry): InboxLine {
  return {
    ...facts,
    takenAt: new Date(takenAt).toISOString(),
    dueInMs: Number.isFinite(dueInMs) ? dueInMs : undefined,
  };
}
