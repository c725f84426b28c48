import { Option } from 'commander';

import type { Subcommand } from './help.js';
import { count, duration } from './values.js';

/** What `addEndingOptions` leaves in a command's flags. */
export interface EndingFlags {
  count?: number;
  /** Milliseconds. */
  idle?: number;
  /** Milliseconds. */
  for?: number;
}

/** When a command ends that would go on for ever. */
export function addEndingOptions(command: Subcommand): Subcommand {
  const ending = (option: Option): Option => option.helpGroup('Ending:');
  return command
    .addOption(ending(new Option('-n, --count <n>', 'stop after so many').argParser(count(1))))
    .addOption(ending(new Option('--idle <dur>', 'stop when none came for so long').argParser(duration)))
    .addOption(ending(new Option('--for <dur>', 'stop after so long').argParser(duration)));
}
