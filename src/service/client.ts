import { openAsking, type Asking } from '../amqp/asking.js';
import { Cbs } from '../amqp/cbs.js';
import { openConnection } from '../amqp/connection.js';
import { toAgentError } from '../amqp/errors.js';
import { keepTokenFresh } from '../amqp/renewal.js';
import type { Endpoint } from '../amqp/socket.js';
import type { Clock } from '../clock.js';
import type { Token, TokenMaker } from '../identity/token.js';
import type { Log } from '../log.js';
import { anyOf } from '../signals.js';

export interface ServiceOptions {
  endpoint: Endpoint;
  /** Makes the token of a hub policy that may connect as a service. */
  makeToken: TokenMaker;
  clock: Clock;
  log: Log;
}

/** A connection to the hub's service side: `$cbs` on one session, everything else on another. */
export interface ServiceClient extends AsyncDisposable {
  /** Aborted when the connection is over; the reason says why. */
  readonly over: AbortSignal;
  readonly asking: Asking;
}

const openWithinMs = 30_000;

/** Connects with the policy's token, which is kept fresh. */
export async function openServiceClient(
  options: ServiceOptions,
  signal: AbortSignal,
): Promise<ServiceClient> {
  using patience = anyOf(signal, AbortSignal.timeout(openWithinMs));
  const connection = await openConnection(options, patience);
  try {
    using until = anyOf(patience, connection.over);
    const cbs = new Cbs(connection);
    await cbs.putToken(options.makeToken(options.clock.now()), until);
    const asking = await openAsking(connection, until);
    const put = (token: Token, end: AbortSignal) => cbs.putToken(token, end);
    // It ends with the connection, whose end is told elsewhere.
    keepTokenFresh({ ...options, put }, connection.over).catch(() => undefined);
    return {
      over: connection.over,
      asking,
      [Symbol.asyncDispose]: () => connection[Symbol.asyncDispose](),
    };
  } catch (error) {
    connection.fail(toAgentError(error));
    throw error;
  }
}
