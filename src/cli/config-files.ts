import { existsSync, readdir, stat } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';
import { promisify } from 'node:util';

import type { ConfigText } from '../daemon/config-document.js';
import { AgentError, errorText, systemErrorCode } from '../errors.js';
import type { Io } from './io.js';
import { readSmallFile } from './small-file.js';

/** What `addConfigOption` leaves in a command's flags. */
export interface ConfigFlags {
  /** False: `--no-config`. */
  config?: string | false;
}

const fileName = 'config.toml';
/** Beside a configuration: files that add to it. */
const dropInFolder = 'conf.d';

/** Where a configuration is looked for when none is named, the first that is there wins. */
export function configPlaces({ env }: Pick<Io, 'env'>): string[] {
  const [systemd = ''] = (env['CONFIGURATION_DIRECTORY'] ?? '').split(':');
  return [userFolder(env), systemd === '' ? undefined : systemd, machineFolder]
    .filter((folder) => folder !== undefined)
    .map((folder) => join(folder, fileName));
}

/** Where this person, or the machine's administrator, would keep it. */
export function ownConfigPlace({ env }: Pick<Io, 'env'>): string {
  const isRoot = process.getuid?.() === 0;
  return join((isRoot ? undefined : userFolder(env)) ?? machineFolder, fileName);
}

const machineFolder = '/etc/iothub-device';

/** The XDG Base Directory Specification; a relative path in its variable is to be ignored. */
function userFolder(env: Io['env']): string | undefined {
  const config = env['XDG_CONFIG_HOME'] ?? '';
  if (isAbsolute(config)) return join(config, 'iothub-device');
  const home = env['HOME'] ?? '';
  return isAbsolute(home) ? join(home, '.config/iothub-device') : undefined;
}

/** The file that the flags name, or the first that is there; undefined: none. */
export function findConfig(io: Pick<Io, 'env'>, { config }: ConfigFlags): string | undefined {
  if (config !== undefined) return config === false ? undefined : config;
  return configPlaces(io).find((file) => existsSync(file));
}

/** Files beside a configuration that add to it, in the order in which they are read: that of their bytes. */
export async function dropInsOf(file: string): Promise<string[]> {
  const folder = join(dirname(file), dropInFolder);
  try {
    const names = (await promisify(readdir)(folder)).filter((name) => /^[^.].*\.(?:toml|json)$/.test(name));
    return names
      .sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
      .map((name) => join(folder, name));
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(systemErrorCode(error) ?? '')) return [];
    throw new AgentError('io', `cannot read ${folder}: ${errorText(error)}`, { cause: error });
  }
}

/** A configuration and its drop-ins. Errors: `no-input`, `io`. */
export async function readConfigTexts(file: string): Promise<ConfigText[]> {
  const files = [file, ...(await dropInsOf(file))];
  return Promise.all(
    files.map(async (one) => ({ file: one, text: await readSmallFile(one, 'the configuration') })),
  );
}

/** A program that writes a file bit by bit pauses no longer than this. */
const quietMs = 100;
const longestMs = 5_000;

/**
 * Waits until nobody has written to a configuration for a moment: one that is read half-way through its writing may be
 * a valid one. Errors: `try-again` when it goes on and on.
 */
export async function untilQuiet(file: string): Promise<void> {
  const until = Date.now() + longestMs;
  for (;;) {
    const ages = await Promise.all([file, ...(await dropInsOf(file))].map(ageMs));
    const wait = Math.max(...ages.map((age) => quietMs - age));
    if (wait <= 0) return;
    if (Date.now() > until) {
      throw new AgentError('try-again', `${file} or one of its drop-ins is still being written`);
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

/** Infinity when it is not there, or the clock was set back since: whoever reads it will see. */
async function ageMs(file: string): Promise<number> {
  const mtimeMs = await promisify(stat)(file).then(
    (stats) => stats.mtimeMs,
    () => undefined,
  );
  const age = mtimeMs === undefined ? Infinity : Date.now() - mtimeMs;
  return age < -quietMs ? Infinity : age;
}
