import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { accessSync, closeSync, constants, existsSync, statSync } from 'node:fs';
import { delimiter, isAbsolute, join, resolve } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { isMainThread } from 'node:worker_threads';

import type { Clock } from '../clock.js';
import { errorText, systemErrorCode } from '../errors.js';
import { makeCgroup, type Cgroup } from './cgroup.js';
import { inheritedDescriptors } from './descriptors.js';
import { permissionProblem } from './permissions.js';
import { pipeFromChild, pipeToChild } from './pipes.js';
import { killMarked, markVariable } from './survivors.js';

/**
 * Starts a program the way all handlers are started: no shell, a session and process group of its own, descriptors
 * 0, 1 and 2, a strict umask, only the variables given. And brings it to its end with everything it started.
 */

export interface ProcessOptions {
  /** A path, relative to the agent's own working directory, or a name to be looked up in the program's PATH. */
  file: string;
  args: readonly string[];
  cwd?: string | undefined;
  variables: Readonly<Record<string, string>>;
  /** Descriptor of its standard input; absent: a pipe from us. */
  input?: number | undefined;
  /** Whether the file and the directories above it must be safe from others (see `permissionProblem`). */
  checkPermissions: boolean;
  clock: Clock;
}

export interface OwnProcess {
  readonly pid: number;
  /** Where there is a pipe. */
  readonly stdin: Writable | undefined;
  readonly stdout: Readable;
  readonly stderr: Readable;
  /** Exit, not close: a grandchild that holds standard output must not hold a slot. */
  readonly exited: Promise<Exit>;
  /** To the process group. */
  signal(signal: 'SIGTERM' | 'SIGKILL'): void;
  /**
   * To be called when it has exited: kills what it left behind, wherever that went, and reads the last of what it
   * printed. Resolves to how many had left its process group.
   */
  clear(): Promise<number>;
}

export type Exit = { code: number } | { signal: string };
export type Started = { ok: true; process: OwnProcess } | { ok: false; why: string };

/** Why a program cannot be started, as far as can be told without starting it. */
export function startProblem(file: string, searchPath = process.env['PATH']): string | undefined {
  const path = pathOf(file, searchPath);
  if (path === undefined) return `${file} is missing from PATH`;
  if (!existsSync(path)) return `${path} is missing`;
  return (
    permissionProblem(path) ??
    (isExecutable(path) ? undefined : `${path} is not executable; chmod +x ${path}`)
  );
}

export async function startProcess(options: ProcessOptions): Promise<Started> {
  const file = pathOf(options.file, options.variables['PATH']);
  if (file === undefined) return { ok: false, why: `${options.file} is missing from PATH` };
  // What is checked is what is started: the same path, not looked up again.
  const problem = options.checkPermissions ? permissionProblem(file) : undefined;
  if (problem !== undefined) return { ok: false, why: `refused: ${problem}` };

  const mark = randomBytes(16).toString('hex');
  const cgroup = makeCgroup(mark);
  const started = await spawned({ ...options, file }, mark, cgroup);
  if (!started.ok) {
    await cgroup?.kill(options.clock);
    return started;
  }

  const { child, pid, stdin, stdout, stderr } = started;
  // A program that does not read its input, or not all of it, is as normal as one that does (EPIPE).
  for (const stream of [stdin, stdout, stderr]) stream?.on('error', () => stream.destroy());
  const exited = once(child, 'exit').then(([code, signal]: unknown[]) =>
    typeof code === 'number' ? { code } : { signal: String(signal) },
  );
  return {
    ok: true,
    process: {
      pid,
      stdin,
      stdout,
      stderr,
      exited,
      signal: (signal) => {
        signalGroup(pid, signal);
      },
      async clear() {
        const survivors = await killAll(pid, mark, cgroup, options.clock);
        await drained([stdout, stderr], options.clock);
        return survivors;
      },
    },
  };
}

/** A path, or what execvp(3) would find under a mere name. */
function pathOf(file: string, searchPath = ''): string | undefined {
  if (file.includes('/')) return resolve(file);
  return searchPath
    .split(delimiter)
    .filter(isAbsolute)
    .map((directory) => join(directory, file))
    .find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

async function killAll(pid: number, mark: string, cgroup: Cgroup | undefined, clock: Clock): Promise<number> {
  signalGroup(pid, 'SIGKILL');
  return cgroup === undefined ? killMarked(mark, clock) : cgroup.kill(clock);
}

/** What a program printed before its end is still in the pipe; who else holds the pipe may print for ever. */
const drainMs = 500;

async function drained(streams: readonly Readable[], clock: Clock): Promise<void> {
  const over = new AbortController();
  const ends = Promise.allSettled(
    streams.map((stream) => finished(stream, { writable: false, signal: over.signal })),
  );
  await Promise.race([ends, clock.sleep(drainMs, over.signal).catch(() => undefined)]);
  over.abort();
  for (const stream of streams) stream.destroy();
}

type Spawned =
  | {
      ok: true;
      child: ChildProcess;
      pid: number;
      stdin: Writable | undefined;
      stdout: Readable;
      stderr: Readable;
    }
  | { ok: false; why: string };

/** Files that a program makes are its user's alone. */
const umask = 0o077;

async function spawned(options: ProcessOptions, mark: string, cgroup: Cgroup | undefined): Promise<Spawned> {
  const { input } = options;
  const [toChild, output, errors] = await Promise.all([
    input === undefined ? pipeToChild() : undefined,
    pipeFromChild(),
    pipeFromChild(),
  ]);
  const fail = (error: unknown): Spawned => {
    for (const pipe of [toChild, output, errors]) pipe?.ours.destroy();
    return { ok: false, why: startFailure(error, options) };
  };
  const start = (): ChildProcess =>
    spawn(options.file, options.args, {
      cwd: options.cwd,
      env: { ...options.variables, [markVariable]: mark },
      shell: false,
      detached: true, // its own session and process group
      stdio: [
        input ?? toChild?.childEnd ?? 'pipe',
        output?.childEnd ?? 'pipe',
        errors?.childEnd ?? 'pipe',
        ...inheritedDescriptors(),
      ],
    });
  let child: ChildProcess;
  try {
    child = withUmask(umask, cgroup === undefined ? start : () => cgroup.around(start));
  } catch (error) {
    return fail(error);
  } finally {
    for (const pipe of [toChild, output, errors]) if (pipe !== undefined) closeSync(pipe.childEnd);
  }
  const failed = once(child, 'error').then(([error]: unknown[]) => error);
  const stdin = toChild?.ours ?? child.stdin ?? undefined;
  const stdout = output?.ours ?? child.stdout;
  const stderr = errors?.ours ?? child.stderr;
  if (child.pid === undefined || stdout === null || stderr === null) return fail(await failed);
  return { ok: true, child, pid: child.pid, stdin, stdout, stderr };
}

/**
 * Node has no umask for a child. The agent's own is changed for the moment of the fork, which blocks: only the
 * thread pool could make a file meanwhile, and it would be stricter than asked, never laxer.
 */
function withUmask<T>(mask: number, work: () => T): T {
  if (!isMainThread) return work(); // a worker thread may not set it
  const before = process.umask(mask);
  try {
    return work();
  } finally {
    process.umask(before);
  }
}

function startFailure(error: unknown, { file, cwd }: ProcessOptions): string {
  if (cwd !== undefined && !isDirectory(cwd)) return `its working directory ${cwd} is missing`;
  switch (systemErrorCode(error)) {
    case 'ENOENT':
      return `${file} is missing, or the interpreter that its first line names`;
    case 'EACCES':
      return `${file} is not executable`;
    case 'ENOEXEC':
      return `${file} is not a program for this machine`;
    case 'ETXTBSY':
      return `${file} is being written`;
    default:
      return `${file} cannot be started: ${errorText(error)}`;
  }
}

function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // ESRCH: the group is empty. EPERM: it runs as another user by setuid, and its end is not ours to bring.
  }
}
