import { runAgent } from '../../agent/run.js';
import { SpoolOutbox } from '../../agent/spool-outbox.js';
import { pumpTelemetry } from '../../agent/telemetry.js';
import { renewTokensDuring } from '../../agent/tokens.js';
import { fromCondition } from '../../amqp/errors.js';
import { AgentError } from '../../errors.js';
import type { Spool, SpoolStats } from '../../store/spool.js';
import { exitCodeFor, exitCodes } from '../exit-codes.js';
import type { Io } from '../io.js';
import type { Printable, Printer } from '../output.js';
import type { DeviceHub } from './hub.js';
import { openProgress } from './spool-progress.js';

export interface DrainJob {
  spool: Spool;
  printer: Printer;
  /** Give up when the hub has taken nothing for so long. */
  timeoutMs: number;
}

/** What became of the messages. */
export interface Drained {
  sent: number;
  rejected: number;
  /** Dropped because they were too old. */
  expired: number;
  left: number;
}

/** Messages that may be unanswered at once. */
const window = 10_000;
/** How long what is on its way may take after the first Ctrl-C. */
const finishWithinMs = 5_000;
const lookEveryMs = 100;

/**
 * Sends all that waits and returns the exit code: `data` when the hub refused some of it. The first connection must
 * come up; one that is lost later is opened again.
 */
export async function drainSpool(io: Io, hub: DeviceHub, job: DrainJob): Promise<number> {
  const { spool } = job;
  const startedAt = performance.now();
  const before = spool.stats();
  const progress = (): Drained => difference(before, spool.stats());
  const outbox = new SpoolOutbox(spool, { clock: hub.clock, log: hub.log, whenEmpty: 'end' });
  const patience = new AbortController();
  const abandon = AbortSignal.any([io.now, patience.signal]);
  let online = false;
  let trouble: AgentError | undefined;

  const bar = before.waiting.count > 0 ? await openProgress(io, before.waiting.count) : undefined;
  const limit = { left: before.waiting.count, until: startedAt + job.timeoutMs };
  io.stop.addEventListener('abort', () => {
    limit.until = Math.min(limit.until, performance.now() + finishWithinMs);
  });
  const look = setInterval(() => {
    const now = progress();
    bar?.show(now);
    if (now.left < limit.left && !io.stop.aborted) limit.until = performance.now() + job.timeoutMs;
    limit.left = now.left;
    if (performance.now() >= limit.until) patience.abort();
  }, lookEveryMs);
  try {
    if (before.waiting.count > 0)
      await runAgent({
        open: (signal) => hub.open(['telemetry'], signal),
        work: async (session, { stopping, healthy }) => {
          online = true;
          await renewTokensDuring(session, hub, () =>
            pumpTelemetry(session, outbox, {
              window,
              batches: true,
              clock: hub.clock,
              stopping,
              onAccepted: healthy,
            }),
          );
        },
        stopping: io.stop,
        abandon,
        givesUp: () => !online,
        clock: hub.clock,
        log: hub.log,
        onState: (state) => {
          if (state.state === 'waiting') trouble = state.error;
        },
      });
    await outbox.recorded();
  } finally {
    clearInterval(look);
    bar?.close();
  }

  const drained = progress();
  await job.printer.print(summary(drained, performance.now() - startedAt));
  io.stop.throwIfAborted();
  if (drained.left > 0) throw stuck(drained.left, job.timeoutMs, outbox, trouble);
  return drained.rejected > 0 ? exitCodeFor('data') : exitCodes.ok;
}

/** Nobody else changes the spool meanwhile, so the accounts say it all. */
function difference(before: SpoolStats, now: SpoolStats): Drained {
  const left = now.waiting.count;
  const expired = now.dropped.expired.count - before.dropped.expired.count;
  const forgotten = now.dropped.deadLetters.count - before.dropped.deadLetters.count;
  const rejected = now.deadLetters.count + forgotten - before.deadLetters.count;
  return { sent: before.waiting.count - left - rejected - expired, rejected, expired, left };
}

function stuck(
  left: number,
  timeoutMs: number,
  { flow }: SpoolOutbox,
  trouble: AgentError | undefined,
): AgentError {
  const waiting = `${left} ${left === 1 ? 'message is' : 'messages are'} left`;
  const why = flow.flow === 'open' ? trouble : fromCondition({ condition: flow.condition });
  return new AgentError(
    why?.code ?? 'unavailable',
    `${waiting}: the hub has taken nothing for ${timeoutMs / 1000} s`,
    { cause: why, condition: why?.condition, hint: why?.hint },
  );
}

function summary({ sent, rejected, expired, left }: Drained, ms: number): Printable {
  return {
    json: () => JSON.stringify({ sent, rejected, expired, left, ms: Math.round(ms) }),
    text: () => {
      const rest = [
        [rejected, 'rejected'],
        [expired, 'too old'],
        [left, 'left'],
      ] as const;
      const parts = rest.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`);
      const sentText = `sent ${sent} ${sent === 1 ? 'message' : 'messages'}`;
      return [`${sentText} in ${(ms / 1000).toFixed(1)} s`, ...parts].join(', ');
    },
  };
}
