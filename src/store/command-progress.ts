import type { CommandOutcome } from '../model.js';

/** Where a command stands. What is `started` and has no outcome is `unknown`, which counts as a fault. */
export type CommandState =
  | { readonly state: 'open'; readonly attempts: number; readonly faults: number }
  | { readonly state: 'unknown'; readonly attempts: number; readonly faults: number }
  | { readonly state: 'decided'; readonly outcome: CommandOutcome };

/** What a command came to, as the log says it. */
export type Progress =
  | { readonly is: 'started'; readonly attempts: number; readonly faults: number }
  | { readonly is: 'released'; readonly attempts: number; readonly faults: number }
  | { readonly is: 'decided'; readonly outcome: CommandOutcome }
  | { readonly is: 'settled'; readonly outcome: CommandOutcome };

/** What nearly all commands come to: the same object for all of them, so that they share pages. */
const firstStart: Progress = { is: 'started', attempts: 1, faults: 0 };
export const accepted: Progress = { is: 'decided', outcome: { outcome: 'accept' } };
const acceptSettled: Progress = { is: 'settled', outcome: { outcome: 'accept' } };

/** Of a command that nothing is known of. */
export const stateOfNew: CommandState = { state: 'open', attempts: 0, faults: 0 };

export function stateOf(progress: Progress): CommandState {
  switch (progress.is) {
    case 'released':
      return { state: 'open', attempts: progress.attempts, faults: progress.faults };
    case 'started':
      return { state: 'unknown', attempts: progress.attempts, faults: faultsOf(progress) };
    case 'decided':
    case 'settled':
      return { state: 'decided', outcome: progress.outcome };
  }
}

export function onStart(before: Progress | undefined, attempts: number): Progress {
  const faults = faultsOf(before);
  return attempts === 1 && faults === 0 ? firstStart : { is: 'started', attempts, faults };
}

export function onFinish(before: Progress | undefined, outcome: CommandOutcome, fault: boolean): Progress {
  if (outcome.outcome === 'accept') return accepted;
  if (outcome.outcome === 'reject') return { is: 'decided', outcome };
  const { attempts, faults } = before && 'attempts' in before ? before : { attempts: 0, faults: 0 };
  return { is: 'released', attempts, faults: faults + (fault ? 1 : 0) };
}

export function onSettle({ outcome }: Progress & { is: 'decided' }): Progress {
  return outcome.outcome === 'accept' ? acceptSettled : { is: 'settled', outcome };
}

/** With the run that nobody heard the end of. */
function faultsOf(progress: Progress | undefined): number {
  if (progress === undefined || !('faults' in progress)) return 0;
  return progress.is === 'started' ? progress.faults + 1 : progress.faults;
}
