import { randomUUID } from 'node:crypto';

import type { Receiver } from 'rhea';

import { AgentError } from '../errors.js';
import { anyOf } from '../signals.js';
import { attached } from './attach.js';
import type { AmqpConnection } from './connection.js';
import { toAgentError } from './errors.js';
import { asCount } from './messages.js';
import { SessionScope } from './scope.js';

/** Where a link has to go instead (AMQP 1.0 transport, 2.8.17). */
export interface Redirect {
  host: string;
  port: number;
  /** `amqps://{host}:{port}/{what follows}` */
  address: string;
}

/** Asks to receive from `address`, and resolves with where the hub sends us instead. */
export async function redirectOf(
  connection: AmqpConnection,
  address: string,
  signal: AbortSignal,
): Promise<Redirect> {
  const scope = new SessionScope(connection);
  using until = anyOf(signal, connection.over);
  const receiver = scope.session.attach_receiver({
    name: `event link/${randomUUID()}`,
    source: { address },
    credit_window: 0,
  });
  try {
    await attached(receiver, 'receiver', until);
  } catch (error) {
    const redirect = readRedirect(receiver);
    if (redirect !== undefined) return redirect;
    throw toAgentError(error);
  } finally {
    scope.fail(new AgentError('unavailable', 'the answer is there'));
  }
  throw new AgentError('protocol', `the hub does not say where the events of ${address} are`);
}

function readRedirect({ error }: Receiver): Redirect | undefined {
  const { condition, info } = (error ?? {}) as { condition?: string; info?: Record<string, unknown> };
  if (condition !== 'amqp:link:redirect' || typeof info !== 'object') return undefined;
  const host = info['network-host'] ?? info['hostname'];
  const { address } = info;
  if (typeof host !== 'string' || typeof address !== 'string') return undefined;
  return { host, port: asCount(info['port']) ?? 5671, address };
}
