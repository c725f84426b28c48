import { setMaxListeners } from 'node:events';

/**
 * A signal that is aborted with the first of several, with its reason, for as long as it is needed:
 *
 *     using until = anyOf(signal, connection.over);
 *
 * `AbortSignal.any` of Node.js 20 keeps everything that it ever made for as long as the longest-lived of its sources
 * lives (some 2.7 KB each, measured with 20.20.2), and in an agent that is as long as the process.
 */
export function anyOf(...sources: readonly AbortSignal[]): AbortSignal & Disposable {
  const controller = new AbortController();
  // Of a connection's signal there are as many listeners as links; Node.js would warn of a leak at the eleventh.
  setMaxListeners(0, controller.signal);
  const unlink = () => {
    for (const source of sources) source.removeEventListener('abort', onAbort);
  };
  const onAbort = () => {
    unlink();
    controller.abort(sources.find(({ aborted }) => aborted)?.reason);
  };
  for (const source of sources) source.addEventListener('abort', onAbort);
  if (sources.some(({ aborted }) => aborted)) onAbort();
  return Object.assign(controller.signal, { [Symbol.dispose]: unlink });
}

/** Resolves when the signal is aborted. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else
      signal.addEventListener('abort', () => {
        resolve();
      });
  });
}

/** A promise that rejects with the signal's reason when it is aborted; before that it is pending. */
export function rejectionOf(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const onAbort = () => {
      reject(signal.reason as Error);
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort);
  });
}
