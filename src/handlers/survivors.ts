import { readdirSync, readFileSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';

import type { Clock } from '../clock.js';

/**
 * Kills what a program left behind outside its process group. A grandchild that called `setsid` has left the group,
 * but it still carries the run's mark in its environment, where `/proc` shows it.
 */

/** Unique to each process that we start, and inherited by what it starts. */
export const markVariable = 'IOTHUB_RUN_ID';

/** Long enough for a burst of forks to be hunted down, short enough to hold a slot. */
const huntMs = 2_000;
const betweenPassesMs = 5;

/** Kills every process that carries the mark; resolves, when they are gone, to how many there were. */
export async function killMarked(mark: string, clock: Clock): Promise<number> {
  const marked = Buffer.from(`${markVariable}=${mark}`);
  const until = clock.monotonic() + huntMs;
  const found = new Set<number>();
  for (;;) {
    const killed = await killPass(marked, until, clock);
    if (killed.length === 0 || clock.monotonic() > until) return found.size;
    for (const pid of killed) found.add(pid);
    await clock.sleep(betweenPassesMs);
  }
}

/**
 * Looks at every process once, and then at those that came meanwhile, until none comes: a program that forks itself
 * on and on would always be elsewhere when its turn comes.
 */
async function killPass(marked: Buffer, until: number, clock: Clock): Promise<number[]> {
  const seen = new Set<number>();
  const killed: number[] = [];
  for (;;) {
    const fresh = listProcesses().filter((pid) => !seen.has(pid));
    for (const pid of fresh) {
      seen.add(pid);
      if (isMarked(pid, marked) && kill(pid)) killed.push(pid);
    }
    if (fresh.length === 0 || clock.monotonic() > until) return killed;
    if (killed.length > 0) await setImmediate(); // a hunt must not stop the agent
  }
}

/**
 * Read without going through the thread pool: a few microseconds a process, where the pool would take several times
 * as long and delay the store's syncs.
 */
function isMarked(pid: number, marked: Buffer): boolean {
  try {
    return readFileSync(`/proc/${pid}/environ`).includes(marked);
  } catch {
    return false; // ended meanwhile, or another user's
  }
}

function kill(pid: number): boolean {
  try {
    process.kill(pid, 'SIGKILL');
    return true;
  } catch {
    return false; // it ended by itself, or it is not ours to end
  }
}

function listProcesses(): number[] {
  try {
    return readdirSync('/proc').map(Number).filter(Number.isInteger);
  } catch {
    return []; // no /proc: not Linux, or hidden; the group kill is all there is
  }
}
