import { keepTokenFresh, type Renewal } from '../amqp/renewal.js';
import type { HubSession } from '../amqp/session.js';
import type { Token, TokenMaker } from '../identity/token.js';
import { anyOf } from '../signals.js';

interface TokenOptions extends Pick<Renewal, 'clock' | 'log' | 'onRenewal'> {
  /** Undefined for who has a certificate: that needs no token. */
  makeToken: TokenMaker | undefined;
}

/** Keeps the session's token fresh while `work` goes on. */
export async function renewTokensDuring<T>(
  session: Pick<HubSession, 'token' | 'renewToken' | 'over'>,
  { makeToken, clock, log, onRenewal }: TokenOptions,
  work: () => Promise<T>,
): Promise<T> {
  if (makeToken === undefined) return work();
  const done = new AbortController();
  using until = anyOf(done.signal, session.over);
  const put = (token: Token, signal: AbortSignal) => session.renewToken(token, signal);
  // The connection may be older than this work, and its token with it.
  const renewal = { token: session.token, makeToken, put, clock, log, onRenewal };
  // It ends by the session's end or by ours, and both are told elsewhere.
  keepTokenFresh(renewal, until).catch(() => undefined);
  try {
    return await work();
  } finally {
    done.abort();
  }
}
