import { access, constants, stat, statfs } from 'node:fs/promises';
import { dirname } from 'node:path';

import { AgentError, errorText, systemErrorCode } from '../../../errors.js';
import type { Log } from '../../../log.js';
import { ownerOf } from '../../../store/log/owner.js';
import { spoolDefaults } from '../../../store/spool.js';
import { formatSize } from '../../../units.js';
import type { Finding } from '../../check/checks.js';
import { openSpool, type SpoolPlace } from '../spool-options.js';
import type { Beside } from './agent.js';

/** A store begins with two files of at least this. */
const leastFreeBytes = 2 * 1024 * 1024;

/** Whether telemetry can be kept on disk. The store of a running agent is left alone: it tells itself. */
export async function checkSpool(place: SpoolPlace, beside: Beside, log: Log): Promise<Finding<true>> {
  if (beside.agent !== 'none') return await ofAgent(place, beside);
  const { directory } = place;
  const free = await roomIn(directory);
  const facts = { directory, freeBytes: free.bytes };
  const owner = await ownerProblem(directory);
  if (owner !== undefined) return { result: 'warn', ...owner, facts };
  if (free.directory !== directory) {
    await mustBeWritable(free.directory, directory);
    const detail = `${directory} will be made when it is needed; ${formatSize(free.bytes)} free`;
    return { result: 'ok', detail, facts };
  }
  return await opened(place, free.bytes, log);
}

/** What it says of itself, and of the disk if the store is where we look for it: its environment may be another one. */
async function ofAgent(
  { directory }: SpoolPlace,
  beside: Exclude<Beside, { agent: 'none' }>,
): Promise<Finding<true>> {
  const isThere = (await ownerOf(directory).catch(() => undefined)) !== undefined;
  const free = isThere ? await roomIn(directory) : undefined;
  const room = free === undefined ? '' : `; ${formatSize(free.bytes)} free`;
  const freeBytes = free?.bytes;
  const used = `in use by ${beside.name}, its lock is left alone`;
  if (beside.agent === 'silent') return { result: 'ok', detail: used + room, facts: { freeBytes } };
  const { waiting, deadLetters } = beside.status.spool;
  const detail = `${used}: ${contents(waiting.count, deadLetters.count)}${room}`;
  return { result: 'ok', detail, facts: { waiting, rejected: deadLetters, freeBytes } };
}

async function opened(place: SpoolPlace, freeBytes: number, log: Log): Promise<Finding<true>> {
  const { directory, spool: options } = place;
  // Nothing is dropped for being looked at.
  const whole = { directory, spool: { ...options, maximumAgeMs: Infinity } };
  await using store = await openSpool(whole, { log, whileInUse: 'ask that process, or stop it first' });
  const { waiting, deadLetters } = store.spool.stats();
  const { damage } = store.stats();
  const limitBytes = options?.maximumBytes ?? spoolDefaults.maximumBytes;
  const facts = {
    directory,
    freeBytes,
    limitBytes,
    waiting,
    rejected: deadLetters,
    damagedBytes: damage.bytes,
  };
  const detail = `${directory}: ${contents(waiting.count, deadLetters.count)}; ${formatSize(freeBytes)} free`;
  if (damage.regions > 0) {
    const hint = `${formatSize(damage.bytes)} are damaged and were set aside in ${directory}/damaged; the rest is sound`;
    return { result: 'warn', detail, hint, facts };
  }
  if (freeBytes + waiting.bytes < limitBytes) {
    const hint = `it may grow to ${formatSize(limitBytes)} (max_size under [spool]), which the disk has not`;
    return { result: 'warn', detail, hint, facts };
  }
  return { result: 'ok', detail, facts };
}

function contents(waiting: number, rejected: number): string {
  return `${String(waiting)} waiting, ${String(rejected)} rejected`;
}

/** Errors: `io` when there is hardly any. */
async function roomIn(directory: string): Promise<{ directory: string; bytes: number }> {
  const free = await freeBytes(directory);
  if (free.bytes >= leastFreeBytes) return free;
  throw new AgentError('io', `the disk is full: ${formatSize(free.bytes)} free in ${free.directory}`, {
    hint: 'make room there, or name a directory on another disk as "directory" under [spool]',
  });
}

/** Of the file system that the directory is on, or will be; with the nearest directory that is there. */
async function freeBytes(directory: string): Promise<{ directory: string; bytes: number }> {
  try {
    const { bavail, bsize } = await statfs(directory);
    return { directory, bytes: bavail * bsize };
  } catch (error) {
    const above = dirname(directory);
    if (systemErrorCode(error) === 'ENOENT' && above !== directory) return freeBytes(above);
    throw new AgentError('io', `${directory} cannot be looked at: ${errorText(error)}`, { cause: error });
  }
}

/** To open a store as another user would leave files that its own user cannot read. */
async function ownerProblem(directory: string): Promise<{ detail: string; hint: string } | undefined> {
  const { uid } = await stat(directory).catch(() => ({ uid: undefined }));
  const us = process.geteuid?.();
  if (uid === undefined || us === undefined || uid === us) return undefined;
  return {
    detail: `${directory} belongs to user ${String(uid)}; as user ${String(us)} it is not opened`,
    hint: `run this as the user that the agent runs as: setpriv --reuid ${String(uid)} --clear-groups iothub-device check`,
  };
}

async function mustBeWritable(above: string, directory: string): Promise<void> {
  try {
    await access(above, constants.W_OK | constants.X_OK);
  } catch (error) {
    throw new AgentError('cannot-create', `${directory} cannot be made: ${errorText(error)}`, {
      cause: error,
      hint: 'name another one as "directory" under [spool], or set XDG_STATE_HOME',
    });
  }
}
