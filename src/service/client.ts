import { openAsking, type Asking } from '../amqp/asking.js';
import { Cbs } from '../amqp/cbs.js';
import { openConnection } from '../amqp/connection.js';
import { toAgentError } from '../amqp/errors.js';
import type { Endpoint } from '../amqp/socket.js';
import type { Clock } from '../clock.js';
import type { TokenMaker } from '../identity/token.js';
import type { Log } from '../log.js';

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

/** Connects with the policy's token. */
export async function openServiceClient(
  options: ServiceOptions,
  signal: AbortSignal,
): Promise<ServiceClient> {
  const connection = await openConnection(options, signal);
  try {
    const cbs = new Cbs(connection);
    await cbs.putToken(options.makeToken(options.clock.now()), signal);
    const asking = await openAsking(connection, signal);
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
