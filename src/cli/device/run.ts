import { Option } from 'commander';

import { AgentError } from '../../errors.js';
import {
  addConnectionOptions,
  addIdentityOptions,
  readDeviceIdentity,
  type ConnectionFlags,
  type IdentityFlags,
} from '../identity-options.js';
import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { addLogOptions, openLog, type LogFlags } from '../log-options.js';

export interface RunFlags extends IdentityFlags, ConnectionFlags, LogFlags {
  exec?: string;
}

/** `iothub-device run`: the agent. */
export function runCommand(io: Io): Subcommand {
  const command = new Subcommand('run')
    .description(
      'Stay connected to the hub and give every command to a handler: exit 0 accepts it, 75 asks for it again later, anything else rejects it.',
    )
    .examples('iothub-device run --exec ./greet', 'iothub-device run --exec ./greet -- --loud')
    .exits(['ok', 'stopped by SIGTERM or SIGINT'], 'usage', 'bug', 'config')
    .argument('[args...]', 'arguments of the program that --exec names')
    .addOption(
      new Option(
        '--exec <program>',
        'gets each command: body on standard input, IOTHUB_* in the environment',
      ),
    );
  addIdentityOptions(command, 'device');
  addConnectionOptions(command, 'device');
  addLogOptions(command, 'device');
  return command.action(async (args: string[], flags: RunFlags) => {
    if (flags.exec === undefined) {
      throw new AgentError('usage', 'no handler for commands', {
        hint: 'name a program with --exec PROGRAM',
      });
    }
    const identity = await readDeviceIdentity(io, flags);
    const { deviceHub } = await import('./hub.js');
    const { runDevice } = await import('./run-device.js');
    const { programHandler } = await import('../../handlers/program.js');
    const log = await openLog(io, flags, 'device', 'info');
    const hub = await deviceHub(identity, { ...flags, log });
    await runDevice(io, hub, { handlers: [programHandler({ name: flags.exec, file: flags.exec, args })] });
  });
}
