import { readdirSync, readFileSync } from 'node:fs';

import type { Clock } from '../clock.js';
import { markVariable } from './environment.js';

/**
 * Kills what a program left behind. Its process group takes most of it; a grandchild that called `setsid` has left
 * the group but still carries the run's mark in its environment, where `/proc` shows it.
 */

/** Long enough for a burst of forks to be hunted down, short enough to hold a slot. */
const huntMs = 2_000;
const betweenRoundsMs = 20;

/** Sends `signal` to the process group that `pid` leads. */
export function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // ESRCH: the group is empty. EPERM: it runs as another user by setuid, and its end is not ours to bring.
  }
}

/** Kills the group and every process that carries the mark; resolves to how many were found outside the group. */
export async function killSurvivors(pid: number, mark: string, clock: Clock): Promise<number> {
  signalGroup(pid, 'SIGKILL');
  const found = new Set<number>();
  const until = clock.monotonic() + huntMs;
  for (;;) {
    const marked = markedProcesses(mark);
    if (marked.length === 0 || clock.monotonic() > until) return found.size;
    for (const survivor of marked) {
      found.add(survivor);
      try {
        process.kill(survivor, 'SIGKILL');
      } catch {
        // It ended by itself, or it is not ours to end.
      }
    }
    await clock.sleep(betweenRoundsMs);
  }
}

/**
 * Processes with the run's mark in their environment. Read without going through the thread pool: a few microseconds
 * a process, where the pool would make it several times as many and delay the store's syncs.
 */
function markedProcesses(mark: string): number[] {
  const marked = Buffer.from(`${markVariable}=${mark}`);
  return listProcesses().filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/environ`).includes(marked);
    } catch {
      return false; // ended meanwhile, or another user's
    }
  });
}

function listProcesses(): number[] {
  try {
    return readdirSync('/proc').map(Number).filter(Number.isInteger);
  } catch {
    return []; // no /proc: not Linux, or hidden; the group kill is all there is
  }
}
