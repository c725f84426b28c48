import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { statSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import { isMainThread } from 'node:worker_threads';

import { systemClock, type Clock } from '../clock.js';
import { errorText, systemErrorCode } from '../errors.js';
import type { EventKind, HandlerEvent } from './contract.js';
import { inheritedDescriptors } from './descriptors.js';
import { environmentOf } from './environment.js';
import { answerTo, type ExitOverrides, type ProgramEnding } from './exit-table.js';
import {
  defaultTimeoutMs,
  keptOutputBytes,
  killGraceMs,
  type Answer,
  type Handler,
  type Run,
} from './handler.js';
import { KeptOutput, LineOutput, logLine } from './output.js';
import type { Match } from './route.js';
import { killSurvivors, signalGroup } from './survivors.js';

export interface ProgramHandlerOptions {
  name: string;
  /** Default `command`. */
  on?: EventKind;
  match?: Match | undefined;
  /** A path, or a name to be looked up in PATH. Never a shell's command line. */
  file: string;
  args?: readonly string[];
  /** Default: the agent's own. */
  cwd?: string | undefined;
  /** Variables beside the allowed and the `IOTHUB_*` ones. */
  environment?: Readonly<Record<string, string>>;
  /** Default 45 s. */
  timeoutMs?: number;
  /** What exit codes mean where they differ from the table. */
  exit?: ExitOverrides;
  /** Default `release`: later, three times, then reject. */
  onTimeout?: 'release' | 'reject';
  /** Default `run`. */
  afterCrash?: 'run' | 'reject';
  clock?: Clock;
}

/** A handler that starts a program for each event: body on stdin, `IOTHUB_*` in the environment, outcome by exit code. */
export function programHandler(options: ProgramHandlerOptions): Handler {
  const { name, file, clock = systemClock } = options;

  async function run(
    event: HandlerEvent,
    { attempt, timeoutMs, log, stopping, killing }: Run,
  ): Promise<Answer> {
    const mark = randomBytes(16).toString('hex');
    const facts = { handler: name, attempt, deadline: clock.now() + timeoutMs, mark };
    const environment = environmentOf(event, facts, options.environment);
    if (!environment.ok) {
      return { outcome: 'reject', status: 400, reason: environment.why, decidedBy: 'handler' };
    }
    const result = await runProgram({
      file,
      args: options.args ?? [],
      cwd: options.cwd,
      variables: environment.variables,
      mark,
      input: event.body,
      timeoutMs,
      stopping,
      killing,
      onErrorLine: (line) => {
        logLine(log, line);
      },
      onNote: (note) => {
        log.warn(note);
      },
      clock,
    });
    const answer = answerTo(
      result.ending,
      options.exit ?? {},
      options.onTimeout ?? 'release',
      result.lastErrorLine,
    );
    return { ...answer, reply: result.output.length === 0 ? undefined : result.output };
  }

  return {
    name,
    on: options.on ?? 'command',
    match: options.match,
    timeoutMs: options.timeoutMs ?? defaultTimeoutMs,
    afterCrash: options.afterCrash ?? 'run',
    run,
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

interface ProgramRun {
  file: string;
  args: readonly string[];
  cwd: string | undefined;
  variables: Record<string, string>;
  mark: string;
  input: Buffer;
  timeoutMs: number;
  stopping: AbortSignal;
  killing: AbortSignal;
  onErrorLine: (line: string) => void;
  onNote: (note: string) => void;
  clock: Clock;
}

interface ProgramResult {
  ending: ProgramEnding;
  /** The first 64 KiB of standard output. */
  output: Buffer;
  /** The last line of standard error that says something. */
  lastErrorLine?: string | undefined;
}

/** Runs one program to its end, and whatever it started with it. Never rejects. */
async function runProgram(run: ProgramRun): Promise<ProgramResult> {
  const started = await startProgram(run);
  if (!started.ok) {
    return { ending: { kind: 'cannot-start', why: started.why }, output: Buffer.alloc(0) };
  }
  const { child, pid, exited, stdout, stderr } = started.program;
  const note = (stream: string) => (): void => {
    run.onNote(`more than ${keptOutputBytes / 1024} KiB on ${stream}; the rest is discarded`);
  };
  const output = new KeptOutput(stdout, note('standard output'));
  const errors = new LineOutput(stderr, run.onErrorLine, note('standard error'));
  child.stdin?.end(run.input);

  const ending = await waitForEnd(pid, exited, run);
  const survivors = await killSurvivors(pid, run.mark, run.clock);
  if (survivors > 0) run.onNote(`${survivors} processes that it left behind were killed`);
  await drained([stdout, stderr], run.clock);
  return { ending, output: output.bytes(), lastErrorLine: errors.lastLine() };
}

interface Program {
  child: ChildProcess;
  pid: number;
  /** Exit, not close: a grandchild that holds standard output must not hold a slot. */
  exited: Promise<{ code: number } | { signal: string }>;
  stdout: Readable;
  stderr: Readable;
}

/** Files that a program makes are its user's alone. */
const umask = 0o077;

async function startProgram(
  run: ProgramRun,
): Promise<{ ok: true; program: Program } | { ok: false; why: string }> {
  let child: ChildProcess;
  try {
    child = withUmask(umask, () =>
      spawn(run.file, run.args, {
        cwd: run.cwd,
        env: run.variables,
        shell: false,
        detached: true, // its own session and process group
        stdio: ['pipe', 'pipe', 'pipe', ...inheritedDescriptors()],
      }),
    );
  } catch (error) {
    return { ok: false, why: startFailure(error, run) };
  }
  const { pid, stdin, stdout, stderr } = child;
  const failed = once(child, 'error').then(([error]: unknown[]) => error);
  if (pid === undefined || stdin === null || stdout === null || stderr === null) {
    return { ok: false, why: startFailure(await failed, run) };
  }
  // A program that does not read its input, or not all of it, is as normal as one that does (EPIPE).
  for (const stream of [stdin, stdout, stderr]) stream.on('error', () => stream.destroy());
  const exited = once(child, 'exit').then(([code, signal]: unknown[]) =>
    typeof code === 'number' ? { code } : { signal: String(signal) },
  );
  return { ok: true, program: { child, pid, exited, stdout, stderr } };
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

function startFailure(error: unknown, run: ProgramRun): string {
  if (run.cwd !== undefined && !isDirectory(run.cwd)) return `its working directory ${run.cwd} is missing`;
  switch (systemErrorCode(error)) {
    case 'ENOENT':
      return `${run.file} is missing, or the interpreter that its first line names`;
    case 'EACCES':
      return `${run.file} is not executable`;
    case 'ENOEXEC':
      return `${run.file} is not a program for this machine`;
    case 'ETXTBSY':
      return `${run.file} is being written`;
    default:
      return `${run.file} cannot be started: ${errorText(error)}`;
  }
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

/** How long a killed process may take to be gone. Longer only in an uninterruptible wait, on a dead disk. */
const unkillableMs = 5_000;

async function waitForEnd(pid: number, exited: Program['exited'], run: ProgramRun): Promise<ProgramEnding> {
  const over = new AbortController();
  const within = async (ms: number): Promise<'timeout'> => {
    await run.clock.sleep(ms, over.signal).catch(() => undefined);
    return 'timeout';
  };
  try {
    const first = await Promise.race([exited, within(run.timeoutMs), aborted(run.stopping, over.signal)]);
    if (typeof first === 'object') return endingOf(first);

    signalGroup(pid, 'SIGTERM');
    const patience = first === 'timeout' ? [within(killGraceMs)] : [];
    let last = await Promise.race([exited, aborted(run.killing, over.signal), ...patience]);
    if (typeof last === 'string') {
      signalGroup(pid, 'SIGKILL');
      last = await Promise.race([exited, within(unkillableMs)]);
    }
    if (typeof last === 'string') run.onNote(`process ${pid} does not even heed SIGKILL; it is left alone`);
    if (first === 'timeout') return { kind: 'timeout', afterMs: run.timeoutMs };
    return { kind: 'stopped', how: typeof last === 'string' ? { signal: 'SIGKILL' } : last };
  } finally {
    over.abort();
  }
}

function endingOf(exit: { code: number } | { signal: string }): ProgramEnding {
  return 'code' in exit ? { kind: 'exit', code: exit.code } : { kind: 'signal', signal: exit.signal };
}

async function aborted(signal: AbortSignal, over: AbortSignal): Promise<'aborted'> {
  if (!signal.aborted) await once(signal, 'abort', { signal: over }).catch(() => undefined);
  return 'aborted';
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
