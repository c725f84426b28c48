import { Option } from 'commander';

import type { OpenLog } from '../daemon/log-sink.js';
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
        new Option('-v, --verbose', `say more; -vv shows frames ($${variable(side, 'LOG_LEVEL')})`).argParser(
          countUp,
        ),
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

/**
 * Opens the log on standard error as the flags and the environment say; `fallback` is the level when neither names
 * one. journald is recognised by `JOURNAL_STREAM`, which holds the device and inode of the stream that goes to it.
 */
export async function openLog(
  io: Io,
  flags: LogFlags & { utc?: boolean },
  side: Side,
  fallback: LogLevel,
): Promise<OpenLog> {
  const { createLog } = await import('../daemon/log-sink.js');
  const { logFormat, utc = false } = flags;
  const { stderr } = io;
  const journal = logFormat === 'journal' || (logFormat !== 'text' && stderr.isJournal);
  return createLog({
    level: logLevel(io, flags, side, fallback),
    stream: stderr.stream,
    look: {
      format: logFormat === 'json' ? 'json' : 'text',
      journal,
      terminal: stderr.isTTY,
      colors: stderr.hasColors && !journal,
      utc,
    },
  });
}

const levels: readonly LogLevel[] = ['error', 'warn', 'info', 'debug', 'trace'];

/** What the flags say, else the environment, else `fallback`. */
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
