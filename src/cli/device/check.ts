import { Option } from 'commander';

import { addConfigOption, type ConfigFlags } from '../config-options.js';
import { Subcommand } from '../help.js';
import {
  addConnectionOptions,
  addIdentityOptions,
  addTimeoutOption,
  type ConnectionFlags,
  type IdentityFlags,
  type TimeoutFlags,
} from '../identity-options.js';
import type { Io } from '../io.js';
import { addLogOptions, openLog, type LogFlags } from '../log-options.js';
import { addOutputOptions, type OutputFlags } from '../output.js';
import { duration } from '../values.js';

export interface CheckFlags
  extends ConfigFlags, IdentityFlags, ConnectionFlags, TimeoutFlags, OutputFlags, LogFlags {
  force?: boolean;
  facts?: string;
  /** Milliseconds. */
  watchExpiry?: number;
}

/** `iothub-device check`: what of the way to the hub works, and what does not. */
export function checkCommand(io: Io): Subcommand {
  const command = new Subcommand('check')
    .description(
      'Try everything between this device and its hub, step by step, and say what is wrong and what to do. ' +
        'A running agent keeps its connection: the steps that would take it away are left out.',
    )
    .examples(
      'iothub-device check',
      'iothub-device check -c /etc/iothub-device/config.toml',
      'iothub-device check -o json | jq \'select(.result == "failed")\'',
      'iothub-device check --facts hub.json   # what the hub answered, without names and secrets',
    )
    .exits(
      ['ok', 'all of it works; warnings are allowed'],
      ...([
        'no-input',
        'no-device',
        'host-unknown',
        'unavailable',
        'io',
        'protocol',
        'refused',
        'config',
      ] as const),
    )
    .option('--force', 'log in although an agent runs, which is offline for a minute then')
    .option('--facts <file>', 'write there what the hub answered, for who has no hub to ask')
    .addOption(
      new Option('--watch-expiry <dur>', 'with --facts: how the hub ends a token that has run out').argParser(
        duration,
      ),
    );
  addConfigOption(command, 'device');
  addOutputOptions(command, 'device');
  addIdentityOptions(command, 'device');
  addConnectionOptions(command, 'device');
  addTimeoutOption(command);
  addLogOptions(command, 'device');
  return command.action(async (flags: CheckFlags) => {
    const log = await openLog(io, flags, 'device', 'error');
    try {
      const { check } = await import('./check/check.js');
      io.exitCode = await check(io, flags, log);
    } finally {
      await log.flush();
    }
  });
}
