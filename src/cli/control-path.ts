import { isAbsolute, join } from 'node:path';

import type { DeviceId } from '../model.js';
import type { Io } from './io.js';
import { nameFor } from './state-directory.js';

type Identity = DeviceId & { host: string };

const nameOfSocket = 'control.sock';
/** Of the agent that is a service of this machine: what `iothub-device.socket` says, and its runtime directory. */
const ofTheMachine = ['/run/iothub-device.sock', `/run/iothub-device/${nameOfSocket}`];
/** sockaddr_un has 108 bytes, with the zero at the end (unix(7)). */
const longestPath = 107;

/**
 * Where the agent of a device has its control socket: where the configuration says, else in the runtime directory that
 * systemd made, else among the user's. Undefined for none: it is configured as "", or nothing says where it belongs.
 */
export function controlPath(
  { env }: Pick<Io, 'env'>,
  identity: Identity,
  configured: string | undefined,
): string | undefined {
  if (configured !== undefined) return configured === '' ? undefined : configured;
  const runtime = runtimeDirectory(env);
  if (runtime !== undefined) return join(runtime, nameOfSocket);
  const folder = folderOfUser(env);
  return folder === undefined ? undefined : pathOfUser(folder, identity);
}

/** Where the agent of a device may have its socket, seen from another process: its own environment differs. */
export function controlPaths(
  io: Pick<Io, 'env'>,
  identity: Identity,
  configured: string | undefined,
): string[] {
  if (configured === '') return [];
  if (configured !== undefined) return [configured];
  const own = controlPath(io, identity, undefined);
  const folder = folderOfUser(io.env);
  const ofUser = folder === undefined ? undefined : pathOfUser(folder, identity);
  const paths = [own, ofUser, ...ofTheMachine];
  return [...new Set(paths.filter((path) => path !== undefined))];
}

/** The same when nobody says which device is meant. */
export async function controlPathsOfAll({ env }: Pick<Io, 'env'>): Promise<string[]> {
  const { readdir } = await import('node:fs/promises');
  const folder = folderOfUser(env);
  const names = folder === undefined ? [] : await readdir(folder).catch(() => []);
  const ofUser = names.filter((name) => name.endsWith('.sock')).map((name) => join(folder ?? '', name));
  const runtime = runtimeDirectory(env);
  const own = runtime === undefined ? [] : [join(runtime, nameOfSocket)];
  return [...new Set([...own, ...ofTheMachine, ...ofUser])];
}

function runtimeDirectory(env: Io['env']): string | undefined {
  const [first = ''] = (env['RUNTIME_DIRECTORY'] ?? '').split(':');
  return first === '' ? undefined : first;
}

function folderOfUser(env: Io['env']): string | undefined {
  const runtime = env['XDG_RUNTIME_DIR'] ?? '';
  return isAbsolute(runtime) ? join(runtime, 'iothub-device') : undefined;
}

function pathOfUser(folder: string, identity: Identity): string {
  const room = longestPath - Buffer.byteLength(folder) - '/.sock'.length;
  return join(folder, `${nameFor(identity, room)}.sock`);
}
