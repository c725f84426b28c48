import { access, constants } from 'node:fs/promises';

import { AgentError, systemErrorCode } from '../../../errors.js';
import type { DeviceConnectionString } from '../../../identity/connection-string.js';
import type { AgentConfig } from '../../../daemon/config.js';
import type { AgentStatus } from '../../../daemon/status.js';
import { silentLog } from '../../../log.js';
import { ownerOf } from '../../../store/log/owner.js';
import type { Finding } from '../../check/checks.js';
import { controlPaths } from '../../control-path.js';
import type { Io } from '../../io.js';
import { storeDirectory } from '../../state-directory.js';
import { agentOf } from '../agent-client.js';

/** Who has the connection of the device already: the hub allows one, and a second takes it from the first. */
export type Beside =
  | { agent: 'none' }
  /** It answers on its control socket. */
  | { agent: 'known'; name: string; status: AgentStatus }
  /** It owns the store, or has a control socket that is not for us. */
  | { agent: 'silent'; name: string };

/** Looks for an agent of the same device, by its control socket and by the store that it owns. */
export async function findAgent(
  io: Io,
  identity: DeviceConnectionString,
  config: AgentConfig,
): Promise<Finding<Beside>> {
  const found = await agentOf(io, identity, config, silentLog);
  if (found !== undefined) return knownAgent(found.status, found.socket);
  const pid = await ownerOfStore(io, identity, config);
  if (pid !== undefined) {
    const name = `process ${String(pid)}`;
    return {
      result: 'warn',
      value: { agent: 'silent', name },
      detail: `${name} has the store, and does not answer on a control socket`,
      hint: 'it is taken for an agent of this device; "iothub-device status --socket PATH" asks it',
    };
  }
  const socket = await closedSocket(controlPaths(io, identity, config.control.socket));
  if (socket !== undefined) {
    return {
      result: 'warn',
      value: { agent: 'silent', name: `the one behind ${socket}` },
      detail: `an agent may run: ${socket} is not open to this user`,
      hint: 'run this as a user who may speak to it; or with --force, if it is the agent of another device',
    };
  }
  return {
    result: 'ok',
    value: { agent: 'none' },
    detail: 'none runs here for this device',
    facts: { running: false },
  };
}

function knownAgent(status: AgentStatus, socket: string): Finding<Beside> {
  const { pid, state, since, version, lastError, nextTryAt } = status;
  const name = `process ${String(pid)}`;
  const value: Beside = { agent: 'known', name, status };
  const facts = { running: true, pid, version, state, since, socket };
  if (state === 'online') {
    return { result: 'ok', value, detail: `${name} is online since ${since}`, facts };
  }
  const next = nextTryAt === undefined ? '' : `, the next try is at ${nextTryAt}`;
  const detail = `${name} is not online`;
  const how = `it is ${state} since ${since}${next}`;
  if (lastError === undefined) return { result: 'warn', value, detail, hint: how, facts };
  const { error, code, condition, hint } = lastError;
  const why = { condition, hint: [how, hint].filter((text) => text !== undefined).join('\n') };
  return { result: 'failed', value, error: new AgentError(code, `${detail}: ${error}`, why) };
}

/** Undefined as well when there is no store, or none that may be looked into. */
async function ownerOfStore(
  io: Io,
  identity: DeviceConnectionString,
  config: AgentConfig,
): Promise<number | undefined> {
  try {
    return await ownerOf(storeDirectory(io, identity, config.spool.directory));
  } catch {
    return undefined;
  }
}

/** A socket that is there, or may be, and that this user may not connect to. */
async function closedSocket(paths: readonly string[]): Promise<string | undefined> {
  for (const path of paths) {
    const code = await access(path, constants.W_OK).then(() => undefined, systemErrorCode);
    if (code === 'EACCES') return path;
  }
  return undefined;
}
