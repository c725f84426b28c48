import { clockStep, type Clock } from '../clock.js';
import type { Token, TokenMaker } from '../identity/token.js';
import type { Log } from '../log.js';
import { anyOf } from '../signals.js';

/** A token is replaced when this much of its life is over, as the C SDK does. */
const renewAtShare = 0.8;
/** How long one renewal may take, and how long to wait before the next try when it failed. */
const answerWithinMs = 30_000;
const retryShare = 0.02;

export interface Renewal {
  /** The token that the connection lives on, if it is older than this renewal. */
  token?: Token | undefined;
  makeToken: TokenMaker;
  /** Puts a token where the old one was. */
  put: (token: Token, signal: AbortSignal) => Promise<unknown>;
  /** Called with whether a renewal succeeded. */
  onRenewal?: ((isRenewed: boolean) => void) | undefined;
  clock: Clock;
  log: Log;
}

/**
 * Keeps a connection's token fresh until the signal is aborted, with whose reason it rejects. The schedule is kept by the
 * monotonic clock: a wall clock that steps backwards would otherwise make an expired token look new. A clock that was
 * set means a new token at once, because the old one carries a time that was wrong. One that is not taken is tried
 * again: the old one may be good for a while, and when it is not, the peer says so to the links.
 */
export async function keepTokenFresh(
  { token: old, makeToken, put, onRenewal, clock, log }: Renewal,
  signal: AbortSignal,
): Promise<never> {
  let lifeMs = makeToken(clock.now()).expiresAt - clock.now();
  let leftMs = Math.min(lifeMs, (old?.expiresAt ?? Infinity) - clock.now());
  for (;;) {
    await due(leftMs - lifeMs * (1 - renewAtShare), clock, signal);
    for (;;) {
      try {
        const token = makeToken(clock.now());
        using patience = anyOf(signal, AbortSignal.timeout(answerWithinMs));
        await put(token, patience);
        lifeMs = leftMs = token.expiresAt - clock.now();
        onRenewal?.(true);
        log.debug('token renewed', { expires: new Date(token.expiresAt).toISOString() });
        break;
      } catch (error) {
        signal.throwIfAborted();
        onRenewal?.(false);
        log.warn('the token could not be renewed, trying again', { error });
        await clock.sleep(lifeMs * retryShare, signal);
      }
    }
  }
}

async function due(afterMs: number, clock: Clock, signal: AbortSignal): Promise<void> {
  const over = new AbortController();
  using until = anyOf(signal, over.signal);
  const step = clockStep(clock, until);
  step.catch(() => undefined);
  try {
    await Promise.race([clock.sleep(afterMs, until), step]);
  } finally {
    over.abort();
  }
}
