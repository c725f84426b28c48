import type { AgentState } from '../agent/state.js';
import type { Clock } from '../clock.js';
import type { Notifier } from './notify.js';

/** What goes into the status line beside the state. */
export interface UnitFacts {
  device: string;
  /** Messages in the spool. */
  waiting: number;
}

/** `systemctl status` shows the latest; more often than this it would only be noise in the journal of PID 1. */
const atMostEveryMs = 5_000;
const lookEveryMs = 60_000;

/**
 * Keeps systemd informed: ready when the agent could start its work (whether the hub answers or not, because a device
 * that boots offline has to come up), and one line that says how it fares.
 */
export class UnitStatus implements Disposable {
  readonly #notifier: Pick<Notifier, 'notify'>;
  readonly #clock: Clock;
  readonly #facts: () => UnitFacts;
  #state: AgentState | undefined;
  #toldAt = -Infinity;
  #told: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isOver = false;

  constructor(notifier: Pick<Notifier, 'notify'>, clock: Clock, facts: () => UnitFacts) {
    this.#notifier = notifier;
    this.#clock = clock;
    this.#facts = facts;
  }

  /** Configuration valid, store open, listeners listening. */
  ready(): Promise<void> {
    return this.#notifier.notify('READY=1', 'STATUS=starting');
  }

  moved(state: AgentState): void {
    this.#state = state;
    this.#tellIn(this.#toldAt + atMostEveryMs - this.#clock.monotonic());
  }

  /** The agent was told to stop, wherever it stands: systemd hears it at once, and no state after it. */
  stopping(): void {
    this[Symbol.dispose]();
    const line = statusLine(
      { state: 'draining', since: this.#clock.now() },
      this.#facts(),
      this.#clock.now(),
    );
    void this.#notifier.notify('STOPPING=1', `STATUS=${line}`);
  }

  [Symbol.dispose](): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
  }

  #tellIn(ms: number): void {
    clearTimeout(this.#timer);
    if (this.#isOver) return;
    this.#timer = setTimeout(
      () => {
        this.#tell();
      },
      Math.max(0, ms),
    );
  }

  /** Also of what changes without a new state: how much is kept, and for how long it waits. */
  #tell(): void {
    if (this.#state === undefined) return;
    const line = statusLine(this.#state, this.#facts(), this.#clock.now());
    if (line !== this.#told) void this.#notifier.notify(`STATUS=${line}`);
    this.#told = line;
    this.#toldAt = this.#clock.monotonic();
    this.#tellIn(lookEveryMs);
  }
}

/** How the agent fares, in one line for people. `now` is milliseconds since the epoch. */
export function statusLine(state: AgentState, { device, waiting }: UnitFacts, now: number): string {
  const kept = waiting === 1 ? '1 message kept' : `${waiting} messages kept`;
  switch (state.state) {
    case 'connecting':
      return `connecting as ${device}; ${kept}`;
    case 'online':
      return `online as ${device} since ${new Date(state.since).toISOString()}; ${kept}`;
    case 'waiting': {
      const { error, attempt, until } = state;
      const refused = error.retry === 'late' ? 'REFUSED' : 'offline';
      const seconds = Math.max(0, Math.round((until - now) / 1000));
      return `${refused}: ${error.message}; ${kept}; attempt ${attempt + 1} in ${seconds} s`;
    }
    case 'draining':
      return `stopping: finishing what was begun; ${kept}`;
    case 'stopped':
      return `stopped; ${kept}`;
  }
}
