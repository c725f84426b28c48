import { systemClock } from '../../clock.js';
import { AgentError } from '../../errors.js';
import { eventIn } from '../../handlers/environment.js';
import { faultLimit, type Answer } from '../../handlers/handler.js';
import { loadModule, moduleHandler } from '../../handlers/module.js';
import { plainText } from '../../handlers/output.js';
import { Runner } from '../../handlers/runner.js';
import { exitCodes } from '../exit-codes.js';
import type { Io } from '../io.js';
import { lineLog } from './handler-log.js';

/** More than any event has, and an end for /dev/zero. */
const longestBodyBytes = 1024 * 1024;

/**
 * Runs a module the way a program is run: body on standard input, the rest in `IOTHUB_*` variables; its reply goes to
 * standard output, its log and its reason to standard error. Returns the exit code, by the table of handlers.
 */
export async function execHandler(io: Io, file: string): Promise<number> {
  // Whoever can name a file here can run it without us.
  const module = await loadModule(file, { checkPermissions: false });
  const event = eventIn(io.env, module.on, await bodyOf(io));
  if ((io.env['IOTHUB_EVENT'] ?? module.on) !== module.on) {
    throw new AgentError('usage', `${file} handles ${module.on}, not ${String(io.env['IOTHUB_EVENT'])}`);
  }
  const handler = moduleHandler(module, { name: io.env['IOTHUB_HANDLER'] ?? file });
  const attempt = Number(io.env['IOTHUB_ATTEMPT']) || 1;
  const untilMs = Date.parse(io.env['IOTHUB_DEADLINE'] ?? '') - Date.now();
  const timeoutMs = Number.isFinite(untilMs) ? Math.max(1, untilMs) : handler.timeoutMs;
  const runner = new Runner(lineLog(io), systemClock);
  const running = Promise.resolve(runner.run(handler, event, attempt, timeoutMs));
  io.stop.addEventListener('abort', () => void runner.stop(() => running, killAfterMs, io.now));

  const answer = await running;
  if (answer.decidedBy === 'stopping') io.stop.throwIfAborted();
  if (answer.reply !== undefined) await io.stdout.write(answer.reply);
  // The last line is the reason.
  if (answer.reason !== undefined) await io.stderr.write(`${plainText(answer.reason, 256)}\n`);
  return exitCodeOf(answer, attempt);
}

/** Whoever started it kills it after five seconds; before that it should say what it has to say. */
const killAfterMs = 4_000;

async function bodyOf(io: Io): Promise<Buffer> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of io.stdin) {
    parts.push(part as Buffer);
    bytes += (part as Buffer).length;
    if (bytes > longestBodyBytes) throw new AgentError('data', `more than ${longestBodyBytes} bytes`);
  }
  return Buffer.concat(parts);
}

/** A bug is "later" three times, then "no". */
function exitCodeOf({ outcome, status, decidedBy }: Answer, attempt: number): number {
  if (outcome === 'accept') return exitCodes.ok;
  if (outcome === 'release') {
    return decidedBy === 'fault' && attempt >= faultLimit ? exitCodes.bug : exitCodes['try-again'];
  }
  if (status === 403) return exitCodes.refused;
  return status === 400 ? exitCodes.data : 1;
}
