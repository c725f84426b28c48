import type { AgentState } from '../agent/state.js';
import type { Verdict } from '../agent/verdict.js';
import type { Clock } from '../clock.js';
import type { CommandDecision } from '../handlers/dispatch.js';
import type { Answer, Handler } from '../handlers/handler.js';

/** What is told while the agent works, to whoever counts it. */
export interface Meter {
  /** The agent is in another state. */
  moved: (state: AgentState) => void;
  /** Telemetry was taken from a program or a handler, and is on disk. */
  kept: () => void;
  /** The hub has answered for a message of so many bytes. */
  answered: (verdict: Verdict, bytes: number) => void;
  /** The hub has been told what became of a command. */
  settled: (decision: Pick<CommandDecision, 'outcome' | 'from'>) => void;
  /** A handler has ended. */
  ran: (handler: Pick<Handler, 'name' | 'on'>, answer: Answer, ms: number) => void;
  /** A token was renewed, or could not be. */
  renewed: (isRenewed: boolean) => void;
  /** What was written is on disk. */
  synced: (ms: number) => void;
  /** The configuration was read again, or refused. */
  reloaded: (isTaken: boolean) => void;
}

const nothing = (): void => {
  /* counts nothing */
};

export const silentMeter: Meter = {
  moved: nothing,
  kept: nothing,
  answered: nothing,
  settled: nothing,
  ran: nothing,
  renewed: nothing,
  synced: nothing,
  reloaded: nothing,
};

/** The handlers as they are, with the time that each run takes. */
export function measured(
  handlers: readonly Handler[],
  meter: Meter,
  clock: Pick<Clock, 'monotonic'>,
): readonly Handler[] {
  return handlers.map((handler) => ({
    ...handler,
    async run(event, run) {
      const startedAt = clock.monotonic();
      const answer = await handler.run(event, run);
      meter.ran(handler, answer, clock.monotonic() - startedAt);
      return answer;
    },
    [Symbol.asyncDispose]: () => handler[Symbol.asyncDispose](),
  }));
}
