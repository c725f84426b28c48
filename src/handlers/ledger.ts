import type { Command, CommandOutcome, CommandReply } from '../model.js';

/**
 * What the dispatcher remembers of commands, so that one with an outcome never runs again. The calls come in this
 * order for each delivery: `received`, then, if it must run, `started` and `finished`, and `settled` when the hub was
 * told. Each resolves when its fact is as durable as the ledger makes it; one that rejects stops the run, for what
 * cannot be recorded must not happen.
 */
export interface CommandLedger {
  received(key: string): KnownCommand | Promise<KnownCommand>;
  started(key: string, run: { handler: string; attempt: number }): Promise<unknown>;
  finished(key: string, result: FinishedRun): Promise<unknown>;
  settled(key: string): void;
}

export type KnownCommand = UndecidedCommand | { state: 'decided'; outcome: CommandOutcome };

export type UndecidedCommand =
  /** To be run. `attempts` were begun before, of which `faults` crashed. */
  | { state: 'open'; attempts: number; faults: number }
  /** Begun, but nobody knows how it ended: the agent did before, or could not record it. That is one of the faults. */
  | { state: 'unknown'; attempts: number; faults: number };

export interface FinishedRun {
  /** Accept and reject are final; after a release the command is open again. */
  outcome: CommandOutcome;
  /** The handler crashed, hung or has a bug. */
  fault: boolean;
  command: Command;
  /** To be queued as telemetry in the same write; a ledger that cannot queue drops it. */
  reply?: CommandReply | undefined;
}

/** So many commands are remembered at the most; the oldest go first. */
const mostCommands = 10_000;

const done = Promise.resolve();

/** A ledger for as long as the process lives. */
export function memoryLedger(): CommandLedger {
  const known = new Map<string, KnownCommand>();
  const countsOf = (key: string): { attempts: number; faults: number } => {
    const entry = known.get(key);
    return entry?.state === 'open' ? entry : { attempts: 0, faults: 0 };
  };
  const put = (key: string, entry: KnownCommand): Promise<void> => {
    known.delete(key);
    known.set(key, entry);
    for (const oldest of known.keys()) {
      if (known.size <= mostCommands) break;
      known.delete(oldest);
    }
    return done;
  };
  return {
    received: (key) => known.get(key) ?? { state: 'open', attempts: 0, faults: 0 },
    started: (key, { attempt }) =>
      put(key, { state: 'open', attempts: attempt, faults: countsOf(key).faults }),
    finished: (key, { outcome, fault }) => {
      if (outcome.outcome !== 'release') return put(key, { state: 'decided', outcome });
      const { attempts, faults } = countsOf(key);
      return put(key, { state: 'open', attempts, faults: fault ? faults + 1 : faults });
    },
    settled: () => undefined,
  };
}
