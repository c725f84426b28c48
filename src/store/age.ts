import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { uptime } from 'node:os';

import type { Clock } from '../clock.js';

/**
 * When something was stored, so that its age can be told later: by the time since boot as long as the machine has
 * not been started again, which a jump of the clock cannot change, and by the clock otherwise.
 */
export interface Stamp {
  /** Wall clock, milliseconds since the epoch. */
  readonly wallMs: number;
  /** Which start of the machine it was. */
  readonly boot: number;
  /** Since then. */
  readonly uptimeMs: number;
}

/** Tells the age of stamps. Its sources are parameters for tests. */
export class AgeClock {
  readonly #openedAtMs: number;
  #lastStamp: Stamp | undefined;

  constructor(
    private readonly clock: Pick<Clock, 'now'>,
    private readonly machine: Machine = thisMachine,
  ) {
    this.#openedAtMs = machine.uptimeMs();
  }

  /** The same object as long as it says the same. */
  stamp(): Stamp {
    const wallMs = this.clock.now();
    const uptimeMs = this.machine.uptimeMs();
    const last = this.#lastStamp;
    if (last?.wallMs === wallMs && last.uptimeMs === uptimeMs) return last;
    return (this.#lastStamp = { wallMs, boot: this.machine.boot, uptimeMs });
  }

  /** Milliseconds, never negative. What was stored before the clock was set is as old as this process. */
  ageMs(stamp: Stamp): number {
    return this.ages()(stamp);
  }

  /** Tells the ages of many at this moment: the clocks are read once. */
  ages(): (stamp: Stamp) => number {
    const nowMs = this.machine.uptimeMs();
    const nowWallMs = this.clock.now();
    return ({ wallMs, boot, uptimeMs }) => {
      if (boot === this.machine.boot) return Math.max(0, nowMs - uptimeMs);
      const isSet = wallMs > notSetBefore && nowWallMs > notSetBefore;
      return Math.max(0, isSet ? nowWallMs - wallMs : nowMs - this.#openedAtMs);
    };
  }
}

export interface Machine {
  /** A number that differs between any two starts of the machine. */
  readonly boot: number;
  /** Since the machine was started, suspended time included. */
  uptimeMs(): number;
}

/** Ages are told in seconds and more. */
const coarseMs = 100;
/** A device without a battery wakes up in 1970, or when its image was made; this program was not there before. */
const notSetBefore = Date.UTC(2024, 0, 1);

export const thisMachine: Machine = { boot: bootNumber(), uptimeMs: coarseUptime() };

/** Node reads a file for the time since boot, some 20 µs: for every message it would be a third of what sending takes. */
function coarseUptime(): () => number {
  let readAtMs = -Infinity;
  let uptimeMs = 0;
  return () => {
    const nowMs = performance.now();
    if (nowMs - readAtMs > coarseMs) {
      readAtMs = nowMs;
      uptimeMs = uptime() * 1000;
    }
    return uptimeMs;
  };
}

function bootNumber(): number {
  try {
    const id = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1');
    return Number.parseInt(id.slice(0, 8), 16);
  } catch {
    // Then every process is a boot of its own: ages are told by the clock.
    return randomBytes(4).readUInt32LE();
  }
}
