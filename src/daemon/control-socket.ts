import { lstat, mkdir, stat, unlink } from 'node:fs/promises';
import { connect, type Server } from 'node:net';
import { dirname } from 'node:path';

import { AgentError, errorText, systemErrorCode } from '../errors.js';

/** Where the control socket is: a path of our own, or a socket that systemd made and passed to us. */
export type ControlPlace = { from: 'path'; path: string } | { from: 'systemd'; fd: number };

/** sd_listen_fds(3): the first of the descriptors that are passed. */
const firstPassedFd = 3;

/**
 * The socket that systemd passes (`iothub-device.socket`), if it does. Takes the variables out of `env`: a handler
 * must not take them for its own.
 */
export function passedSocket(env: NodeJS.ProcessEnv): ControlPlace | undefined {
  const { LISTEN_FDS: count, LISTEN_PID: pid } = env;
  delete env['LISTEN_FDS'];
  delete env['LISTEN_PID'];
  delete env['LISTEN_FDNAMES'];
  if (count === undefined || Number(pid) !== process.pid || !(Number(count) >= 1)) return undefined;
  return { from: 'systemd', fd: firstPassedFd };
}

/**
 * Lets the server listen there. What a dead agent left is replaced; a socket on which somebody answers is not.
 * Errors: `try-again` when it is in use, `config` when the place is not fit, `cannot-create`.
 */
export async function listen(server: Server, place: ControlPlace): Promise<void> {
  if (place.from === 'systemd') {
    await begin(server, () => server.listen({ fd: place.fd }));
    return;
  }
  const { path } = place;
  await prepareDirectory(dirname(path));
  try {
    await listenOn(server, path);
  } catch (error) {
    if (systemErrorCode(error) !== 'EADDRINUSE') throw cannotListen(path, error);
    await removeStale(path);
    await listenOn(server, path).catch((reason: unknown) => {
      throw cannotListen(path, reason);
    });
  }
}

async function prepareDirectory(directory: string): Promise<void> {
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const { mode } = await stat(directory);
    if ((mode & 0o002) === 0) return;
  } catch (error) {
    throw cannotListen(directory, error);
  }
  throw new AgentError('config', `anyone may write in ${directory}: no place for the control socket`, {
    hint: 'name another one as "socket" under [control]',
  });
}

/** Mode 0660 from its first moment on: who may enter the directory and is in the group may speak to the agent. */
const umaskOfSocket = 0o117;

function listenOn(server: Server, path: string): Promise<void> {
  return begin(server, () => {
    // Bound within this call, so the mask is ours for no longer.
    const before = process.umask(umaskOfSocket);
    try {
      server.listen(path);
    } finally {
      process.umask(before);
    }
  });
}

function begin(server: Server, start: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (then: () => void) => () => {
      server.off('listening', succeed);
      server.off('error', fail);
      then();
    };
    const succeed = settle(resolve);
    const fail = (error: Error) => {
      settle(() => {
        reject(error);
      })();
    };
    server.on('listening', succeed);
    server.on('error', fail);
    start();
  });
}

async function removeStale(path: string): Promise<void> {
  if (await somebodyAnswers(path)) {
    throw new AgentError('try-again', `another agent answers on ${path}`, {
      hint: 'stop it, or name another socket under [control]',
    });
  }
  const isSocket = await lstat(path).then(
    (found) => found.isSocket(),
    () => true, // gone meanwhile
  );
  if (!isSocket) {
    throw new AgentError('config', `${path} is there and is no socket`, {
      hint: 'name another one as "socket" under [control]',
    });
  }
  await unlink(path).catch(() => undefined);
}

function somebodyAnswers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', (error) => {
      // Full of clients (EAGAIN) or closed to us (EACCES) is alive.
      resolve(!['ECONNREFUSED', 'ENOENT', 'ENOTSOCK'].includes(systemErrorCode(error) ?? ''));
    });
  });
}

function cannotListen(path: string, cause: unknown): AgentError {
  if (cause instanceof AgentError) return cause;
  return new AgentError('cannot-create', `cannot make the control socket ${path}: ${errorText(cause)}`, {
    cause,
    hint: 'name another one as "socket" under [control], or "" for none',
  });
}
