import { createHash } from 'node:crypto';
import { isAbsolute, join } from 'node:path';

import { AgentError } from '../errors.js';
import type { DeviceId } from '../model.js';
import type { Io } from './io.js';

/**
 * Where a device keeps what must survive: the directory that is configured, as it is, or one of its own among the
 * state of this program. Hub, device and module are in its name, so that two devices on one machine never share one.
 * Errors: `config` when nothing says where state belongs.
 */
export function storeDirectory(
  io: Pick<Io, 'env'>,
  identity: DeviceId & { host: string },
  configured?: string,
): string {
  return configured ?? join(stateDirectory(io), nameFor(identity));
}

/** As systemd says (`StateDirectory=`, systemd.exec(5)), else as the XDG Base Directory Specification does. */
function stateDirectory({ env }: Pick<Io, 'env'>): string {
  const [systemd = ''] = (env['STATE_DIRECTORY'] ?? '').split(':');
  if (systemd !== '') return systemd;
  const xdg = env['XDG_STATE_HOME'] ?? '';
  // The specification: a relative path is to be ignored.
  if (isAbsolute(xdg)) return join(xdg, 'iothub-device');
  const home = env['HOME'] ?? '';
  if (isAbsolute(home)) return join(home, '.local/state/iothub-device');
  throw new AgentError('config', 'there is no place for the spool: HOME is not set', {
    hint: 'name one as "directory" under [spool] in the configuration, or set XDG_STATE_HOME or HOME',
  });
}

/** Names of files have 255 bytes at most, and ids with many special characters would be longer. */
const longestName = 200;

/** A name for files of a device, different from that of every other. */
export function nameFor(
  { host, deviceId, moduleId }: DeviceId & { host: string },
  longest: number = longestName,
): string {
  const parts =
    moduleId === undefined ? [host.toLowerCase(), deviceId] : [host.toLowerCase(), deviceId, moduleId];
  const name = parts.map(encodePart).join('_');
  if (name.length <= longest) return name;
  const digest = createHash('sha256').update(name).digest('hex').slice(0, 32);
  return `${name.slice(0, Math.max(0, longest - digest.length - 1))}_${digest}`;
}

/** `_` is what separates the parts, so it is encoded too. */
function encodePart(text: string): string {
  return encodeURIComponent(text).replace(
    /[_!'()*~]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}
