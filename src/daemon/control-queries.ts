import type { Clock } from '../clock.js';
import { AgentError } from '../errors.js';
import type { Spool } from '../store/spool.js';
import { anyOf } from '../signals.js';
import { parseDuration } from '../units.js';
import { answer, type Route } from './http-server.js';
import type { Reloaded } from './reload.js';
import type { AgentStatus } from './status.js';

/** `GET /v1/status` */
export function statusRoute(status: () => Promise<AgentStatus>): Route {
  return async ({ response }) => {
    answer(response, 200, await status());
  };
}

/** `POST /v1/reload`: what changed; 422 when the file is refused, which changes nothing. */
export function reloadRoute(reload: (() => Promise<Reloaded>) | undefined): Route {
  return async ({ response }) => {
    if (reload === undefined) throw new AgentError('config', 'the agent was started without a configuration');
    answer(response, 200, await reload());
  };
}

const lookEveryMs = 100;

/** `POST /v1/drain?timeout=30s`: answers when nothing waits in the spool any more; 504 with what does. */
export function drainRoute(spool: Pick<Spool, 'stats'>, clock: Clock): Route {
  return async ({ response, query, over }) => {
    const waiting = () => spool.stats().waiting.count;
    const patience = new AbortController();
    const timer = setTimeout(() => {
      patience.abort();
    }, timeoutOf(query));
    using until = anyOf(over, patience.signal);
    try {
      while (waiting() > 0) await clock.sleep(lookEveryMs, until);
      answer(response, 200, { waiting: 0 });
    } catch {
      answer(response, 504, { waiting: waiting() });
    } finally {
      clearTimeout(timer);
    }
  };
}

function timeoutOf(query: URLSearchParams): number {
  try {
    return Math.min(parseDuration(query.get('timeout') ?? '30s'), 3_600_000);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new AgentError('usage', `timeout: ${error.message}`);
  }
}
