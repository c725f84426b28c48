import { AgentError } from '../errors.js';
import { errorReport } from './error-report.js';
import { exitCodeFor, exitCodes } from './exit-codes.js';
import { type Io, Interrupted, lastWordsMs, processIo } from './io.js';
import { type Tool, type ToolName, tools } from './subcommands.js';
import { version } from './version.js';

/** Runs one of the three commands with the arguments of this process. Nothing else in the product exits. */
export async function main(name: ToolName): Promise<void> {
  const exitCode = await runInProcess(name);
  // Its outcome is printed by now: what a command left open must not keep the process. Nor does Node.js then take
  // everything apart that the system is about to take back.
  process.exit(exitCode);
}

async function runInProcess(name: ToolName): Promise<number> {
  await using io = processIo((reason) => {
    // The second signal: whoever listens to `io.now` has just been told and gets this long, no more.
    setTimeout(() => process.exit(reason.exitCode), lastWordsMs);
  });
  const crashed = (error: unknown): void => {
    report(error, io);
    process.exit(exitCodes.bug);
  };
  process.on('uncaughtException', crashed);
  process.on('unhandledRejection', crashed);
  dropTraps(io);

  return await run(name, process.argv.slice(2), io);
}

/** Runs a command line to its end and returns the exit code; what went wrong is on `io.stderr` then. */
export async function run(
  name: ToolName,
  args: readonly string[],
  io: Io,
  tool: Tool = tools[name],
): Promise<number> {
  try {
    if (args[0] === '--version' || args[0] === '-V') {
      await io.stdout.write(`${version()}\n`);
    } else {
      const { runProgram } = await import('./program.js');
      await runProgram(name, tool, args, io);
    }
    await io.stdout.flush();
    return io.exitCode;
  } catch (error) {
    const interrupted = interruption(error);
    if (interrupted) return interrupted.exitCode;
    report(error, io);
    return exitCodeFor(error instanceof AgentError ? error.code : 'bug');
  }
}

/** What would print secrets, trust anyone, let anyone in, or say nothing. */
function dropTraps(io: Io): void {
  // Node.js would open its debugger, in which every secret can be read; a listener of our own takes its place.
  process.on('SIGUSR1', () => undefined);
  // `debug`, which rhea logs through, prints tokens in clear text.
  delete io.env['DEBUG'];
  // An empty variable counts as none, so that a unit or a script can take one back.
  for (const [name, value] of Object.entries(io.env)) {
    // eslint-disable-next-line @typescript-eslint/no-dynamic-delete
    if (name.startsWith('IOTHUB_') && value === '') delete io.env[name];
  }
  if (io.env['NODE_TLS_REJECT_UNAUTHORIZED'] === undefined) return;
  delete io.env['NODE_TLS_REJECT_UNAUTHORIZED'];
  void io.stderr.write(
    'warning: NODE_TLS_REJECT_UNAUTHORIZED is ignored; name the certificate authority to trust with --ca FILE\n',
  );
}

/** Not awaited: a reader of stderr that has stopped reading must not keep the process from ending. */
function report(error: unknown, io: Io): void {
  void io.stderr.write(errorReport(error, { stack: io.verbosity > 0 })).catch(() => undefined);
}

/** What `signal.throwIfAborted()` throws, or what Node's own functions wrap it into. */
function interruption(error: unknown): Interrupted | undefined {
  if (error instanceof Interrupted) return error;
  return error instanceof Error && error.cause instanceof Interrupted ? error.cause : undefined;
}
