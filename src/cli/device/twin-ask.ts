import { toAgentError } from '../../amqp/errors.js';
import type { TwinLink } from '../../amqp/twin.js';
import { anyOf } from '../../signals.js';
import type { Io } from '../io.js';
import type { DeviceHub } from './hub.js';

/** Opens the twin for one question and closes it again; all within the time, and until the first signal. */
export async function askTwin<T>(
  io: Io,
  hub: DeviceHub,
  { timeout }: { timeout: number },
  ask: (twin: TwinLink, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const patience = Number.isFinite(timeout) ? [AbortSignal.timeout(timeout)] : [];
  using until = anyOf(io.stop, ...patience);
  try {
    await using session = await hub.open([], until);
    return await ask(await session.openTwin(until), until);
  } catch (error) {
    io.stop.throwIfAborted();
    throw toAgentError(error);
  }
}
