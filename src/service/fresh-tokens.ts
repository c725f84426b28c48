import type { Clock } from '../clock.js';
import type { Token, TokenMaker } from '../identity/token.js';
import type { Log } from '../log.js';
import { anyOf } from '../signals.js';

/** A token is replaced when this much of its life is over, as the C SDK does. */
const renewAtShare = 0.8;
const answerWithinMs = 30_000;

/**
 * Puts new tokens for as long as the connection lasts; rejects when that ends, and when one is not taken: then the
 * connection is not worth having.
 */
export async function keepTokensFresh(
  put: (token: Token, signal: AbortSignal) => Promise<unknown>,
  { makeToken, clock, log }: { makeToken: TokenMaker; clock: Clock; log: Log },
  over: AbortSignal,
): Promise<never> {
  for (;;) {
    const lifeMs = makeToken(clock.now()).expiresAt - clock.now();
    await clock.sleep(lifeMs * renewAtShare, over);
    using until = anyOf(over, AbortSignal.timeout(answerWithinMs));
    await put(makeToken(clock.now()), until);
    log.debug('token renewed');
  }
}
