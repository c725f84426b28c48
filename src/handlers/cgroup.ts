import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import type { Clock } from '../clock.js';

/**
 * A control group for one run. Nothing leaves a group by forking, so killing the group (`cgroup.kill`, Linux 5.14)
 * is the one certain end of everything that a program started. It takes a control group of our own that we may
 * write to: under systemd `Delegate=yes` and `ProtectControlGroups=no`.
 */
export interface Cgroup {
  /**
   * Does `work` inside the group, so that what it forks begins there. Moving the child after its fork is too late now
   * and then: it may have forked by itself. Going in and out takes 0.2 ms.
   */
  around<T>(work: () => T): T;
  /** Kills what is still in it and removes it; resolves to how many processes there were. */
  kill(clock: Clock): Promise<number>;
}

/** The group's processes are gone a moment after the kill; it cannot be removed before. */
const emptyMs = 2_000;
const betweenLooksMs = 5;

/** Makes a group; undefined where there is none to be had. */
export function makeCgroup(name: string, parent = ownCgroup()): Cgroup | undefined {
  if (parent === undefined) return undefined;
  const directory = join(parent, `handler-${name}`);
  try {
    mkdirSync(directory);
  } catch {
    return undefined;
  }
  if (!existsSync(join(directory, 'cgroup.kill'))) {
    remove(directory); // no control group, or older than Linux 5.14
    return undefined;
  }
  return {
    around(work) {
      const isInside = write(join(directory, 'cgroup.procs'), String(process.pid));
      try {
        return work();
      } finally {
        if (isInside) write(join(parent, 'cgroup.procs'), String(process.pid));
      }
    },
    kill: (clock) => kill(directory, clock),
  };
}

async function kill(directory: string, clock: Clock): Promise<number> {
  const inside = processesIn(directory);
  // Should the way out have failed, killing the group would be the end of ourselves.
  if (inside.includes(String(process.pid))) return 0;
  if (inside.length > 0) write(join(directory, 'cgroup.kill'), '1');
  const until = clock.monotonic() + emptyMs;
  while (!remove(directory) && clock.monotonic() < until) await clock.sleep(betweenLooksMs);
  return inside.length;
}

function processesIn(directory: string): string[] {
  try {
    return readFileSync(join(directory, 'cgroup.procs'), 'utf8')
      .split('\n')
      .filter((pid) => pid !== '');
  } catch {
    return [];
  }
}

function write(file: string, text: string): boolean {
  try {
    writeFileSync(file, text);
    return true;
  } catch {
    return false;
  }
}

/** Whether it is gone; a group with processes stays. */
function remove(directory: string): boolean {
  try {
    rmdirSync(directory);
    return true;
  } catch {
    return !existsSync(directory);
  }
}

let cached: { directory: string | undefined } | undefined;

/**
 * Directory of this process's control group, version 2. The root of the tree is not ours: a process that sits there
 * was put into no group, and making one beside the system's would be meddling.
 */
function ownCgroup(): string | undefined {
  cached ??= { directory: findOwnCgroup() };
  return cached.directory;
}

function findOwnCgroup(): string | undefined {
  try {
    const path = /^0::(\/.+)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1];
    // proc(5): the mount point is the fifth field; the type follows the lone hyphen.
    const mount = /^\S+ \S+ \S+ \S+ (\S+) .* - cgroup2 /m.exec(
      readFileSync('/proc/self/mountinfo', 'utf8'),
    )?.[1];
    return path === undefined || mount === undefined ? undefined : join(mount, path);
  } catch {
    return undefined;
  }
}
