import { addConfigOption, type ConfigFlags } from '../config-options.js';
import type { Subcommand } from '../help.js';
import {
  addConnectionOptions,
  addIdentityOptions,
  addTimeoutOption,
  type ConnectionFlags,
  type IdentityFlags,
  type TimeoutFlags,
} from '../identity-options.js';
import { addLogOptions, type LogFlags } from '../log-options.js';
import { addOutputOptions, type OutputFlags } from '../output.js';

/** What `addSendingOptions` leaves in a command's flags. */
export interface SendingFlags
  extends ConfigFlags, IdentityFlags, ConnectionFlags, TimeoutFlags, OutputFlags, LogFlags {}

/** What every command takes that sends telemetry over a connection of its own. */
export function addSendingOptions(command: Subcommand): void {
  addConfigOption(command, 'device');
  addIdentityOptions(command, 'device');
  addConnectionOptions(command, 'device');
  addTimeoutOption(command);
  addOutputOptions(command, 'device');
  addLogOptions(command, 'device');
}
