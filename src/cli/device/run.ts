import { Option } from 'commander';

import { AgentError } from '../../errors.js';
import { configPlaces, findConfig } from '../config-files.js';
import { addConfigOption, readConfigAgain, readConfigFile, type ConfigFlags } from '../config-options.js';
import {
  addConnectionOptions,
  addIdentityOptions,
  readDeviceIdentity,
  type ConnectionFlags,
  type IdentityFlags,
} from '../identity-options.js';
import type { AgentConfig } from '../../daemon/config.js';
import type { HandlerSurroundings } from '../../daemon/handlers.js';
import { controlPath } from '../control-path.js';
import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { moduleProcess } from '../module-process.js';
import { storeDirectory } from '../state-directory.js';
import { addLogOptions, logLevel, openLog, type LogFlags } from '../log-options.js';

interface RunFlags extends ConfigFlags, IdentityFlags, ConnectionFlags, LogFlags {
  exec?: string;
}

/** `iothub-device run`: the agent. */
export function runCommand(io: Io): Subcommand {
  const command = new Subcommand('run')
    .description(
      'Stay connected to the hub and give every command to a handler: exit 0 accepts it, 75 asks for it again later, anything else rejects it.',
    )
    .examples(
      'iothub-device run --exec ./greet',
      'iothub-device run --exec ./greet -- --loud',
      'iothub-device run --config /etc/iothub-device/config.toml',
    )
    .exits(['ok', 'stopped by SIGTERM or SIGINT'], 'usage', 'bug', 'config')
    .argument('[args...]', 'arguments of the program that --exec names')
    .addOption(
      new Option(
        '--exec <program>',
        'one handler for all: body on standard input, IOTHUB_* in the environment',
      ),
    );
  addConfigOption(command, 'device');
  addIdentityOptions(command, 'device');
  addConnectionOptions(command, 'device');
  addLogOptions(command, 'device');
  return command.action((args: string[], flags: RunFlags) => run(io, args, flags));
}

async function run(io: Io, args: string[], flags: RunFlags): Promise<void> {
  const file = findConfig(io, flags);
  // With --no-config somebody wants just that: telemetry only.
  if (flags.exec === undefined && file === undefined && flags.config === undefined) {
    throw new AgentError('usage', 'no handler for commands', {
      hint: `name a program with --exec PROGRAM, or a configuration with --config FILE;\nthere is no ${configPlaces(io).join(', ')}`,
    });
  }
  const parsed = await readConfigFile(io, { config: file ?? false });
  const { config } = parsed;
  const identity = await readDeviceIdentity(io, flags, config.hub);
  const logFormat = flags.logFormat === 'auto' ? config.log.format : flags.logFormat;
  const log = await openLog(io, { ...flags, logFormat }, 'device', config.log.level);

  const { deviceHub } = await import('./hub.js');
  const { runDevice } = await import('./run-device.js');
  const { passedSocket } = await import('../../daemon/control-socket.js');
  const { placeHandlers } = await import('../../daemon/handlers.js');
  const { programHandler } = await import('../../handlers/program.js');
  const { hub, commands, shutdown, inbox } = config;
  const path = controlPath(io, identity, config.control.socket);
  const control = passedSocket(io.env) ?? (path === undefined ? undefined : { from: 'path' as const, path });
  // Named by hand for this run, so whether others could change it is not asked.
  const one = (file: string) => programHandler({ name: file, file, args, checkPermissions: false });
  const makeHandlers = async (wanted: AgentConfig, surroundings: HandlerSurroundings) => {
    if (flags.exec !== undefined) return { handlers: [one(flags.exec)], refused: [] };
    const placed = await placeHandlers(wanted, { ...surroundings, isolated: moduleProcess });
    return {
      handlers: placed.map(({ handler }) => handler),
      refused: placed.flatMap(({ handler: { name }, refused: reason }) =>
        reason === undefined ? [] : [{ name, reason }],
      ),
    };
  };
  // As configured; a reload changes it.
  let level = logLevel(io, flags, 'device', config.log.level);
  log.debug('configuration', { files: parsed.files.join(', ') || 'none' });
  const reload = file !== undefined && {
    current: parsed,
    read: () => readConfigAgain(io, file),
    apply: (wanted: AgentConfig) => {
      level = logLevel(io, flags, 'device', wanted.log.level);
      log.setLevel(level);
      return Promise.resolve();
    },
  };
  await runDevice(io, await deviceHub(io, identity, { flags, configured: hub, log }), {
    handling: { ...commands, ...shutdown },
    makeHandlers,
    store: { directory: storeDirectory(io, identity, config.spool.directory), spool: config.spool, inbox },
    dedupeMs: commands.dedupeMs,
    control,
    config,
    setDebug: (isOn) => {
      log.setLevel(isOn && level !== 'trace' ? 'debug' : level);
    },
    reload: reload || undefined,
  });
}
