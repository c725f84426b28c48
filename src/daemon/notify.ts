import { execFile } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';

import type { Log } from '../log.js';
import type { Progress } from './progress.js';

/**
 * What systemd is told of a unit with `Type=notify` (sd_notify(3)): readiness, a status line, the watchdog.
 *
 * Node.js has no datagram sockets of the Unix family, so the words go through the `systemd-notify` binary, with raw
 * assignments (its `--stopping` is younger than systemd 252) and without `--no-block` (the sender must live until
 * PID 1 has looked at it). The unit needs `NotifyAccess=all`, because the sender is a child of ours.
 */
export interface Notifier extends AsyncDisposable {
  /** Sends assignments, `READY=1` or `STATUS=online` say. Resolves when they have arrived or cannot. */
  notify: (...assignments: string[]) => Promise<void>;
  /** Milliseconds within which systemd wants a sign of life; undefined without a watchdog. */
  readonly watchdogMs: number | undefined;
}

/** `unix` to the socket of systemd, or one that does nothing where there is none. Takes the variables out of `env`. */
export function createNotifier(env: NodeJS.ProcessEnv, log: Log): Notifier {
  const { NOTIFY_SOCKET: socket, WATCHDOG_USEC: usec, WATCHDOG_PID: pid } = env;
  // Handlers must not be able to speak for the agent.
  delete env['NOTIFY_SOCKET'];
  delete env['WATCHDOG_USEC'];
  delete env['WATCHDOG_PID'];
  if (socket === undefined || socket === '') {
    const nothing = () => Promise.resolve();
    return { notify: nothing, watchdogMs: undefined, [Symbol.asyncDispose]: nothing };
  }

  const forUs = pid === undefined || Number(pid) === process.pid;
  let queue = Promise.resolve();
  let works = true;
  return {
    watchdogMs: usec !== undefined && forUs ? Number(usec) / 1000 : undefined,
    notify(...assignments) {
      queue = queue.then(async () => {
        if (!works) return;
        works = await send(socket, assignments, log);
      });
      return queue;
    },
    async [Symbol.asyncDispose]() {
      // What was said last, that the agent stops, has to be on its way before the process is gone.
      const done = new AbortController();
      const late = delay(lastWordsMs, undefined, { signal: done.signal }).catch(() => undefined);
      await Promise.race([queue, late]);
      done.abort();
    },
  };
}

const answerWithinMs = 5_000;
const lastWordsMs = 1_000;

/** Whether it is worth trying again. */
function send(socket: string, assignments: readonly string[], log: Log): Promise<boolean> {
  return new Promise((resolve) => {
    const options = {
      env: { PATH: process.env['PATH'] ?? '', NOTIFY_SOCKET: socket },
      timeout: answerWithinMs,
    };
    execFile('systemd-notify', assignments.map(oneLine), options, (error) => {
      if (error === null) {
        resolve(true);
        return;
      }
      const isMissing = error.code === 'ENOENT';
      log.warn(
        isMissing
          ? 'systemd-notify is not there: no readiness, no status, no watchdog'
          : 'systemd was not told',
        {
          error,
        },
      );
      resolve(!isMissing);
    });
  });
}

/** An assignment is a line; what follows a newline would be another one. */
function oneLine(assignment: string): string {
  return assignment.replace(/\s+/g, ' ');
}

/**
 * Feeds the watchdog as long as no part of the agent is stuck, three times as often as systemd looks. A timer
 * alone would go on while the work is stuck.
 */
export function feedWatchdog(
  { notify, watchdogMs }: Pick<Notifier, 'notify' | 'watchdogMs'>,
  progress: Pick<Progress, 'stuck'>,
  log: Log,
): Disposable {
  if (watchdogMs === undefined) return { [Symbol.dispose]: () => undefined };
  let wasStuck = '';
  const timer = setInterval(() => {
    const stuck = progress.stuck.join(', ');
    if (stuck === '') void notify('WATCHDOG=1');
    else if (stuck !== wasStuck) {
      log.error('the agent does not get on, and the watchdog is not fed', { stuck });
      void notify(`STATUS=STUCK: ${stuck}`);
    }
    wasStuck = stuck;
  }, watchdogMs / 3);
  return {
    [Symbol.dispose]: () => {
      clearInterval(timer);
    },
  };
}
