import { AgentError } from '../../errors.js';
import type { ServiceConnectionString } from '../../identity/connection-string.js';
import type { Log } from '../../log.js';
import { Registry } from '../../service/registry.js';
import type { Io } from '../io.js';
import { askRest } from './rest-options.js';
import type { ServiceSendFlags } from './send.js';

/** Takes all commands that wait for a device off its queue, and says on standard error how many there were. */
export async function purgeCommands(
  io: Io,
  identity: ServiceConnectionString,
  { deviceId, flags, log }: { deviceId: string; flags: ServiceSendFlags; log: Log },
): Promise<void> {
  if (flags.module !== undefined) {
    throw new AgentError('usage', 'the hub cannot purge the commands of a module alone', {
      hint: 'leave --module or --purge away',
    });
  }
  await askRest(io, identity, { ...flags, log }, async (rest, signal) => {
    const count = await new Registry(rest).purge(deviceId, signal);
    await io.stderr.write(`purged: ${String(count)}\n`);
  });
}
