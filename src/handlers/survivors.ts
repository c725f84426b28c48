import { readdirSync, readFileSync } from 'node:fs';

import type { Clock } from '../clock.js';

/**
 * Kills what a program left behind outside its process group. A grandchild that called `setsid` has left the group,
 * but it still carries the run's mark in its environment, where `/proc` shows it.
 */

/** Unique to each process that we start, and inherited by what it starts. */
export const markVariable = 'IOTHUB_RUN_ID';

/** Long enough for a burst of forks to be hunted down, short enough to hold a slot. */
const huntMs = 2_000;
const betweenRoundsMs = 20;

/** Kills every process that carries the mark; resolves to how many there were. */
export async function killMarked(mark: string, clock: Clock): Promise<number> {
  const found = new Set<number>();
  const until = clock.monotonic() + huntMs;
  for (;;) {
    const marked = markedProcesses(mark);
    if (marked.length === 0 || clock.monotonic() > until) return found.size;
    for (const pid of marked) {
      found.add(pid);
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It ended by itself, or it is not ours to end.
      }
    }
    await clock.sleep(betweenRoundsMs);
  }
}

/**
 * Read without going through the thread pool: a few microseconds a process, where the pool would take several times
 * as long and delay the store's syncs.
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
