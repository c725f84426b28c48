import { Option } from 'commander';

import { AgentError } from '../errors.js';
import type { LogLevel } from '../log.js';
import { generalGroup, type Subcommand } from './help.js';
import type { Io } from './io.js';
import { countUp } from './values.js';
import { type Side, variable } from './variables.js';

export const logFormats = ['auto', 'text', 'json', 'journal'] as const;
export type LogFormat = (typeof logFormats)[number];

/** What `addLogOptions` leaves in a command's flags. */
export interface LogFlags {
  quiet?: boolean;
  verbose?: number;
  logFormat: LogFormat;
}

/** Options for what is said on standard error. */
export function addLogOptions(command: Subcommand, side: Side): Subcommand {
  const group = (option: Option): Option => option.helpGroup(generalGroup);
  return command
    .addOption(group(new Option('-q, --quiet', 'say errors only').conflicts('verbose')))
    .addOption(
      group(
        new Option(
          '-v, --verbose',
          `say more; -vv shows frames (env: ${variable(side, 'LOG_LEVEL')})`,
        ).argParser(countUp),
      ),
    )
    .addOption(
      group(
        new Option('--log-format <format>', 'how lines on standard error look')
          .choices(logFormats)
          .default('auto')
          .env(variable(side, 'LOG_FORMAT')),
      ),
    );
}

const levels: readonly LogLevel[] = ['error', 'warn', 'info', 'debug', 'trace'];

/** The level that the flags ask for, else the environment, else `fallback`. */
export function logLevel(io: Io, flags: LogFlags, side: Side, fallback: LogLevel): LogLevel {
  if (flags.quiet === true) return 'error';
  if (flags.verbose !== undefined) return flags.verbose > 1 ? 'trace' : 'debug';
  const name = variable(side, 'LOG_LEVEL');
  const wanted = io.env[name];
  if (wanted === undefined || wanted === '') return fallback;
  const level = levels.find((known) => known === wanted);
  if (level) return level;
  throw new AgentError('config', `${name} is "${wanted}"`, { hint: `it may be ${levels.join(', ')}` });
}
