import type { Clock } from '../clock.js';

/**
 * The hub's own time: a clock plus whatever a test has jumped it by. Locks, expiry and tokens are kept by it, so a
 * jump does at once what an hour of waiting would.
 */
export class HubClock {
  readonly #base: Clock;
  readonly #alarms = new Set<Alarm>();
  #offsetMs = 0;

  constructor(base: Clock) {
    this.#base = base;
  }

  /** Milliseconds since the epoch, as the hub sees them. */
  now(): number {
    return this.#base.now() + this.#offsetMs;
  }

  /** Runs `act` when the hub's time reaches `time`; returns what cancels it. */
  at(time: number, act: () => void): () => void {
    if (time === Infinity) return () => undefined;
    const alarm: Alarm = { time, act, sleep: new AbortController() };
    this.#alarms.add(alarm);
    this.#arm(alarm);
    return () => {
      this.#cancel(alarm);
    };
  }

  /** Moves the hub's time, forward or back, and rings what has become due. */
  jump(ms: number): void {
    this.#offsetMs += ms;
    for (const alarm of [...this.#alarms]) {
      alarm.sleep.abort();
      alarm.sleep = new AbortController();
      this.#arm(alarm);
    }
  }

  /** Cancels everything. */
  stop(): void {
    for (const alarm of [...this.#alarms]) this.#cancel(alarm);
  }

  #arm(alarm: Alarm): void {
    const { sleep } = alarm;
    this.#base.sleep(Math.max(0, alarm.time - this.now()), sleep.signal).then(
      () => {
        if (!this.#alarms.delete(alarm)) return;
        alarm.act();
      },
      () => {
        // Cancelled, or armed anew by a jump.
      },
    );
  }

  #cancel(alarm: Alarm): void {
    this.#alarms.delete(alarm);
    alarm.sleep.abort();
  }
}

interface Alarm {
  time: number;
  act: () => void;
  sleep: AbortController;
}
