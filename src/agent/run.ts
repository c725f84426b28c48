import { createBackoff, type Backoff } from '../backoff.js';
import { clockStep, type Clock } from '../clock.js';
import type { AgentError } from '../errors.js';
import type { HubSession } from '../amqp/session.js';
import { toAgentError } from '../amqp/errors.js';
import type { Log } from '../log.js';
import { anyOf, rejectionOf } from '../signals.js';
import { Lifecycle, type AgentState } from './state.js';

export interface AgentOptions {
  /** Opens the next session; a new connection every time. */
  open: (signal: AbortSignal) => Promise<HubSession>;
  /**
   * What the agent does while it is online. It returns when it has no more to do, or, after `stopping` aborts, when
   * what was begun is finished; it rejects when the session is over. `healthy` says that the hub took something.
   */
  work: (session: HubSession, life: { stopping: AbortSignal; healthy: () => void }) => Promise<void>;
  /** Aborts to stop: what runs is drained, then `runAgent` resolves. */
  stopping: AbortSignal;
  /** Aborts to end at once, whatever is still on its way. */
  abandon: AbortSignal;
  clock: Clock;
  log: Log;
  backoff?: Backoff;
  /** Whether to end with this error instead of trying again; the default never does. */
  givesUp?: (error: AgentError) => boolean;
  onState?: (state: AgentState) => void;
}

/** So many times links are attached anew, without any health in between, before the connection is given up. */
const repairsInARow = 3;
/** A connection that held this long was a good one. */
const healthyAfterMs = 30_000;
/** The third bug within this time ends the process, so that its supervisor starts it clean. */
const bugWindowMs = 600_000;
const bugsAllowed = 2;

/**
 * The life of the agent: connect, work, and when the connection is lost wait and connect again, until there is no
 * more to do or it is told to stop. Where this function stands is the state of the agent.
 */
export async function runAgent(options: AgentOptions): Promise<void> {
  const { clock, log, backoff = createBackoff(), givesUp = () => false } = options;
  using stopping = anyOf(options.stopping, options.abandon);
  const lifecycle = new Lifecycle((state) => {
    options.onState?.(state);
  });
  const bugs: number[] = [];

  for (let attempt = 1; !stopping.aborted; attempt++) {
    lifecycle.move({ state: 'connecting', since: clock.now(), attempt });
    const proved = () => {
      backoff.reset();
      attempt = 0;
    };
    const end = await oneConnection({ ...options, stopping }, lifecycle, { proved });
    if (end.kind === 'finished' || isAborted(stopping)) break;

    const { error } = end;
    if (error.code === 'bug') {
      log.error('a bug, please report it', { error });
      bugs.push(clock.monotonic());
      if (bugs.filter((at) => clock.monotonic() - at < bugWindowMs).length > bugsAllowed) throw error;
    }
    if (error.retry === 'never' || givesUp(error)) throw error;
    // A hub that withdraws what it had granted may only have seen an old token.
    const delayMs = backoff.next(end.wasOnline && error.code === 'refused' ? 'soon' : error.retry);
    const now = clock.now();
    lifecycle.move({ state: 'waiting', since: now, until: now + delayMs, attempt, error });
    await sleepUnlessClockSteps(delayMs, clock, stopping);
  }
  lifecycle.move({ state: 'stopped', since: clock.now() });
}

/** Told when the hub has proved to be well. */
interface Health {
  proved: () => void;
}

type End = { kind: 'finished' } | { kind: 'lost'; error: AgentError; wasOnline: boolean };

/** One connection, from opening to its end, with the repairs of its links in between. */
async function oneConnection(options: AgentOptions, lifecycle: Lifecycle, health: Health): Promise<End> {
  const { open, stopping, clock } = options;
  let wasOnline = false;
  let repairs = 0;
  const healthy = () => {
    repairs = 0;
    health.proved();
  };
  try {
    await using connection = await open(stopping);
    for (let session: HubSession = connection; ;) {
      lifecycle.move({ state: 'online', since: clock.now() });
      wasOnline = true;
      try {
        if (!isAborted(stopping)) await oneSession(session, options, lifecycle, healthy);
        return { kind: 'finished' };
      } catch (error) {
        const { retry } = toAgentError(error);
        const helps = session.isRepairable && retry === 'soon' && repairs < repairsInARow;
        if (!helps || isAborted(stopping)) throw error;
        repairs++;
        lifecycle.move({ state: 'connecting', since: clock.now(), attempt: repairs });
        session = await session.repair(stopping);
      }
    }
  } catch (error) {
    return { kind: 'lost', error: toAgentError(error), wasOnline };
  }
}

/** The work of one session, until it is done, drained, abandoned, or rejected because the session is over. */
async function oneSession(
  session: HubSession,
  { work, stopping, abandon, clock }: AgentOptions,
  lifecycle: Lifecycle,
  healthy: () => void,
): Promise<void> {
  const left = new AbortController();
  using online = anyOf(session.over, left.signal);
  using abandoned = anyOf(abandon, left.signal);
  const onStopping = () => {
    lifecycle.move({ state: 'draining', since: clock.now() });
  };
  stopping.addEventListener('abort', onStopping);
  clock.sleep(healthyAfterMs, online).then(healthy, () => undefined);
  try {
    await Promise.race([work(session, { stopping, healthy }), rejectionOf(abandoned)]);
  } finally {
    stopping.removeEventListener('abort', onStopping);
    left.abort();
  }
}

/** A clock that was wrong is the usual reason for a refused token, so the next attempt need not wait once it is set. */
async function sleepUnlessClockSteps(ms: number, clock: Clock, signal: AbortSignal): Promise<void> {
  const awake = new AbortController();
  using until = anyOf(signal, awake.signal);
  await Promise.race([clock.sleep(ms, until), clockStep(clock, until)]).catch(() => undefined);
  awake.abort();
}

/** `signal.aborted`, asked again after an await: the compiler takes its last answer for the next. */
function isAborted(signal: AbortSignal): boolean {
  return signal.aborted;
}
