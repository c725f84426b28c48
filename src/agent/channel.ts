import { toAgentError } from '../amqp/errors.js';
import type { HubSession } from '../amqp/session.js';
import { createBackoff } from '../backoff.js';
import type { Clock } from '../clock.js';
import type { AgentError } from '../errors.js';
import type { Log } from '../log.js';
import { anyOf } from '../signals.js';

export interface ChannelOptions {
  /** Aborts to come to an end. */
  stopping: AbortSignal;
  clock: Clock;
  log: Log;
  /** Whether to reject with this error instead of opening the channel anew; the default never does. */
  givesUp?: ((error: AgentError) => boolean) | undefined;
}

interface Channel<Link> {
  /** For the log. */
  what: 'methods' | 'twin';
  open: (signal: AbortSignal) => Promise<Link>;
  /**
   * Resolves once `stopping` is aborted and what was begun is finished; rejects when the link is over. `healthy` says
   * that the hub took something.
   */
  work: (link: Link, healthy: () => void) => Promise<void>;
}

/** So many times in a row a lost channel is opened anew at once. */
const quickly = 3;
/** A channel that held this long was a good one. */
const healthyAfterMs = 30_000;

/**
 * Works on a channel for as long as the session holds, and opens it anew when it alone is lost: telemetry and commands
 * go on meanwhile. A hub that refuses it, as one of the basic tier does, is asked again every few minutes.
 */
export async function keepChannel<Link>(
  session: Pick<HubSession, 'over'>,
  { what, open, work }: Channel<Link>,
  { stopping, clock, log, givesUp = () => false }: ChannelOptions,
): Promise<void> {
  const backoff = createBackoff();
  using until = anyOf(stopping, session.over);
  let inARow = 0;
  const healthy = () => {
    inARow = 0;
    backoff.reset();
  };
  let said: string | undefined;
  while (!isAborted(stopping)) {
    let openedAt: number | undefined;
    try {
      const link = await open(until);
      openedAt = clock.monotonic();
      if (said !== undefined) log.info('the hub has opened a channel again', { channel: what });
      said = undefined;
      await work(link, healthy);
      return;
    } catch (cause) {
      if (isAborted(stopping)) return;
      session.over.throwIfAborted();
      const error = toAgentError(cause);
      if (givesUp(error)) throw error;
      if (openedAt !== undefined && clock.monotonic() - openedAt >= healthyAfterMs) healthy();
      if (error.code === 'bug') log.error('a bug, please report it', { channel: what, error });
      else log[said === error.message ? 'debug' : 'warn']('a channel is not open', { channel: what, error });
      said = error.message;
      const atOnce = openedAt !== undefined && error.retry === 'soon' && inARow++ < quickly;
      if (atOnce) continue;
      const retry = error.retry === 'never' ? 'late' : error.retry;
      await clock.sleep(backoff.next(retry), until).catch(() => undefined);
    }
  }
}

/** `signal.aborted`, asked again after an await: the compiler takes its last answer for the next. */
function isAborted(signal: AbortSignal): boolean {
  return signal.aborted;
}
