import { AgentError } from '../../errors.js';
import type { HandlerEvent } from '../../handlers/contract.js';
import { killGraceMs, type Answer, type Handler } from '../../handlers/handler.js';
import { loadModule, moduleHandler } from '../../handlers/module.js';
import { readLines } from '../../lines.js';
import type { Io } from '../io.js';
import { lineLog } from './handler-log.js';

/** More than any event has as base64, and an end for /dev/zero. */
const longestLineBytes = 2 * 1024 * 1024;

/**
 * Runs a module as a stream: events as lines of JSON on standard input, answers on standard output, until the input
 * ends. That is how a module with `isolate = true` is run.
 */
export async function streamModule(io: Io, file: string): Promise<void> {
  const module = await loadModule(file);
  const handler = moduleHandler(module, { name: io.env['IOTHUB_HANDLER'] ?? file });
  const calls = new Map<string, Call>();
  const say = (message: object): Promise<void> => io.stdout.write(`${JSON.stringify(message)}\n`);
  const cancelAll = () => {
    for (const call of calls.values()) call.cancel();
  };
  io.stop.addEventListener('abort', cancelAll);

  for await (const { bytes, tooLong } of readLines(io.stdin, longestLineBytes)) {
    if (tooLong) throw new AgentError('data', `a line of more than ${longestLineBytes} bytes`);
    if (bytes.length === 0) continue;
    const line = requestIn(bytes);
    if (line.type === 'ping') {
      await say({ type: 'pong' });
    } else if (line.type === 'cancel') {
      calls.get(line.id)?.cancel();
    } else {
      const call = new Call(io, handler, line);
      calls.set(line.id, call);
      void call.answer.then(async (answer) => {
        calls.delete(line.id);
        await say({ id: line.id, ...answer });
      });
    }
  }
  cancelAll();
  await Promise.all(Array.from(calls.values(), ({ answer }) => answer));
}

type Line = { type: 'ping' } | { type: 'cancel'; id: string } | Request;

interface Request {
  type: undefined;
  id: string;
  attempt: number;
  deadline: string;
  bodyBase64: string;
  event: object;
}

/** What an agent writes, which is not looked at as what a stranger does. */
function requestIn(bytes: Buffer): Line {
  const { type, id, attempt, deadline, bodyBase64, ...event } = JSON.parse(bytes.toString()) as Record<
    string,
    never
  >;
  return { type, id, attempt, deadline, bodyBase64, event } as unknown as Line;
}

/** One event in the hands of the module. */
class Call {
  readonly answer: Promise<object>;
  readonly #deadlineMs: number;
  readonly #stopping = new AbortController();

  constructor(io: Io, handler: Handler, { event, attempt, deadline, bodyBase64 }: Request) {
    this.#deadlineMs = Date.parse(deadline);
    const whole = { ...event, body: Buffer.from(bodyBase64, 'base64') } as HandlerEvent;
    const run = {
      attempt,
      timeoutMs: Math.max(1, this.#deadlineMs - Date.now()),
      log: lineLog(io, whole.event === 'command' ? { message: whole.messageId } : {}),
      stopping: this.#stopping.signal,
      killing: io.now,
    };
    this.answer = Promise.resolve(handler.run(whole, run)).then(lineOf);
  }

  /** The agent stops. When it is the deadline that is over, the module's own signal says so. */
  cancel(): void {
    if (Date.now() < this.#deadlineMs - killGraceMs / 100) this.#stopping.abort();
  }
}

function lineOf({ outcome, status, reason, reply, decidedBy }: Answer): object {
  return {
    outcome: decidedBy === 'fault' ? 'fault' : outcome,
    status,
    reason,
    replyBase64: reply?.toString('base64'),
  };
}
