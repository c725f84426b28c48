import type { AgentState } from '../agent/state.js';
import type { Clock } from '../clock.js';
import type { DiskWatch } from '../store/log/watched-files.js';

/** What can come to a halt while the event loop goes on. */
export type Part = 'connection' | 'store';

export interface ProgressOptions {
  /** How long the disk may take for one call. */
  storeStuckAfterMs: number;
  /** Told how long the disk took to make a write last. */
  onSynced: (ms: number) => void;
}

/** Far beyond the deadline of a connection attempt, and what a wait may be late by. */
const connectionStuckAfterMs = 120_000;

/**
 * Whether the agent gets on: the watchdog is fed by it, and `/healthz` answers it. Being offline is no illness; an
 * attempt to connect that never ends is, and so is a write that never comes back.
 */
export class Progress {
  readonly #clock: Pick<Clock, 'now' | 'monotonic'>;
  readonly #options: ProgressOptions;
  #state: AgentState | undefined;
  /** When each call began that the disk has not answered, the oldest first. */
  readonly #unanswered = new Set<{ since: number }>();

  constructor(clock: Pick<Clock, 'now' | 'monotonic'>, options: ProgressOptions) {
    this.#clock = clock;
    this.#options = options;
  }

  moved(state: AgentState): void {
    this.#state = state;
  }

  /** To be told of what is asked of the disk. */
  readonly disk: DiskWatch = (name) => {
    const call = { since: this.#clock.monotonic() };
    this.#unanswered.add(call);
    return () => {
      this.#unanswered.delete(call);
      if (name === 'sync') this.#options.onSynced(this.#clock.monotonic() - call.since);
    };
  };

  /** What has come to a halt. */
  get stuck(): readonly Part[] {
    const [oldest] = this.#unanswered;
    const { storeStuckAfterMs } = this.#options;
    const diskIsStuck = oldest !== undefined && this.#clock.monotonic() - oldest.since > storeStuckAfterMs;
    const connectionIsStuck = this.#state !== undefined && lastsTooLong(this.#state, this.#clock.now());
    return [
      ...(connectionIsStuck ? ['connection' as const] : []),
      ...(diskIsStuck ? ['store' as const] : []),
    ];
  }
}

/** Whether a state has lasted longer than it can. `now` is milliseconds since the epoch. */
export function lastsTooLong(state: AgentState, now: number): boolean {
  switch (state.state) {
    case 'connecting':
      return now - state.since >= connectionStuckAfterMs;
    case 'waiting':
      return now - state.until >= connectionStuckAfterMs;
    case 'online':
    case 'draining':
    case 'stopped':
      return false;
  }
}
