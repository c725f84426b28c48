import { Option } from 'commander';

import type { AgentConfig, ParsedConfig } from '../daemon/config.js';
import type { Subcommand } from './help.js';
import type { Io } from './io.js';
import { openToOthers, readSmallFile } from './small-file.js';
import { type Side, variable } from './variables.js';

/** What `addConfigOption` leaves in a command's flags. */
export interface ConfigFlags {
  config?: string;
}

export function addConfigOption(command: Subcommand, side: Side): Subcommand {
  return command.addOption(
    new Option('-c, --config <file>', 'configuration, TOML or JSON').env(variable(side, 'CONFIG')),
  );
}

/** The configuration that the flags name, or the defaults. `config` with every problem when there are any. */
export async function readConfig(io: Io, flags: ConfigFlags): Promise<AgentConfig> {
  return (await readConfigFile(io, flags)).config;
}

/** The same with what is known of the file. */
export async function readConfigFile(io: Io, { config: file }: ConfigFlags): Promise<ParsedConfig> {
  const { parseConfigFile } = await import('../daemon/config.js');
  if (file === undefined) return parseConfigFile('', 'the defaults');
  const parsed = parseConfigFile(await readSmallFile(file, 'the configuration'), file);
  const { config } = parsed;
  const mode = config.hub.connectionString?.from === 'text' ? await openToOthers(file) : undefined;
  if (mode !== undefined) {
    await io.stderr.write(
      `warning: ${file} holds a key, and its permissions are open to others (${mode}); chmod 600 ${file}\n`,
    );
  }
  return parsed;
}
