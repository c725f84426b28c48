import { Subcommand } from '../help.js';
import { addConnectionOptions, addIdentityOptions, addTimeoutOption } from '../identity-options.js';
import type { Io } from '../io.js';
import { addLogOptions, openLog } from '../log-options.js';
import { addOutputOptions } from '../output.js';
import type { RestFlags } from './rest-options.js';

/** `iothub-service check`: what of the way to the hub works, and what does not. */
export function serviceCheckCommand(io: Io): Subcommand {
  const command = new Subcommand('check')
    .description('Try everything that this tool needs of the hub, step by step, and say what is wrong.')
    .examples('iothub-service check', 'iothub-service check -o json | jq \'select(.result != "ok")\'')
    .exits(['ok', 'all of it works'], 'host-unknown', 'unavailable', 'protocol', 'refused', 'config');
  addOutputOptions(command, 'service');
  addIdentityOptions(command, 'service');
  addConnectionOptions(command, 'service');
  addTimeoutOption(command);
  addLogOptions(command, 'service');
  return command.action(async (flags: RestFlags) => {
    const log = await openLog(io, flags, 'service', 'error');
    try {
      const { checkHub } = await import('./check-hub.js');
      io.exitCode = await checkHub(io, flags, log);
    } finally {
      await log.flush();
    }
  });
}
