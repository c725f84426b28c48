import { Option } from 'commander';

import type { AgentConfig, ParsedConfig } from '../daemon/config.js';
import { AgentError } from '../errors.js';
import { type ConfigFlags, findConfig, readConfigTexts, untilQuiet } from './config-files.js';
import type { Subcommand } from './help.js';
import type { Io } from './io.js';
import { openToOthers } from './small-file.js';
import { type Side, variable } from './variables.js';

export type { ConfigFlags };

export function addConfigOption(command: Subcommand, side: Side): Subcommand {
  return command
    .addOption(
      new Option('-c, --config <file>', 'configuration, TOML or JSON; see help configuration').env(
        variable(side, 'CONFIG'),
      ),
    )
    .addOption(new Option('--no-config', 'read none'));
}

/** The configuration that the flags name or that is found, or the defaults. `config` with every problem when there are any. */
export async function readConfig(io: Io, flags: ConfigFlags): Promise<AgentConfig> {
  return (await readConfigFile(io, flags)).config;
}

/** The same with what is known of the files. */
export async function readConfigFile(io: Io, flags: ConfigFlags): Promise<ParsedConfig> {
  const { parseConfigFiles } = await import('../daemon/config.js');
  const file = findConfig(io, flags);
  const texts = file === undefined ? [] : await readConfigTexts(file).catch(withWayOut(flags));
  const parsed = parseConfigFiles(texts);
  await warnOfOpenFiles(io, parsed);
  return parsed;
}

/** The same for an agent that has it and reads it again. */
export async function readConfigAgain(io: Io, file: string): Promise<ParsedConfig> {
  await untilQuiet(file);
  return readConfigFile(io, { config: file });
}

/** Nobody has asked for a file that was found, so it has to be said how to do without. */
function withWayOut({ config }: ConfigFlags): (error: unknown) => never {
  return (error) => {
    if (!(error instanceof AgentError) || config !== undefined) throw error;
    throw new AgentError(error.code, error.message, {
      hint: 'name another with --config FILE, or do without by --no-config',
      cause: error.cause,
    });
  };
}

async function warnOfOpenFiles(io: Io, { config, placeOf }: ParsedConfig): Promise<void> {
  if (config.hub.connectionString?.from !== 'text') return;
  const file = placeOf(['hub', 'connection_string'])?.file;
  const mode = file === undefined ? undefined : await openToOthers(file);
  if (file === undefined || mode === undefined) return;
  await io.stderr.write(
    `warning: ${file} holds a key, and its permissions are open to others (${mode}); chmod 600 ${file}\n`,
  );
}
