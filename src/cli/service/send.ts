import { Option } from 'commander';

import { AgentError } from '../../errors.js';
import {
  addConnectionOptions,
  addIdentityOptions,
  addTimeoutOption,
  readServiceIdentity,
  type ConnectionFlags,
  type IdentityFlags,
  type TimeoutFlags,
} from '../identity-options.js';
import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { addLogOptions, openLog, type LogFlags } from '../log-options.js';
import { addMessageOptions, type MessageFlags } from '../message-options.js';
import { addOutputOptions, createPrinter, type OutputFlags } from '../output.js';
import { duration } from '../values.js';

export interface ServiceSendFlags
  extends MessageFlags, IdentityFlags, ConnectionFlags, TimeoutFlags, OutputFlags, LogFlags {
  module?: string;
  /** Milliseconds; `true` without a value. */
  wait?: number | true;
  /** First take off what waits for the device. */
  purge?: boolean;
}

/** `iothub-service send`: commands for a device, and the feedback on them. */
export function serviceSendCommand(io: Io): Subcommand {
  const command = new Subcommand('send')
    .description('Send commands to a device. Without --wait it is done when the hub has queued them.')
    .examples(
      'iothub-service send dev1 --data reboot --wait',
      `iothub-service send dev1 --data '{"interval":5}' --prop command=set-interval --ack full`,
      'iothub-service send dev1 --lines --wait 5m < commands.txt',
      'iothub-service send --ndjson --wait < commands.ndjson     # {"deviceId":"dev1","bodyText":"reboot"} …',
      'iothub-service send dev1 --purge',
    )
    .exits(
      ['ok', 'queued, or with --wait accepted by the device'],
      ['data', 'rejected by the device or the hub'],
      'no-device',
      ['unavailable', 'unreachable, or no feedback in time'],
      ['try-again', 'queue full, expired, purged or delivered too often'],
      'refused',
    )
    .argument('[device]', 'device id; with --ndjson each line may name its own');
  addMessageOptions(command, 'command')
    .option('--module <id>', 'a module of the device')
    .addOption(
      new Option('--wait [dur]', 'ask for feedback and exit by it (default: wait 60s)').argParser(duration),
    );
  command.option('--purge', 'first take off the commands that wait for the device; alone it is all');
  addIdentityOptions(command, 'service');
  addConnectionOptions(command, 'service');
  addTimeoutOption(command);
  addOutputOptions(command, 'service');
  addLogOptions(command, 'service');
  return command.action(async (deviceId: string | undefined, flags: ServiceSendFlags) => {
    const identity = await readServiceIdentity(io, flags);
    const log = await openLog(io, flags, 'service', 'warn');
    if (deviceId === undefined && (flags.ndjson !== true || flags.purge === true)) {
      throw new AgentError('usage', 'for which device?', {
        hint: 'name it, or send lines that name it with --ndjson',
      });
    }
    if (flags.purge === true && deviceId !== undefined) {
      const { purgeCommands } = await import('./purge-commands.js');
      await purgeCommands(io, identity, { deviceId, flags, log });
      if (!hasBody(flags)) return;
    }
    const { openCommands } = await import('../message-input.js');
    const input = await openCommands(io, flags, AbortSignal.any([io.stop, io.stdout.readerGone]));
    const { serviceHub } = await import('./hub.js');
    const { sendCommands } = await import('./send-commands.js');
    const hub = await serviceHub(io, identity, { ...flags, log });
    io.exitCode = await sendCommands(io, hub, {
      commands: input.items,
      to: deviceId === undefined ? undefined : { deviceId, moduleId: flags.module },
      waitMs: flags.wait === true ? 60_000 : flags.wait,
      onError: flags.onError ?? (input.kind === 'one' ? 'stop' : 'continue'),
      timeoutMs: flags.timeout,
      printer: createPrinter(io, flags),
    });
  });
}

function hasBody({ data, dataFile, stdin, lines, ndjson }: MessageFlags): boolean {
  return [data, dataFile, stdin, lines, ndjson].some((flag) => flag !== undefined);
}
