import { once } from 'node:events';

import { systemClock, type Clock } from '../clock.js';
import type { Log } from '../log.js';
import { anyOf } from '../signals.js';
import { formatSeconds } from '../units.js';
import type { EventKind, HandlerEvent } from './contract.js';
import { inheritedVariables } from './environment.js';
import {
  killGraceMs,
  ruledHandler,
  type Answer,
  type Handler,
  type HandlerRules,
  type Run,
} from './handler.js';
import { parseJson } from './json.js';
import { LineOutput, logLine, plainText } from './output.js';
import { startProcess, type Exit, type OwnProcess } from './process.js';

/**
 * A program that lives as long as the agent and answers events one line of JSON each, for services and for rates at
 * which starting a program each time is too slow.
 *
 * To the program: `{"id":"1","event":"command","attempt":1,"deadline":"…Z","deviceId":"dev1","messageId":"m1",
 * "properties":{},"body":{…}}`. The body stands under `body` when it is JSON, else under `bodyText`, else, when it is
 * not UTF-8, under `bodyBase64`.
 * From it, in any order: `{"id":"1","outcome":"accept","reply":{…}}`, or `"reject"` or `"release"` with a `"reason"`;
 * for methods and twins `"status"` in place of the outcome.
 * `"outcome":"fault"` says that it failed on the event, as a crash would: later three times, then no. A reply that is
 * no JSON goes as `"replyBase64"`.
 * Also to it: `{"type":"cancel","id":"1"}` when its time is over, 5 s before it is given up, and `{"type":"ping"}`
 * when all is quiet for 30 s, to be answered by `{"type":"pong"}` within 10 s. End of input means: end.
 */

export interface StreamHandlerOptions extends HandlerRules {
  /** Default `command`. */
  on?: EventKind | undefined;
  file: string;
  args?: readonly string[] | undefined;
  cwd?: string | undefined;
  /** Variables beside PATH, HOME, LANG and TZ. */
  environment?: Readonly<Record<string, string>> | undefined;
  checkPermissions?: boolean | undefined;
  /** Whether it wants each body as it arrived, under `bodyBase64`. Default false. */
  exactBodies?: boolean | undefined;
  /** After so long a silence it is asked whether it lives; it has a third of that to answer. Default 30 s. */
  pingEveryMs?: number | undefined;
  log: Log;
  clock?: Clock | undefined;
}

/** Started with the first event, and again after it ended: at once, then after 1, 2, 4 … 30 s. */
export function streamHandler(options: StreamHandlerOptions): Handler {
  const { name, clock = systemClock } = options;
  const log = options.log.child({ handler: name });
  let current: Promise<StreamSession | string> | undefined;
  let shortLives = 0;
  let startAfter = -Infinity;

  async function run(event: HandlerEvent, run: Run): Promise<Answer> {
    const endsAt = clock.monotonic() + run.timeoutMs;
    for (;;) {
      const waitMs = startAfter - clock.monotonic();
      if (current === undefined && waitMs > 0) {
        if (clock.monotonic() + waitMs >= endsAt) return notRunning('its program keeps ending');
        await clock.sleep(waitMs, run.stopping).catch(() => undefined);
        if (run.stopping.aborted) return stopped;
        continue;
      }
      const session = await (current ??= start());
      if (typeof session === 'string') {
        current = undefined;
        return notRunning(session);
      }
      const answer = await session.ask(event, { ...run, timeoutMs: endsAt - clock.monotonic() });
      if (answer !== undefined) return answer;
      await session.ended;
    }
  }

  async function start(): Promise<StreamSession | string> {
    const started = await startProcess({
      file: options.file,
      args: options.args ?? [],
      cwd: options.cwd,
      variables: { ...inheritedVariables(), ...options.environment, IOTHUB_HANDLER: name },
      checkPermissions: options.checkPermissions ?? true,
      clock,
    });
    if (!started.ok) return started.why;
    const session = new StreamSession(started.process, log, clock, options);
    const startedAt = clock.monotonic();
    void session.ended.then((how) => {
      current = undefined;
      shortLives = clock.monotonic() - startedAt < healthyMs ? shortLives + 1 : 0;
      const delayMs = restartDelayMs(shortLives);
      startAfter = clock.monotonic() + delayMs;
      log.warn('its program ended', { how, restartMs: Math.round(delayMs) });
    });
    return session;
  }

  return {
    ...ruledHandler(options, options.on ?? 'command', 'given'), // a stream says itself, each time
    run,
    async [Symbol.asyncDispose]() {
      const session = await current;
      if (session instanceof StreamSession) await session.close();
    },
  };
}

/** A program that lived this long was well; its next end is a first one again. */
const healthyMs = 30_000;

function restartDelayMs(shortLives: number): number {
  if (shortLives <= 1) return 0;
  const ceilingMs = Math.min(30_000, 1_000 * 2 ** (shortLives - 2));
  return ceilingMs * (0.5 + Math.random() / 2);
}

const stopped: Answer = {
  outcome: 'release',
  status: 503,
  decidedBy: 'stopping',
  reason: 'the agent is stopping',
};

function notRunning(reason: string): Answer {
  return { outcome: 'release', status: 501, decidedBy: 'installation', reason };
}

function fault(reason: string, status = 500): Answer {
  return { outcome: 'release', status, decidedBy: 'fault', reason };
}

/** A longer line is no answer of ours. */
const longestLineBytes = 512 * 1024;

/** One life of the program. */
class StreamSession {
  /** Resolves, with how it ended, when the program and all it started are gone. */
  readonly ended: Promise<string>;
  readonly #process: OwnProcess;
  readonly #log: Log;
  readonly #clock: Clock;
  readonly #exactBodies: boolean;
  readonly #open = new Map<string, (answer: Answer) => void>();
  readonly #over = new AbortController();
  #lastId = 0;
  #lastHeardAt: number;
  /** Aborted by the next line, whatever it says: a sign of life. */
  #onHeard: AbortController | undefined;
  #line: Buffer[] = [];
  #lineBytes = 0;

  constructor(
    process: OwnProcess,
    log: Log,
    clock: Clock,
    { exactBodies = false, pingEveryMs = 30_000 }: Pick<StreamHandlerOptions, 'exactBodies' | 'pingEveryMs'>,
  ) {
    this.#exactBodies = exactBodies;
    this.#process = process;
    this.#log = log;
    this.#clock = clock;
    this.#lastHeardAt = clock.monotonic();
    process.stdout.on('data', (chunk: Buffer) => {
      this.#hear(chunk);
    });
    new LineOutput(
      process.stderr,
      (line) => {
        logLine(log, line);
      },
      () => undefined,
    );
    this.ended = this.#untilEnd();
    void this.#ping(pingEveryMs);
  }

  /** The program's answer; undefined when it had ended before it could be asked. */
  async ask(event: HandlerEvent, run: Run): Promise<Answer | undefined> {
    if (this.#isOver()) return undefined;
    const id = String(++this.#lastId);
    const answered = new Promise<Answer>((resolve) => this.#open.set(id, resolve));
    const over = new AbortController();
    const after = async (ms: number): Promise<undefined> => {
      await this.#clock.sleep(ms, over.signal).catch(() => undefined);
    };
    const on = async (signal: AbortSignal): Promise<undefined> => {
      if (!signal.aborted) await once(signal, 'abort', { signal: over.signal }).catch(() => undefined);
    };
    try {
      const deadline = this.#clock.now() + run.timeoutMs;
      this.#tell({ id, ...requestOf(event, run.attempt, deadline, this.#exactBodies) });
      const inTime = await Promise.race([answered, after(run.timeoutMs), on(run.stopping)]);
      if (inTime !== undefined) return inTime;

      this.#tell({ type: 'cancel', id });
      const patience = run.stopping.aborted ? on(run.killing) : after(killGraceMs);
      const late = await Promise.race([answered, patience]);
      if (late !== undefined) return late;
      if (run.stopping.aborted) return stopped;
      // It neither answered nor took the cancelling for an answer: what comes after would hang behind this.
      this.#log.warn('it does not answer and is started anew', { id });
      this.#process.signal('SIGKILL');
      return fault(`no answer after ${formatSeconds(run.timeoutMs)}`, 504);
    } finally {
      over.abort();
      this.#open.delete(id);
    }
  }

  /** Ends its input, which tells it to end; then SIGTERM, then SIGKILL. */
  async close(): Promise<void> {
    const { stdin } = this.#process;
    for (const step of [
      () => stdin?.end(),
      () => {
        this.#process.signal('SIGTERM');
      },
      () => {
        this.#process.signal('SIGKILL');
      },
    ]) {
      step();
      const over = new AbortController();
      const graceMs = killGraceMs / 2;
      await Promise.race([this.ended, this.#clock.sleep(graceMs, over.signal).catch(() => undefined)]);
      over.abort();
      if (this.#isOver()) break;
    }
    await this.ended;
  }

  async #untilEnd(): Promise<string> {
    const exit = await this.#process.exited;
    this.#over.abort();
    await this.#process.clear();
    const how = exitText(exit);
    for (const resolve of this.#open.values()) resolve(fault(`its program ended: ${how}`));
    return how;
  }

  async #ping(everyMs: number): Promise<void> {
    const { signal } = this.#over;
    while (!this.#isOver()) {
      const quietMs = this.#clock.monotonic() - this.#lastHeardAt;
      await this.#clock.sleep(Math.max(everyMs - quietMs, everyMs / 10), signal).catch(() => undefined);
      // While it works on something it may be too busy to answer; the deadline of that sees to it.
      const isQuiet = this.#clock.monotonic() - this.#lastHeardAt >= everyMs;
      if (this.#isOver() || !isQuiet || this.#isBusy()) continue;
      const heard = new AbortController();
      this.#onHeard = heard;
      this.#tell({ type: 'ping' });
      using until = anyOf(signal, heard.signal);
      await this.#clock.sleep(everyMs / 3, until).catch(() => undefined);
      if (this.#isOver() || heard.signal.aborted || this.#isBusy()) continue;
      this.#log.warn('it does not answer {"type":"ping"} by {"type":"pong"} and is started anew');
      this.#process.signal('SIGKILL');
      return;
    }
  }

  #isBusy(): boolean {
    return this.#open.size > 0;
  }

  #isOver(): boolean {
    return this.#over.signal.aborted;
  }

  #tell(message: object): void {
    this.#process.stdin?.write(`${JSON.stringify(message)}\n`);
  }

  #hear(chunk: Buffer): void {
    let rest = chunk;
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      this.#understand(Buffer.concat([...this.#line, rest.subarray(0, end)]));
      this.#line = [];
      this.#lineBytes = 0;
      rest = rest.subarray(end + 1);
    }
    if (rest.length === 0) return;
    this.#line.push(rest);
    this.#lineBytes += rest.length;
    if (this.#lineBytes <= longestLineBytes) return;
    this.#log.warn(`a line of more than ${longestLineBytes / 1024} KiB; it is started anew`);
    this.#line = [];
    this.#lineBytes = 0;
    this.#process.signal('SIGKILL');
  }

  #understand(line: Buffer): void {
    this.#lastHeardAt = this.#clock.monotonic();
    this.#onHeard?.abort();
    if (line.toString().trim() === '') return;
    const parsed = parseJson(line);
    const message = parsed.ok && typeof parsed.value === 'object' ? { ...parsed.value } : undefined;
    if (message !== undefined && 'type' in message && message.type === 'pong') return;
    const id = message !== undefined && 'id' in message ? message.id : undefined;
    const resolve = typeof id === 'string' ? this.#open.get(id) : undefined;
    if (message === undefined || resolve === undefined) {
      this.#log.warn('it printed what is no answer', { line: plainText(line.toString(), 200) });
      return;
    }
    resolve(answerIn(message));
  }
}

function exitText(exit: Exit): string {
  return 'code' in exit ? `exit ${exit.code}` : `killed by ${exit.signal}`;
}

function requestOf(
  event: HandlerEvent,
  attempt: number,
  deadline: number,
  isExact: boolean,
): Record<string, unknown> {
  const { body, ...fields } = event;
  return {
    ...fields,
    attempt,
    deadline: new Date(deadline).toISOString(),
    ...(isExact ? { bodyBase64: body.toString('base64') } : bodyField(body, event.contentType)),
  };
}

/** As in every JSON this product prints: `body` for JSON, `bodyText` for text, `bodyBase64` for the rest. */
function bodyField(body: Buffer, contentType = ''): Record<string, unknown> {
  const parsed = /^application\/(?:[\w.-]+\+)?json\b/i.test(contentType) ? parseJson(body) : undefined;
  if (parsed?.ok) return { body: parsed.value };
  const text = body.toString('utf8');
  return Buffer.from(text).equals(body) ? { bodyText: text } : { bodyBase64: body.toString('base64') };
}

function answerIn(message: Partial<Record<string, unknown>>): Answer {
  const { outcome, status, reason, reply, replyBase64 } = message;
  const said = typeof reason === 'string' ? reason : undefined;
  const json = reply === undefined ? undefined : Buffer.from(JSON.stringify(reply));
  const bytes = typeof replyBase64 === 'string' ? Buffer.from(replyBase64, 'base64') : json;
  const number = typeof status === 'number' && Number.isInteger(status) ? status : undefined;
  switch (outcome ?? outcomeByStatus(number)) {
    case 'accept':
      return { outcome: 'accept', status: number ?? 200, reason: said, reply: bytes, decidedBy: 'handler' };
    case 'reject':
      return { outcome: 'reject', status: number ?? 400, reason: said, reply: bytes, decidedBy: 'handler' };
    case 'release':
      return { outcome: 'release', status: number ?? 503, reason: said, reply: bytes, decidedBy: 'handler' };
    case 'fault':
      return fault(said ?? 'it failed', number);
    default:
      return fault(
        `it answered with neither an outcome nor a status: ${plainText(JSON.stringify(message), 100)}`,
      );
  }
}

function outcomeByStatus(status: number | undefined): Answer['outcome'] | undefined {
  if (status === undefined) return undefined;
  return status < 400 ? 'accept' : status === 503 ? 'release' : 'reject';
}
