import { existsSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

import { systemClock, type Clock } from '../clock.js';
import { AgentError, errorText, systemErrorCode } from '../errors.js';
import { importFile } from '../import-file.js';
import { anyOf } from '../signals.js';
import { formatSeconds } from '../units.js';
import {
  BadMessage,
  type CommandCall,
  type CommandEvent,
  type EventReaders,
  type HandlerContext,
  type HandlerEvent,
  type HandlerLog,
  type HandlerTelemetry,
  type MethodCall,
  type ModuleHandler,
  type TwinCall,
} from './contract.js';
import {
  killGraceMs,
  ruledHandler,
  type AllFields,
  type Answer,
  type Handler,
  type HandlerRules,
  type Run,
} from './handler.js';
import { parseJson } from './json.js';
import { permissionProblem } from './permissions.js';

export interface ModuleHandlerOptions extends HandlerRules {
  /** What the module's `send` does. */
  send?: ((message: HandlerTelemetry) => Promise<void>) | undefined;
  clock?: Clock | undefined;
}

/** A handler that calls a function in this process. */
export function moduleHandler(module: ModuleHandler, options: ModuleHandlerOptions): Handler {
  return {
    ...ruledHandler(options, module.on, 'given'), // a module says itself, each time
    run: (event, run) => callModule(module, options, event, run),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

let loads = 0;

/**
 * Imports a handler module: its default export is `{on, handle}`. Each call reads the file again, so that a reload
 * takes effect; what ran before keeps the code it began with. Only the file itself is read again, not what it imports.
 *
 * @throws AgentError `config` when it cannot be loaded or is no handler, or when others could have changed it
 */
export async function loadModule(
  file: string,
  { checkPermissions = true }: { checkPermissions?: boolean } = {},
): Promise<ModuleHandler> {
  const problem = checkPermissions ? permissionProblem(file) : undefined;
  if (problem !== undefined) throw new AgentError('config', `refused: ${problem}`);
  const url = pathToFileURL(file);
  url.searchParams.set('load', String(++loads));
  let loaded: { default?: unknown };
  try {
    loaded = (await importFile(url.href)) as { default?: unknown };
  } catch (cause) {
    throw new AgentError('config', `${file} cannot be loaded: ${errorText(cause)}`, {
      cause,
      hint: loadHint(cause),
    });
  }
  if (!isModuleHandler(loaded.default)) {
    throw new AgentError('config', `${file} is not a handler`, {
      hint: "it must export default { on: 'command' | 'method' | 'twin', handle(event, context) { … } }",
    });
  }
  return loaded.default;
}

/** Why a module must not or cannot be loaded, as far as can be told without loading it. */
export function moduleProblem(file: string): string | undefined {
  return existsSync(file) ? permissionProblem(file) : `${file} is missing`;
}

function loadHint(error: unknown): string | undefined {
  return systemErrorCode(error) === 'ERR_UNKNOWN_FILE_EXTENSION'
    ? 'TypeScript needs Node 22.18 or later; with an older one compile it to JavaScript'
    : undefined;
}

function isModuleHandler(value: unknown): value is ModuleHandler {
  if (typeof value !== 'object' || value === null || !('on' in value) || !('handle' in value)) return false;
  return (
    (value.on === 'command' || value.on === 'method' || value.on === 'twin') &&
    typeof value.handle === 'function'
  );
}

function callModule(
  module: ModuleHandler,
  { clock = systemClock, send }: ModuleHandlerOptions,
  event: HandlerEvent,
  run: Run,
): Answer | Promise<Answer> {
  const context = new Context(run, clock.now() + run.timeoutMs, send);
  try {
    const returned = invoke(module, event, context);
    if (isThenable(returned)) return answerLater(module, returned, context, run, clock);
    context.over();
    return answerReaders[module.on](returned);
  } catch (error) {
    context.over();
    return answerToError(error, context, run);
  }
}

/** Gives up on a function that does not come back in time after its signal was aborted. */
async function answerLater(
  module: ModuleHandler,
  returned: PromiseLike<unknown>,
  context: Context,
  run: Run,
  clock: Clock,
): Promise<Answer> {
  try {
    const answering = Promise.resolve(returned).then(answerReaders[module.on]);
    // The time is only kept of who is not done at once.
    const atOnce = await Promise.race([answering, nextTurn()]);
    return atOnce ?? (await inTime(answering, context, run, clock));
  } catch (error) {
    return answerToError(error, context, run);
  } finally {
    context.over();
  }
}

async function inTime(answering: Promise<Answer>, context: Context, run: Run, clock: Clock): Promise<Answer> {
  const over = new AbortController();
  const late = async (): Promise<Answer> => {
    using until = anyOf(over.signal, run.killing);
    await clock.sleep(run.timeoutMs, until).catch(() => undefined);
    if (!over.signal.aborted) context.late();
    await clock.sleep(killGraceMs, until).catch(() => undefined);
    if (!over.signal.aborted) run.log.error('it does not heed its signal and is left running');
    return run.stopping.aborted ? stopped : timedOut(run.timeoutMs);
  };
  try {
    return await Promise.race([answering, late()]);
  } finally {
    over.abort();
  }
}

/**
 * Few ask for the signal or the log, and either costs more than what many handlers do, so they are made when they are
 * asked for. They are properties of its own, and in a copy too.
 */
class Context implements HandlerContext {
  declare readonly signal: AbortSignal;
  declare readonly log: HandlerLog;
  readonly attempt: number;
  readonly #run: Run;
  #deadline: AbortController | undefined;
  #signal: (AbortSignal & Disposable) | undefined;
  #isLate = false;

  constructor(
    run: Run,
    readonly deadline: number,
    readonly send: HandlerContext['send'],
  ) {
    this.#run = run;
    this.attempt = run.attempt;
    Object.defineProperty(this, 'signal', Context.#ownSignal);
    Object.defineProperty(this, 'log', Context.#ownLog);
  }

  static readonly #ownSignal: PropertyDescriptor & ThisType<Context> = {
    enumerable: true,
    get() {
      return (this.#signal ??= this.#newSignal());
    },
  };

  static readonly #ownLog: PropertyDescriptor & ThisType<Context> = {
    enumerable: true,
    get() {
      return this.#run.log;
    },
  };

  get isLate(): boolean {
    return this.#isLate;
  }

  /** Its time is over. */
  late(): void {
    this.#isLate = true;
    this.#deadline?.abort();
  }

  /** Nobody waits for the handler any more. */
  over(): void {
    this.#signal?.[Symbol.dispose]();
  }

  #newSignal(): AbortSignal & Disposable {
    this.#deadline = new AbortController();
    if (this.#isLate) this.#deadline.abort();
    return anyOf(this.#deadline.signal, this.#run.stopping);
  }
}

let turn: Promise<undefined> | undefined;

/** Shared by all that ask for it in one turn of the event loop. */
function nextTurn(): Promise<undefined> {
  turn ??= new Promise((resolve) => {
    setImmediate(() => {
      turn = undefined;
      resolve(undefined);
    });
  });
  return turn;
}

const stopped: Answer = {
  outcome: 'release',
  status: 503,
  decidedBy: 'stopping',
  reason: 'the agent is stopping',
};

function timedOut(afterMs: number): Answer {
  return {
    outcome: 'release',
    status: 504,
    decidedBy: 'fault',
    reason: `no end after ${formatSeconds(afterMs)}`,
  };
}

function invoke(module: ModuleHandler, event: HandlerEvent, context: HandlerContext): unknown {
  if (module.on === 'command' && event.event === 'command') {
    return module.handle(commandCall(event), context);
  }
  if (module.on === 'method' && event.event === 'method') {
    return module.handle(methodCall(event), context);
  }
  if (module.on === 'twin' && event.event === 'twin') {
    return module.handle(twinCall(event), context);
  }
  throw new TypeError(`a handler for ${module.on} was given a ${event.event}`);
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function';
}

const accept: CommandCall['accept'] = ({ reply } = {}) => ({ outcome: 'accept', reply });
const reject: CommandCall['reject'] = (reason) => ({ outcome: 'reject', reason });
const release: CommandCall['release'] = (reason) => ({ outcome: 'release', reason });

/** Field by field: to copy an object of this size and add to it takes V8 a hundred times as long. */
function commandCall(event: CommandEvent): CommandCall {
  const call: AllFields<CommandCall> = {
    event: event.event,
    deviceId: event.deviceId,
    moduleId: event.moduleId,
    messageId: event.messageId,
    correlationId: event.correlationId,
    userId: event.userId,
    contentType: event.contentType,
    contentEncoding: event.contentEncoding,
    ack: event.ack,
    enqueuedAt: event.enqueuedAt,
    expiresAt: event.expiresAt,
    sequenceNumber: event.sequenceNumber,
    deliveryCount: event.deliveryCount,
    properties: event.properties,
    body: event.body,
    text: () => textOf(event.body),
    // eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters -- see EventReaders
    json: <T>() => jsonOf(event.body) as T,
    accept,
    reject,
    release,
  };
  return call;
}

function methodCall(event: HandlerEvent & { event: 'method' }): MethodCall {
  return { ...event, ...readersOf(event), respond: (status, payload) => ({ status, payload }) };
}

function twinCall(event: HandlerEvent & { event: 'twin' }): TwinCall {
  return { ...event, ...readersOf(event), acknowledge: (status, options) => ({ status, ...options }) };
}

function readersOf({ body }: HandlerEvent): EventReaders {
  // eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters -- see EventReaders
  return { text: () => textOf(body), json: <T>() => jsonOf(body) as T };
}

function textOf(body: Buffer): string {
  return body.toString('utf8');
}

function jsonOf(body: Buffer): unknown {
  const parsed = parseJson(body);
  if (!parsed.ok) throw new BadMessage(parsed.why);
  return parsed.value;
}

const accepted: Answer = { outcome: 'accept', status: 200, decidedBy: 'handler' };

/** A module may be plain JavaScript: what it returns is looked at, whatever the types say. */
function commandAnswer(returned: unknown): Answer {
  if (returned === undefined) return accepted;
  const { outcome, reason, reply } = fieldsOf(returned);
  if (outcome !== 'accept' && outcome !== 'reject' && outcome !== 'release') {
    throw new TypeError('the handler returned neither nothing nor accept(), reject() or release()');
  }
  return {
    outcome,
    status: { accept: 200, reject: 400, release: 503 }[outcome],
    reason: typeof reason === 'string' ? reason : undefined,
    reply: bytesOf(reply),
    decidedBy: 'handler',
  };
}

function methodAnswer(returned: unknown): Answer {
  if (returned === undefined) return accepted;
  const { status, payload } = fieldsOf(returned);
  return { ...answerWithStatus(status, 'respond(status, payload)'), reply: jsonBytes(payload) };
}

function twinAnswer(returned: unknown): Answer {
  if (returned === undefined) return accepted;
  const { status, description, reported } = fieldsOf(returned);
  return {
    ...answerWithStatus(status, 'acknowledge(status)'),
    reason: typeof description === 'string' ? description : undefined,
    reply: jsonBytes(reported),
  };
}

function answerWithStatus(status: unknown, expected: string): Answer {
  if (typeof status !== 'number' || !Number.isInteger(status)) {
    throw new TypeError(`the handler returned neither nothing nor ${expected}`);
  }
  const outcome = status < 400 ? 'accept' : status === 503 ? 'release' : 'reject';
  return { outcome, status, decidedBy: 'handler' };
}

const answerReaders = { command: commandAnswer, method: methodAnswer, twin: twinAnswer } as const;

function fieldsOf(value: unknown): Partial<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? { ...value } : {};
}

function bytesOf(value: unknown): Buffer | undefined {
  if (typeof value === 'string') return Buffer.from(value);
  return value instanceof Uint8Array ? Buffer.from(value) : jsonBytes(value);
}

function jsonBytes(value: unknown): Buffer | undefined {
  return value === undefined ? undefined : Buffer.from(JSON.stringify(value));
}

/** `fetch` and its like throw TypeErrors for a dead network too; a later attempt is right for that as well. */
const bugs = new Set(['TypeError', 'ReferenceError', 'RangeError']);

/**
 * By name, since a module may have a copy of `iothub-device/handler` of its own. A SyntaxError is not counted as a
 * bug: at run time it is nearly always the handler's own `JSON.parse` of a bad message.
 */
function answerToError(error: unknown, context: Context, run: Run): Answer {
  if (isAbort(error) && context.isLate) return timedOut(run.timeoutMs);
  if (isAbort(error) && run.stopping.aborted) return stopped;
  const reason = errorText(error);
  const name = error instanceof Error ? error.name : '';
  if (name === 'RetryLater') return { outcome: 'release', status: 503, reason, decidedBy: 'handler' };
  if (name === 'BadMessage') return { outcome: 'reject', status: 400, reason, decidedBy: 'handler' };
  if (bugs.has(name)) {
    run.log.error('a bug in the handler', { error, stack: error instanceof Error ? error.stack : undefined });
    return { outcome: 'release', status: 500, reason, decidedBy: 'fault' };
  }
  return { outcome: 'reject', status: 500, reason, decidedBy: 'handler' };
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError';
}
