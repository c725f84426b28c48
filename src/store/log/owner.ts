import { randomBytes } from 'node:crypto';
import { chmodSync, closeSync, constants, openSync } from 'node:fs';
import { createServer, connect, type Server } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { AgentError, errorText, systemErrorCode } from '../../errors.js';
import { diskFiles, removeQuietly } from './files.js';

/**
 * One live owner per directory.
 *
 * The owner listens on a unix socket `owner-{pid}-{random}` in the directory. Who wants to own it binds a socket of
 * its own *first*, and *then* looks for others and connects to each:
 *
 * - refused: its process is gone. The kernel closes a socket with its process, however that ended, so nothing goes
 *   stale; and a socket that refused once never lives again, because names are never used twice. Its file is removed.
 * - accepted (or it would be, were its queue not full): its process lives. Whoever was looking withdraws.
 *
 * Of two that start together, the one that binds last sees the other when it looks; so both may withdraw, but never
 * do both stay. (A socket that is bound but does not listen yet refuses, and its file is removed; whose it is looks
 * afterwards, finds the other, and withdraws.) Each tries again after a random pause, a few times.
 *
 * Why not a lock file with a pid: after a crash it is stale, and a pid names another process after a reboot or in
 * another container; start time and boot id mend the first, not the second. Why not an abstract socket: it belongs
 * to a network namespace, and two containers that share the directory do not share that. Node has no `flock`. A
 * socket in the directory is found by its inode, across all namespaces of one kernel. What it cannot see is another
 * machine: a store on a network file system is not supported.
 */
export interface Owner {
  release(): Promise<void>;
}

/** Another process owns the store. */
export class StoreInUse extends AgentError {
  constructor(
    directory: string,
    readonly pid: number,
    hint = 'ask that process through its control socket, or stop it first',
  ) {
    super('try-again', `the store ${directory} is in use by process ${pid}`, { hint });
  }
}

const attempts = 5;
const socketPattern = /^owner-(\d+)-[0-9a-f]{12}$/;
/** `sun_path` has 108 bytes with its closing zero. */
const longestPath = 107;

/** Becomes the owner, or fails with `try-again` and the pid of the one who is. */
export async function own(directory: string): Promise<Owner> {
  for (let attempt = 1; ; attempt++) {
    const name = `owner-${process.pid}-${randomBytes(6).toString('hex')}`;
    const server = await listen(directory, name);
    const pid = await otherOwner(directory, name);
    const release = async (): Promise<void> => {
      await close(server);
      // Closing removes the file too, unless its path had to be shortened.
      await removeQuietly(diskFiles, join(directory, name));
    };
    if (pid === undefined) return { release };
    await release();
    if (attempt === attempts) throw new StoreInUse(directory, pid);
    await delay(20 + Math.random() * 100);
  }
}

/** The pid of the process that owns the store, if one does. Asks, and changes nothing. */
export async function ownerOf(directory: string): Promise<number | undefined> {
  for (const name of await diskFiles.list(directory)) {
    const pid = socketPattern.exec(name)?.[1];
    if (pid !== undefined && (await isAlive(directory, name))) return Number(pid);
  }
  return undefined;
}

async function otherOwner(directory: string, own: string): Promise<number | undefined> {
  for (const name of await diskFiles.list(directory)) {
    const pid = socketPattern.exec(name)?.[1];
    if (pid === undefined || name === own) continue;
    if (await isAlive(directory, name)) return Number(pid);
    await removeQuietly(diskFiles, join(directory, name));
  }
  return undefined;
}

function isAlive(directory: string, name: string): Promise<boolean> {
  return withShortPath(
    directory,
    name,
    (path) =>
      new Promise((resolve) => {
        const socket = connect(path);
        socket.once('connect', () => {
          socket.destroy();
          resolve(true);
        });
        socket.once('error', (error) => {
          // EAGAIN: so many are asking that its queue is full. ENOENT: it has withdrawn meanwhile.
          const code = systemErrorCode(error);
          resolve(code !== 'ECONNREFUSED' && code !== 'ENOENT');
        });
      }),
  );
}

async function listen(directory: string, name: string): Promise<Server> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.destroy();
  });
  try {
    await withShortPath(
      directory,
      name,
      (path) =>
        new Promise<void>((resolve, reject) => {
          server.once('error', reject);
          server.listen(path, resolve);
        }),
    );
    chmodSync(join(directory, name), 0o600);
  } catch (error) {
    throw new AgentError('cannot-create', `cannot own the store ${directory}: ${errorText(error)}`, {
      cause: error,
      hint: 'the store needs a local file system that can hold unix sockets, and has to be writable',
    });
  }
  // The lock alone should not keep a process alive.
  return server.unref();
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => {
      resolve();
    });
  });
}

/** A socket's path is short; a directory's need not be. */
async function withShortPath<T>(
  directory: string,
  name: string,
  use: (path: string) => Promise<T>,
): Promise<T> {
  const path = join(directory, name);
  if (Buffer.byteLength(path) <= longestPath) return use(path);
  const fd = openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    return await use(`/proc/self/fd/${fd}/${name}`);
  } finally {
    closeSync(fd);
  }
}
