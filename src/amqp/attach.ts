import type { Receiver, Sender } from 'rhea';

import { AgentError } from '../errors.js';
import { fromCondition } from './errors.js';
import { pending, untilEvent, type Reaction } from './events.js';

/**
 * Resolves when the hub has attached its end. A refusal comes as an attach without a terminus and a detach with the
 * error after it (AMQP 1.0 transport, 2.6.3), so the attach alone means nothing.
 */
export async function attached(
  link: Sender | Receiver,
  role: 'sender' | 'receiver',
  signal: AbortSignal,
): Promise<void> {
  const what = link.name.split('/')[0] ?? role;
  const refused: Reaction<never> = () => {
    const error = link.error as { condition?: string; description?: string } | undefined;
    throw error === undefined
      ? new AgentError('unavailable', `the hub refused the ${what} and gave no reason`, { retry: 'late' })
      : fromCondition(error, `the hub refused the ${what} and`);
  };
  await untilEvent<undefined>(
    link,
    {
      [`${role}_open`]: () => {
        return hasTerminus(role === 'sender' ? link.target : link.source) ? undefined : pending;
      },
      [`${role}_error`]: refused,
      [`${role}_close`]: refused,
    },
    signal,
  );
}

/** Whether the peer's attach named a source or target; rhea hands over a null as an object of its own. */
export function hasTerminus(terminus: unknown): boolean {
  return typeof terminus === 'object' && terminus !== null && 'address' in terminus;
}
