import type { HubSession } from '../amqp/session.js';
import { clockStep, type Clock } from '../clock.js';
import type { TokenMaker } from '../identity/token.js';
import type { Log } from '../log.js';
import { anyOf } from '../signals.js';

/** A token is replaced when this much of its life is over, as the C SDK does. */
const renewAtShare = 0.8;
/** How long one renewal may take, and how long to wait before the next try when it failed. */
const answerWithinMs = 30_000;
const retryShare = 0.02;

/** Keeps the session's token fresh while `work` goes on. */
export async function renewTokensDuring<T>(
  session: Pick<HubSession, 'token' | 'renewToken' | 'over'>,
  { makeToken, clock, log }: { makeToken: TokenMaker; clock: Clock; log: Log },
  work: () => Promise<T>,
): Promise<T> {
  const done = new AbortController();
  // It ends by the session's end or by ours, and both are told elsewhere.
  renewTokens(session, makeToken, { clock, log, until: done.signal }).catch(() => undefined);
  try {
    return await work();
  } finally {
    done.abort();
  }
}

/**
 * Keeps the session's token fresh until the session is over. The schedule is kept by the monotonic clock: a wall
 * clock that steps backwards would otherwise make an expired token look new. A clock that was set means a new token at
 * once, because the old one carries a time that was wrong.
 */
async function renewTokens(
  session: Pick<HubSession, 'token' | 'renewToken' | 'over'>,
  makeToken: TokenMaker,
  { clock, log, until }: { clock: Clock; log: Log; until: AbortSignal },
): Promise<void> {
  using signal = anyOf(until, session.over);
  let lifeMs = makeToken(clock.now()).expiresAt - clock.now();
  // The connection may be older than these links, and its token with it.
  let leftMs = Math.min(lifeMs, (session.token?.expiresAt ?? Infinity) - clock.now());
  for (;;) {
    await due(leftMs - lifeMs * (1 - renewAtShare), clock, signal);
    for (;;) {
      try {
        const token = makeToken(clock.now());
        using patience = anyOf(signal, AbortSignal.timeout(answerWithinMs));
        await session.renewToken(token, patience);
        lifeMs = leftMs = token.expiresAt - clock.now();
        log.debug('token renewed', { expires: new Date(token.expiresAt).toISOString() });
        break;
      } catch (error) {
        signal.throwIfAborted();
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
