import { once } from 'node:events';
import type { Readable } from 'node:stream';

import { systemClock, type Clock } from '../clock.js';
import { bodyFile } from './body-file.js';
import type { EventKind, HandlerEvent } from './contract.js';
import { environmentOf } from './environment.js';
import { answerTo, type ExitOverrides, type ProgramEnding } from './exit-table.js';
import {
  keptOutputBytes,
  killGraceMs,
  ruledHandler,
  type Answer,
  type Handler,
  type HandlerRules,
  type Run,
} from './handler.js';
import { KeptOutput, LineOutput, logLine } from './output.js';
import { startProcess, type Exit, type OwnProcess } from './process.js';

export interface ProgramHandlerOptions extends HandlerRules {
  /** Default `command`. */
  on?: EventKind | undefined;
  /** A path, or a name to be looked up in PATH. Never a shell's command line. */
  file: string;
  args?: readonly string[] | undefined;
  /** Default: the agent's own. */
  cwd?: string | undefined;
  /** Variables beside the allowed and the `IOTHUB_*` ones. */
  environment?: Readonly<Record<string, string>> | undefined;
  /** What exit codes mean where they differ from the table. */
  exit?: ExitOverrides | undefined;
  /** Default `release`: later, three times, then reject. */
  onTimeout?: 'release' | 'reject' | undefined;
  /** Refuse a file that others than root and the agent's user could change. Default true. */
  checkPermissions?: boolean | undefined;
  clock?: Clock | undefined;
}

/** A handler that starts a program for each event: body on stdin, `IOTHUB_*` in the environment, outcome by exit code. */
export function programHandler(options: ProgramHandlerOptions): Handler {
  return {
    ...ruledHandler(options, options.on ?? 'command', 'never'),
    run: (event, run) => runProgram(options, event, run),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

async function runProgram(options: ProgramHandlerOptions, event: HandlerEvent, run: Run): Promise<Answer> {
  const { clock = systemClock, exit = {}, onTimeout = 'release' } = options;
  const facts = { handler: options.name, attempt: run.attempt, deadline: clock.now() + run.timeoutMs };
  const environment = environmentOf(event, facts, options.environment);
  if (!environment.ok) {
    return { outcome: 'reject', status: 400, reason: environment.why, decidedBy: 'handler' };
  }
  using body = bodyFile(event.body);
  const started = await startProcess({
    file: options.file,
    args: options.args ?? [],
    cwd: options.cwd,
    variables: environment.variables,
    input: body?.descriptor,
    checkPermissions: options.checkPermissions ?? true,
    clock,
  });
  if (!started.ok) return answerTo({ kind: 'cannot-start', why: started.why }, exit, onTimeout, undefined);

  const program = started.process;
  const output = new KeptOutput(program.stdout, () => {
    run.log.warn(`more than ${keptOutputBytes / 1024} KiB on standard output; the rest is discarded`);
  });
  const errors = logErrors(program.stderr, run);
  program.stdin?.end(event.body);

  const ending = await waitForEnd(program, run, clock);
  const survivors = await program.clear();
  if (survivors > 0) run.log.warn(`${survivors} processes that it left behind were killed`);
  return { ...answerTo(ending, exit, onTimeout, errors.lastLine()), ...output.reply() };
}

/** Standard error goes to the log line by line. */
function logErrors(stderr: Readable, { log }: Pick<Run, 'log'>): LineOutput {
  return new LineOutput(
    stderr,
    (line) => {
      logLine(log, line);
    },
    () => {
      log.warn('too much on standard error; only its end is looked at');
    },
  );
}

/** How long a killed process may take to be gone. Longer only in an uninterruptible wait, on a dead disk. */
const unkillableMs = 5_000;

async function waitForEnd(program: OwnProcess, run: Run, clock: Clock): Promise<ProgramEnding> {
  const over = new AbortController();
  const within = async (ms: number): Promise<'timeout'> => {
    await clock.sleep(ms, over.signal).catch(() => undefined);
    return 'timeout';
  };
  const { exited } = program;
  try {
    const first = await Promise.race([exited, within(run.timeoutMs), aborted(run.stopping, over.signal)]);
    if (typeof first === 'object') return endingOf(first);

    program.signal('SIGTERM');
    const patience = first === 'timeout' ? [within(killGraceMs)] : [];
    let last = await Promise.race([exited, aborted(run.killing, over.signal), ...patience]);
    if (typeof last === 'string') {
      program.signal('SIGKILL');
      last = await Promise.race([exited, within(unkillableMs)]);
    }
    if (typeof last === 'string')
      run.log.error('not even SIGKILL ends it; it is left alone', { pid: program.pid });
    if (first === 'timeout') return { kind: 'timeout', afterMs: run.timeoutMs };
    return { kind: 'stopped', how: typeof last === 'string' ? { signal: 'SIGKILL' } : last };
  } finally {
    over.abort();
  }
}

function endingOf(exit: Exit): ProgramEnding {
  return 'code' in exit ? { kind: 'exit', code: exit.code } : { kind: 'signal', signal: exit.signal };
}

async function aborted(signal: AbortSignal, over: AbortSignal): Promise<'aborted'> {
  if (!signal.aborted) await once(signal, 'abort', { signal: over }).catch(() => undefined);
  return 'aborted';
}
