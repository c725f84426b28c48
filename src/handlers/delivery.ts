import { setMaxListeners } from 'node:events';

import type { Clock } from '../clock.js';
import type { CommandOutcome } from '../model.js';
import { anyOf } from '../signals.js';

export type CommandDecision = CommandOutcome & {
  /** Identifies the command across deliveries. */
  key: string;
  /** Absent when no handler was involved. */
  handler?: string | undefined;
  /** 1 for the first run; 0 when nothing ran. */
  attempt: number;
  /**
   * `record`: the outcome of an earlier delivery. `inbox`: it is kept, to be run later. `none`: nothing ran (no
   * handler, stopping, no place to record it, link gone).
   */
  from: 'handler' | 'record' | 'inbox' | 'none';
  elapsedMs: number;
};

/** What came of a command, the same for each of its deliveries. */
export interface Conclusion {
  readonly outcome: CommandOutcome;
  readonly from: CommandDecision['from'];
  readonly handler?: string;
  readonly attempt: number;
  /** How long to keep it before telling the hub, if the lock lasts. */
  readonly holdMs: number;
}

export interface Surroundings {
  readonly clock: Clock;
  /** Aborted when the agent stops. */
  readonly stopping: AbortSignal;
  /** How long the hub keeps a delivered command for us. */
  readonly lockMs: number;
}

/** What is left of the lock for the settlement to reach the hub. */
const lockMarginMs = 5_000;

/** A delivery of a command, which is to be told what was decided. */
export class Delivery {
  readonly #arrivedAt: number;

  constructor(
    private readonly around: Surroundings,
    private readonly onDecided: (decision: CommandDecision) => void,
    /** Aborted when it cannot be settled any more. */
    readonly link: AbortSignal | undefined,
  ) {
    this.#arrivedAt = around.clock.monotonic();
  }

  conclude(key: string, conclusion: Conclusion): void {
    if (conclusion.holdMs > 0) void this.#concludeLater(key, conclusion);
    else this.onDecided(decisionOn(key, conclusion, this.#elapsedMs));
  }

  /** The hub would deliver a released command again at once. */
  async #concludeLater(key: string, conclusion: Conclusion): Promise<void> {
    const holdMs = Math.min(conclusion.holdMs, this.around.lockMs - lockMarginMs - this.#elapsedMs);
    if (holdMs > 0) await this.#hold(holdMs);
    this.onDecided(decisionOn(key, conclusion, this.#elapsedMs));
  }

  async #hold(ms: number): Promise<void> {
    const { clock, stopping } = this.around;
    const { link } = this;
    if (link !== undefined) setMaxListeners(0, link); // as many listen as are kept back
    using until = link === undefined ? anyOf(stopping) : anyOf(stopping, link);
    await clock.sleep(ms, until).catch(() => undefined); // told to stop: the release goes out now
  }

  get #elapsedMs(): number {
    return this.around.clock.monotonic() - this.#arrivedAt;
  }
}

/** Without a copy to which fields are added, which takes V8 far longer. */
function decisionOn(
  key: string,
  { outcome, handler, attempt, from }: Conclusion,
  elapsedMs: number,
): CommandDecision {
  return outcome.outcome === 'accept'
    ? { outcome: 'accept', key, handler, attempt, from, elapsedMs }
    : { outcome: outcome.outcome, reason: outcome.reason, key, handler, attempt, from, elapsedMs };
}
