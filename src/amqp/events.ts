import type { EventEmitter } from 'node:events';

import type { EventContext } from 'rhea';

import { toAgentError } from './errors.js';

/** Answers an event: `pending` waits for another one, any other value is the result, a throw rejects. */
export type Reaction<T> = (context: EventContext) => T | typeof pending;

export const pending = Symbol('pending');

/**
 * Resolves with what the first decisive event means, and takes every listener away again. Nothing thrown by a
 * reaction reaches rhea, whose read path ends the connection when a listener throws.
 */
export function untilEvent<T>(
  emitter: EventEmitter,
  reactions: Record<string, Reaction<T>>,
  signal: AbortSignal,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const listeners = Object.entries(reactions).map(([event, react]) => {
      const listener = (context: EventContext) => {
        try {
          const result = react(context);
          if (result === pending) return;
          stop();
          resolve(result);
        } catch (error) {
          fail(error);
        }
      };
      return { event, listener };
    });
    const fail = (error: unknown) => {
      stop();
      reject(toAgentError(error));
    };
    const onAbort = () => {
      stop();
      reject(signal.reason as Error);
    };
    const stop = () => {
      for (const { event, listener } of listeners) emitter.off(event, listener);
      signal.removeEventListener('abort', onAbort);
    };
    if (signal.aborted) {
      reject(signal.reason as Error);
      return;
    }
    for (const { event, listener } of listeners) emitter.on(event, listener);
    signal.addEventListener('abort', onAbort);
  });
}
