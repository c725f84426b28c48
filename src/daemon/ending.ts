import { anyOf } from '../signals.js';

/** How long the hub may take, once no handler runs, to answer for what was sent; a dead one never does. */
const lastAnswersMs = 2_500;

/** How the agent ends, once it is told to. */
export interface Ending extends Disposable {
  /** Aborted when nothing is waited for any more. */
  readonly abandon: AbortSignal;
  /** Resolves when no handler runs. */
  readonly drained: Promise<void>;
}

/**
 * With `stop`, running handlers are told and waited for (`drain`); then the hub has its time to answer. With `now`
 * all of that is over at once.
 */
export function endWith(
  { stop, now }: { stop: AbortSignal; now: AbortSignal },
  drain: (now: AbortSignal) => Promise<void>,
): Ending {
  const patience = new AbortController();
  const abandon = anyOf(now, patience.signal);
  let drained = Promise.resolve();
  let timer: NodeJS.Timeout | undefined;
  const onStop = () => {
    drained = drain(now).then(() => {
      timer = setTimeout(() => {
        patience.abort();
      }, lastAnswersMs);
    });
  };
  stop.addEventListener('abort', onStop);
  return {
    abandon,
    get drained() {
      return drained;
    },
    [Symbol.dispose]() {
      stop.removeEventListener('abort', onStop);
      clearTimeout(timer);
      abandon[Symbol.dispose]();
    },
  };
}
