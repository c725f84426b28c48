import { Option } from 'commander';

import type { AgentConfig } from '../../daemon/config.js';
import { AgentError, systemErrorCode } from '../../errors.js';
import type { DeviceConnectionString } from '../../identity/connection-string.js';
import type { Log } from '../../log.js';
import type { Store, StoreOptions } from '../../store/store.js';
import { findConfig } from '../config-files.js';
import { addConfigOption, readConfig, type ConfigFlags } from '../config-options.js';
import { addIdentityOptions, readDeviceIdentity, type IdentityFlags } from '../identity-options.js';
import type { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { addLogOptions, type LogFlags } from '../log-options.js';
import { storeDirectory } from '../state-directory.js';

/** What `addSpoolOptions` leaves in a command's flags. */
export interface SpoolFlags extends ConfigFlags, IdentityFlags, LogFlags {
  directory?: string;
}

/** Options that say which spool is meant: by who the device is, by the configuration, or by its directory. */
export function addSpoolOptions(command: Subcommand): Subcommand {
  command.addOption(directoryOption());
  addConfigOption(command, 'device');
  addIdentityOptions(command, 'device');
  return addLogOptions(command, 'device');
}

export function directoryOption(): Option {
  return new Option('--directory <dir>', 'where the spool is (default: the place of this device)');
}

/** Where telemetry waits, and how much of it may. */
export type SpoolPlace = Pick<StoreOptions, 'directory' | 'spool'>;

/** The configuration that the flags name or that is found; undefined when there is none, and no time goes into reading it. */
export async function namedConfig(io: Io, flags: ConfigFlags): Promise<AgentConfig | undefined> {
  return findConfig(io, flags) === undefined ? undefined : readConfig(io, flags);
}

/** The spool of a device. */
export function spoolOf(
  io: Io,
  identity: DeviceConnectionString,
  { directory }: { directory?: string },
  config: AgentConfig | undefined,
): SpoolPlace {
  return {
    directory: storeDirectory(io, identity, directory ?? config?.spool.directory),
    spool: config?.spool ?? withoutConfig,
  };
}

/** The spool that the flags mean. */
export async function findSpool(io: Io, flags: SpoolFlags): Promise<SpoolPlace> {
  const config = await namedConfig(io, flags);
  return placeOf(io, flags, config, () => readDeviceIdentity(io, flags, config?.hub));
}

/** The same with what was read already. Who the device is, is asked only when its place depends on that. */
export async function placeOf(
  io: Io,
  flags: Pick<SpoolFlags, 'directory'>,
  config: AgentConfig | undefined,
  whoItIs: () => Promise<DeviceConnectionString>,
): Promise<SpoolPlace> {
  if (flags.directory !== undefined) await mustBeThere(flags.directory);
  const directory = flags.directory ?? config?.spool.directory;
  if (directory !== undefined) return { directory, spool: config?.spool ?? withoutConfig };
  return spoolOf(io, await whoItIs(), flags, config);
}

/** How long telemetry may wait is known to the configuration of the agent: who does not know it drops nothing. */
const withoutConfig = { maximumAgeMs: Infinity };

/** A mistyped name should not make a store. */
async function mustBeThere(directory: string): Promise<void> {
  const { stat } = await import('node:fs/promises');
  try {
    await stat(directory);
  } catch (error) {
    if (systemErrorCode(error) !== 'ENOENT') throw error;
    throw new AgentError('no-input', `there is no spool in ${directory}`);
  }
}

/** How long the same process may have the store before nobody waits for it any more. */
const patienceMs = 1_000;
/** How long it may be had by one after the other. */
const longestQueueMs = 30_000;

/**
 * Opens the store of a spool for this process alone. Those who only append take turns; one that stays is an agent,
 * and that is the error: `try-again` with its pid and what to do.
 */
export async function openSpool(
  place: SpoolPlace,
  options: { log: Log; whileInUse: string },
): Promise<Store> {
  const { openStore } = await import('../../store/store.js');
  const { StoreInUse } = await import('../../store/log/owner.js');
  const startedAt = performance.now();
  let owner = { pid: 0, since: startedAt };
  for (;;) {
    try {
      return await openStore({ ...place, log: options.log, ledger: { replyMessage: noReplies } });
    } catch (error) {
      if (!(error instanceof StoreInUse)) throw error;
      const now = performance.now();
      if (error.pid !== owner.pid) owner = { pid: error.pid, since: now };
      if (now - owner.since > patienceMs || now - startedAt > longestQueueMs) {
        throw new StoreInUse(place.directory, error.pid, options.whileInUse);
      }
    }
  }
}

function noReplies(): never {
  throw new AgentError('bug', 'a command was handled by something that handles none');
}
