import type { EventContext, Session } from 'rhea';

import { AgentError } from '../errors.js';
import { anyOf } from '../signals.js';
import type { AmqpConnection, Outlet } from './connection.js';
import { amqpError, fromCondition } from './errors.js';
import { untilEvent } from './events.js';

/** What rhea calls the ends of links and sessions that the peer has ended. */
export const lossEvents = [
  'session_error',
  'session_close',
  'sender_error',
  'sender_close',
  'receiver_error',
  'receiver_close',
] as const;

/**
 * One AMQP session with its links, which live and end together: when one of them is lost the session is ended and
 * the connection stays. A repair is a new scope on the same connection.
 */
export class SessionScope {
  readonly session: Session;
  /** Aborted when the session, one of its links or the connection is over; the reason is the `AgentError` that says why. */
  readonly over: AbortSignal;
  readonly #connection: AmqpConnection;
  readonly #ended = new AbortController();
  #endedByPeer = false;

  constructor(connection: AmqpConnection) {
    this.#connection = connection;
    this.session = connection.rhea.create_session();
    this.session.begin();
    this.over = anyOf(this.#ended.signal, connection.over);
    // Events of links that their own listeners leave alone come to their session.
    for (const event of lossEvents) {
      this.session.on(event, (context: EventContext) => {
        this.#endedByPeer ||= event === 'session_close';
        this.fail(explain(event, context));
      });
    }
  }

  /** The way out, for who sends on a link of the session. */
  get outlet(): Outlet {
    return this.#connection.outlet;
  }

  /** Ends the session and all its links, because of this. */
  fail(error: AgentError): void {
    if (this.over.aborted) return;
    this.#ended.abort(error);
    // rhea answers a detach in a later tick, and after the end of its session that would be an error of ours.
    setImmediate(() => {
      this.session.close();
    });
  }

  /**
   * Resolves when the peer has ended the session too: then its links are gone there, and new ones are not taken for
   * a second client.
   */
  async closed(signal: AbortSignal): Promise<void> {
    if (this.#endedByPeer) return;
    using until = anyOf(signal, this.#connection.over);
    await untilEvent(this.session, { session_close: () => undefined }, until);
  }
}

function explain(event: (typeof lossEvents)[number], context: EventContext): AgentError {
  const what = event.startsWith('session') ? 'ended the session' : `detached the ${linkName(context)}`;
  const lost = event.startsWith('session') ? context.session : (context.sender ?? context.receiver);
  const { condition, description } = amqpError(lost?.error);
  if (condition === undefined) return new AgentError('unavailable', `the hub ${what}`);
  return fromCondition({ condition, description }, `the hub ${what} and`);
}

/** Links are named for people, with a unique tail: `telemetry link/3f2a…`. */
function linkName({ sender, receiver }: EventContext): string {
  return (sender ?? receiver)?.name.split('/')[0] ?? 'link';
}
