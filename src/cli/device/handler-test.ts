import { extname } from 'node:path';
import { Readable } from 'node:stream';

import type { AgentConfig } from '../../daemon/config.js';
import { placeHandlers } from '../../daemon/handlers.js';
import { systemClock } from '../../clock.js';
import { AgentError } from '../../errors.js';
import type { HandlerEvent } from '../../handlers/contract.js';
import type { Answer, Handler } from '../../handlers/handler.js';
import { loadModule, moduleHandler } from '../../handlers/module.js';
import { outcomeOf, replyTo } from '../../handlers/outcome.js';
import { programHandler } from '../../handlers/program.js';
import { findRoute } from '../../handlers/route.js';
import { Runner } from '../../handlers/runner.js';
import type { Log } from '../../log.js';
import { visible } from '../../visible.js';
import { exitCodeFor, exitCodes } from '../exit-codes.js';
import type { Io } from '../io.js';
import { jsonOnOneLine } from '../json-text.js';
import { openCommands, type OutgoingCommand } from '../message-input.js';
import type { MessageFlags } from '../message-options.js';
import { moduleProcess } from '../module-process.js';
import { bodyForPeople } from '../output-message.js';
import { columns, type Printable, type Printer } from '../output.js';

export interface TestFlags extends MessageFlags {
  message?: string;
  method?: string;
  path?: string;
  attempt: number;
}

export interface TestJob extends TestFlags {
  /** A handler's name, or the path of a file. */
  name: string | undefined;
  log: Log;
  printer: Printer;
}

/** Gives each event of the input to the handler that takes it, as the agent would. Returns the exit code. */
export async function testHandler(io: Io, config: AgentConfig, job: TestJob): Promise<number> {
  const { log, printer, name } = job;
  const handlers = await handlersFor(config, job);
  const named = name === undefined ? undefined : handlers.find((one) => one.name === name);
  if (name !== undefined && named === undefined) {
    throw new AgentError('usage', `no handler is called "${name}"`, {
      hint: 'iothub-device handler list shows which there are; the path of a file has a "/" in it',
    });
  }
  const runner = new Runner(log, systemClock);
  let running: Promise<unknown> = Promise.resolve();
  io.stop.addEventListener('abort', () => void runner.stop(() => running, killAfterMs, io.now));
  let exitCode: number = exitCodes.ok;
  try {
    for await (const event of eventsOf(io, job, named)) {
      const handler = routeFor(event, handlers, named);
      const startedAt = performance.now();
      const run = Promise.resolve(runner.run(handler, event, job.attempt, handler.timeoutMs));
      running = run;
      const answer = await run;
      const ms = Math.round(performance.now() - startedAt);
      await printer.print(resultLine(event, handler, answer, ms));
      if (exitCode === exitCodes.ok) exitCode = exitCodeOf(answer);
      io.stop.throwIfAborted();
    }
  } finally {
    for (const handler of handlers) await handler[Symbol.asyncDispose]();
  }
  return exitCode;
}

/** After a signal; the second one means now. */
const killAfterMs = 5_000;

async function handlersFor(config: AgentConfig, { name, log, method, path }: TestJob): Promise<Handler[]> {
  const send = (message: object): Promise<void> => {
    log.info('here it would send telemetry', { ...message });
    return Promise.resolve();
  };
  if (name?.includes('/') !== true) {
    return (await placeHandlers(config, { log, send, isolated: moduleProcess })).map(
      ({ handler }) => handler,
    );
  }
  if (['.js', '.mjs', '.ts'].includes(extname(name))) {
    return [moduleHandler(await loadModule(name), { name, send })];
  }
  const on = method !== undefined ? 'method' : path !== undefined ? 'twin' : 'command';
  return [programHandler({ name, on, file: name })];
}

async function* eventsOf(io: Io, job: TestJob, named: Handler | undefined): AsyncGenerator<HandlerEvent> {
  const { message, method, path } = job;
  const on = method !== undefined ? 'method' : path !== undefined ? 'twin' : (named?.on ?? 'command');
  const source =
    message === undefined
      ? { io, flags: on === 'command' ? job : { data: '', ...job } }
      : {
          io: Object.create(io, { stdin: { value: Readable.from([Buffer.from(message)]) } }) as Io,
          flags: { ...job, ndjson: true },
        };
  const { items } = await openCommands(source.io, source.flags);
  for await (const item of items) {
    if (item.error !== undefined) throw item.error;
    yield eventOf(on, item.message, job, named);
  }
}

function eventOf(
  on: HandlerEvent['event'],
  message: OutgoingCommand,
  { method, path }: TestFlags,
  named: Handler | undefined,
): HandlerEvent {
  const { body } = message;
  const call = { deviceId: 'test', properties: {}, contentType: 'application/json', body };
  switch (on) {
    case 'command':
      return { event: on, deviceId: 'test', deliveryCount: 0, enqueuedAt: Date.now(), ...message };
    case 'method':
      return { ...call, event: on, method: method ?? literal(named?.match?.method) ?? 'test' };
    case 'twin':
      return { ...call, event: on, path: path ?? literal(named?.match?.path) ?? 'test', version: 1 };
  }
}

/** The name that a condition asks for, when it asks for one. */
function literal(wanted: string | readonly string[] | undefined): string | undefined {
  const first = typeof wanted === 'string' ? wanted : wanted?.[0];
  return first === undefined || /[*?\\]/.test(first) ? undefined : first;
}

function routeFor(event: HandlerEvent, handlers: readonly Handler[], named: Handler | undefined): Handler {
  const handler = findRoute(handlers, event);
  if (handler !== undefined && (named === undefined || handler === named)) return handler;
  const wanted = named === undefined ? '' : `${named.name} takes ${JSON.stringify(named.match ?? {})}`;
  throw new AgentError(
    'data',
    handler === undefined ? 'no handler takes this' : `this goes to the handler ${handler.name}`,
    wanted === '' ? {} : { hint: wanted },
  );
}

function resultLine(event: HandlerEvent, handler: Handler, answer: Answer, ms: number): Printable {
  const { status, decidedBy, replyBytes } = answer;
  const output = answer.reply;
  const isCommand = event.event === 'command';
  const outcome = outcomeOf(answer, handler);
  // What a program said last is a reason only when it said no; a twin's handler may say something with its yes.
  const isReason = answer.outcome !== 'accept' || event.event === 'twin';
  const reason = isCommand && outcome.outcome !== 'accept' ? outcome.reason : answer.reason;
  const goesOut = isCommand && replyTo(outcome, handler, answer, () => undefined) !== undefined;
  const facts = {
    handler: handler.name,
    messageId: isCommand ? event.messageId : undefined,
    ...(isCommand ? { outcome: outcome.outcome } : { status }),
    ms,
    reason: isReason ? reason : undefined,
    decidedBy,
    ...(isCommand ? { reply: goesOut } : {}),
    ...outputMember(output),
    outputBytes: replyBytes,
  };
  return {
    json: () => jsonOnOneLine(JSON.stringify(facts)),
    text: ({ columns: limit }) => {
      const said = isCommand ? outcome.outcome : String(status);
      const head = columns(
        [said, visible(handler.name), `${ms} ms`, isReason ? visible(reason ?? '') : ''],
        [7, 12, 8],
        limit,
      );
      if (output === undefined) return head;
      const what = goesOut || !isCommand ? 'reply' : 'output, which goes nowhere without reply = true';
      return `${head}\n${what}: ${bodyForPeople(withoutLineEnd(output))}`;
    },
  };
}

function withoutLineEnd(output: Buffer): Buffer {
  return output.at(-1) === 0x0a ? output.subarray(0, -1) : output;
}

function outputMember(output: Buffer | undefined): object {
  if (output === undefined) return {};
  const text = output.toString('utf8');
  return Buffer.from(text).equals(output) ? { output: text } : { outputBase64: output.toString('base64') };
}

function exitCodeOf({ outcome }: Answer): number {
  if (outcome === 'accept') return exitCodes.ok;
  return exitCodeFor(outcome === 'reject' ? 'data' : 'try-again');
}
