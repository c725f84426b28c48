import { readFile } from 'node:fs/promises';
import { Option } from 'commander';

import { addConfigOption, readConfigFile, type ConfigFlags } from '../config-options.js';
import { Subcommand } from '../help.js';
import { addConnectionOptions, addIdentityOptions } from '../identity-options.js';
import type { Io } from '../io.js';
import { addLogOptions, openLog } from '../log-options.js';
import { addOutputOptions, createPrinter, type OutputFlags, outputFormats } from '../output.js';
import { packageFile } from '../package-file.js';
import { variable } from '../variables.js';
import type { OverrideFlags } from './config/overrides.js';

/** `iothub-device config`: the configuration of the agent. */
export function configCommand(io: Io): Subcommand {
  const config = new Subcommand('config')
    .description(
      'The configuration of the agent: begin one, check it, see what holds. None of these needs a hub.',
    )
    .examples(
      'iothub-device config init                      # a file with every key, its default and what it means',
      'iothub-device config check --config agent.toml',
      'iothub-device config show --origin             # what holds, and who says so',
      'iothub-device config path',
      'iothub-device config schema > agent.schema.json',
    )
    .exits('ok', ['no-input', 'there is no configuration'], ['config', 'it cannot be used'])
    .more('See iothub-device help configuration for where it is looked for.');
  const verb = (name: string, description: string): Subcommand => {
    const command = new Subcommand(name).description(description);
    config.addCommand(command);
    return command;
  };
  addCheck(
    io,
    verb('check', 'say all that is wrong in it, and with the handlers, files and secrets it names'),
  );
  addShow(
    io,
    verb('show', 'print what holds as TOML: of the files, the flags, the environment; without secrets'),
  );
  addInit(io, verb('init', 'write one with every key, its default and what it means'));
  verb('schema', 'print its JSON Schema, with which editors check and complete')
    .exits('ok')
    .action(async () => {
      await io.stdout.write(await readFile(packageFile('config/agent.schema.json'), 'utf8'));
    });
  const path = addConfigOption(
    verb('path', 'print which files are read, and where else one is looked for'),
    'device',
  );
  addOutputOptions(path, 'device')
    .exits(['ok', 'there is one'], ['no-input', 'there is none'])
    .action(async (flags: ConfigFlags & OutputFlags) => {
      const { printPaths } = await import('./config/path.js');
      io.exitCode = await printPaths(io, flags, createPrinter(io, flags));
    });
  return config;
}

function addCheck(io: Io, check: Subcommand): void {
  check
    .examples(
      'iothub-device config check',
      'iothub-device config check --config agent.toml -o json | jq -r .what',
      'sudo systemctl reload iothub-device    # after a check: a file with a mistake is refused whole',
    )
    .exits(
      ['ok', 'it can be used; there may be warnings'],
      ['no-input', 'there is no such file'],
      ['config', 'it cannot'],
    );
  addRunOptions(check);
  addOutputOptions(check, 'device');
  check.action(async (flags: OverrideFlags & OutputFlags) => {
    const log = await openLog(io, flags, 'device', 'warn');
    const { checkConfig } = await import('./config/check.js');
    io.exitCode = await checkConfig(io, flags, log, createPrinter(io, flags));
  });
}

function addShow(io: Io, show: Subcommand): void {
  show
    .examples(
      'iothub-device config show --origin',
      "iothub-device config show --config agent.toml -o json | jq '.spool'",
    )
    .exits('ok', ['no-input', 'there is no such file'], ['config', 'it cannot be used'])
    .option('--origin', 'say of each key where its value is from: flag, environment, file and line, default');
  addRunOptions(show);
  show.addOption(
    new Option('-o, --output <format>', 'auto and text are TOML')
      .choices(outputFormats)
      .default('auto')
      .env(variable('device', 'OUTPUT'))
      .helpGroup('Output:'),
  );
  show.action(async (flags: OverrideFlags & OutputFlags & { origin?: boolean }) => {
    if (flags.output === 'none') return;
    const { overridesOf } = await import('./config/overrides.js');
    const { showConfig } = await import('./config/show.js');
    await showConfig(io, await readConfigFile(io, flags), overridesOf(io, show, flags), {
      format: flags.output === 'json' ? 'json' : 'toml',
      origin: flags.origin === true,
    });
  });
}

function addInit(io: Io, init: Subcommand): void {
  init
    .examples(
      'iothub-device config init',
      'sudo iothub-device config init /etc/iothub-device/config.toml',
      'iothub-device config init -              # to standard output',
    )
    .exits('ok', ['cannot-create', 'it is there already, or cannot be made'])
    .argument('[file]', 'where; without it the place of this user, or of the machine for root')
    .option('--force', 'put it in the place of the one that is there')
    .action(async (file: string | undefined, { force = false }: { force?: boolean }) => {
      const { initConfig } = await import('./config/init.js');
      await initConfig(io, file, { force });
    });
}

/** Those of `run` that its configuration has keys for, too. */
function addRunOptions(command: Subcommand): void {
  addConfigOption(command, 'device');
  addIdentityOptions(command, 'device');
  addConnectionOptions(command, 'device');
  addLogOptions(command, 'device');
}
