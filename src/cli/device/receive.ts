import { Option } from 'commander';

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
import { addOutputOptions, type OutputFlags } from '../output.js';
import { count, duration } from '../values.js';

export interface ReceiveFlags extends IdentityFlags, ConnectionFlags, OutputFlags, LogFlags {
  settle: 'accept' | 'reject' | 'release';
  rejectReason?: string;
  exec?: string;
  count?: number;
  /** Milliseconds. */
  idle?: number;
  /** Milliseconds. */
  for?: number;
  format?: string;
  dump?: string;
  /** `-0`: NUL instead of the newline. */
  null?: boolean;
}

/** `iothub-device receive`: commands on standard output, settled by a flag or by a program. */
export function receiveCommand(io: Io): Subcommand {
  const command = new Subcommand('receive')
    .description('Print the commands that arrive, and settle each when its line is out.')
    .examples(
      'iothub-device receive -n 1',
      'iothub-device receive --for 10m -o json | jq .body',
      'iothub-device receive --settle reject --reject-reason "in maintenance" --idle 5s',
      'iothub-device receive --exec ./decide -- --dry-run       # its exit code decides: see help handlers',
    )
    .exits('ok', ['unavailable', 'unreachable'], 'refused')
    .argument('[args...]', 'arguments of the program that --exec names');
  const settling = (option: Option): Option => option.helpGroup('Settling:');
  const ending = (option: Option): Option => option.helpGroup('Ending:');
  const printing = (option: Option): Option => option.helpGroup('Output:');
  command
    .addOption(
      settling(
        new Option('--settle <outcome>', 'what to tell the hub')
          .choices(['accept', 'reject', 'release'])
          .default('accept'),
      ),
    )
    .addOption(settling(new Option('--reject-reason <text>', 'why, with --settle reject')))
    .addOption(
      settling(
        new Option('--exec <program>', 'gets each body on its standard input and decides').conflicts(
          'settle',
        ),
      ),
    )
    .addOption(ending(new Option('-n, --count <n>', 'stop after so many').argParser(count(1))))
    .addOption(ending(new Option('--idle <dur>', 'stop when none came for so long').argParser(duration)))
    .addOption(ending(new Option('--for <dur>', 'stop after so long').argParser(duration)))
    .addOption(
      printing(
        new Option(
          '--format <template>',
          'print this for each: {body} {messageId} {correlationId} {deviceId} {enqueuedAt} {deliveryCount} {prop.NAME}',
        ),
      ),
    )
    .addOption(printing(new Option('--dump <dir>', 'also write each body into a file of its own there')))
    .addOption(printing(new Option('-0, --null', 'end each with a NUL instead of a newline')));
  addOutputOptions(command, 'device');
  addIdentityOptions(command, 'device');
  addConnectionOptions(command, 'device');
  addLogOptions(command, 'device');
  return command.action(async (args: string[], flags: ReceiveFlags) => {
    const identity = await readDeviceIdentity(io, flags);
    const { deviceHub } = await import('./hub.js');
    const { receiveCommands } = await import('./receive-commands.js');
    const log = await openLog(io, flags, 'device', 'warn');
    await receiveCommands(io, await deviceHub(io, identity, { flags, log }), flags, args);
  });
}
