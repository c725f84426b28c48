import { addConfigOption, type ConfigFlags } from '../config-options.js';
import { Subcommand } from '../help.js';
import { addIdentityOptions, type IdentityFlags } from '../identity-options.js';
import type { Io } from '../io.js';
import { addLogOptions, openLog, type LogFlags } from '../log-options.js';
import { addOutputOptions, type OutputFlags } from '../output.js';

export interface StatusFlags extends ConfigFlags, IdentityFlags, OutputFlags, LogFlags {
  socket?: string;
  watch?: boolean;
}

/** `iothub-device status`: how the agent that runs here fares. */
export function statusCommand(io: Io): Subcommand {
  const command = new Subcommand('status')
    .description('Say how the running agent fares: connection, spool, token, handlers.')
    .examples(
      'iothub-device status',
      "iothub-device status -o json | jq '.spool.waiting.count'",
      'iothub-device status --watch',
    )
    .exits(
      ['ok', 'online'],
      ['unavailable', 'no agent runs'],
      ['try-again', 'it runs and is not online'],
      'usage',
    )
    .option('--watch', 'go on, with a line for every change, until it is interrupted')
    .option('--socket <path>', 'its control socket (default: that of the device, or the only one there is)');
  addConfigOption(command, 'device');
  addIdentityOptions(command, 'device');
  addOutputOptions(command, 'device');
  addLogOptions(command, 'device');
  return command.action(async (flags: StatusFlags) => {
    const log = await openLog(io, flags, 'device', 'warn');
    const { printStatus, watchStatus } = await import('./status-report.js');
    io.exitCode = await (flags.watch === true ? watchStatus(io, flags, log) : printStatus(io, flags, log));
  });
}
