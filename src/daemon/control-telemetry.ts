import { isUtf8 } from 'node:buffer';
import type { IncomingMessage, ServerResponse } from 'node:http';

import type { Fate } from '../agent/spool-outbox.js';
import { didYouMean } from '../did-you-mean.js';
import {
  checkSize,
  longestEnvelope,
  type MessageDefaults,
  messageOf,
  tooLarge,
} from '../envelope-message.js';
import { AgentError } from '../errors.js';
import { readLines } from '../lines.js';
import { type Envelope, parseEnvelope } from '../message-envelope.js';
import { messageBytes } from '../message-size.js';
import { hubLimits, type Properties, type TelemetryMessage } from '../model.js';
import { anyOf } from '../signals.js';
import { ulids } from '../ulids.js';
import { parseDuration } from '../units.js';
import { answer, type Exchange, type Route, statusOf, writeLine } from './http-server.js';
import { failedAnswer, rejectedAnswer, type TelemetryAnswer } from './control-answer.js';

/** What the agent does with telemetry that it is handed. */
export interface TelemetryDoor {
  /** Resolves to the message's id when it is on disk. Errors: `try-again`, `data`, `io`. */
  keep(message: TelemetryMessage): Promise<number>;
  /** What the hub says of it in the end. Rejects when the signal is aborted first. */
  fateOf(id: number, signal: AbortSignal): Promise<Fate>;
  /** Whether it waits for the hub or is a dead letter. */
  has(id: number): Promise<boolean>;
  /** Aborted when no more telemetry is taken. */
  readonly stopping: AbortSignal;
}

/**
 * `POST /v1/telemetry`: one message, whose body and content type are those of the request, or with the content type
 * `application/x-ndjson` a message for each line, as `send --ndjson` reads them, with a line for each in the answer,
 * in the same order, as soon as it is known. `?wait=disk` (default) or `hub` says what is waited for.
 */
export function telemetryRoute(door: TelemetryDoor): Route {
  const nextId = ulids();
  return async (exchange) => {
    if (door.stopping.aborted) throw new AgentError('unavailable', 'the agent is stopping');
    const type = exchange.request.headers['content-type'];
    const taking = { door, nextId: () => nextId(), ...parametersOf(exchange.query) };
    if (mediaType(type) === 'application/x-ndjson') await takeStream(exchange, taking);
    else await takeOne(exchange, type, taking);
  };
}

interface Taking extends Parameters {
  door: TelemetryDoor;
  nextId: () => string;
}

/** What the query says. */
interface Parameters {
  wait: 'disk' | 'hub';
  /** How long to wait for the hub. */
  timeoutMs: number;
  /** For messages that do not say otherwise. */
  defaults: MessageDefaults;
  only: Pick<Envelope, 'messageId' | 'creationTime' | 'component' | 'outputName'>;
}

/** 2xx: kept. 422: the hub will never take it. 504: the hub has not said yet; it is kept. */
const statusByOutcome = { queued: 202, accepted: 200, rejected: 422, failed: 500 } as const;
/** 256 KiB over a Unix socket. */
const bodyWithinMs = 10_000;

async function takeOne(
  { request, response, over }: Exchange,
  type: string | undefined,
  taking: Taking,
): Promise<void> {
  const body = await readBody(request, response, over);
  const contentType = type === undefined || mediaType(type) === typeOfForms ? undefined : type;
  const envelope: Envelope = { ...taking.only, form: formOf(body), body };
  if (contentType !== undefined) envelope.contentType = contentType;
  const result = await take(() => envelope, taking, over);
  const failure = result.error === undefined ? undefined : new AgentError(result.code ?? 'bug', result.error);
  if (result.outcome === 'failed' && failure !== undefined) answer(response, statusOf(failure), result);
  else if (result.outcome === 'queued' && failure !== undefined) answer(response, 504, result);
  else answer(response, statusByOutcome[result.outcome], result);
}

/** What `curl -d` says of any body. */
const typeOfForms = 'application/x-www-form-urlencoded';

/** So many lines may be without an answer, and so many bytes of them: they share the writes of the disk. */
const window = { count: 1_000, bytes: 1024 * 1024 };

async function takeStream({ request, response, over }: Exchange, taking: Taking): Promise<void> {
  const { door } = taking;
  welcomeBody(request, response);
  response.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
  // Who waits for the head of the answer is given it now; for who has sent everything it goes with the first line.
  setImmediate(() => {
    if (!request.complete && !response.writableEnded) response.flushHeaders();
  });
  using ended = anyOf(over, door.stopping);
  const open = { count: 0, bytes: 0 };
  let wake: () => void = () => undefined;
  over.addEventListener('abort', () => {
    wake();
  });
  let answered: Promise<void> = Promise.resolve();

  const input = chunksUntil(request, ended);
  for await (const { number, bytes, tooLong } of readLines(
    input,
    longestEnvelope(hubLimits.telemetryBytes),
  )) {
    if (bytes.length === 0 && !tooLong) continue;
    const read = (): Envelope => {
      if (tooLong) throw tooLarge(hubLimits.telemetryBytes);
      return { ...taking.only, ...parseEnvelope(bytes, 'telemetry', Date.now()) };
    };
    const taken = take(read, taking, over);
    const before = answered;
    open.count++;
    open.bytes += bytes.length;
    answered = (async () => {
      await before;
      await writeLine(response, { line: number, ...(await taken) }, over);
      open.count--;
      open.bytes -= bytes.length;
      wake();
    })();
    answered.catch(() => undefined); // thrown where it is awaited
    while (open.count >= window.count || open.bytes >= window.bytes) {
      over.throwIfAborted();
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  }
  await answered;
  response.end();
}

/** Never rejects: what went wrong is an answer too. */
async function take(read: () => Envelope, taking: Taking, over: AbortSignal): Promise<TelemetryAnswer> {
  const startedAt = performance.now();
  const ms = () => Math.round(performance.now() - startedAt);
  let messageId: string | undefined;
  try {
    const message = telemetryOf(read(), taking);
    ({ messageId } = message);
    const id = await taking.door.keep(message);
    if (taking.wait === 'disk') return { messageId, outcome: 'queued', ms: ms() };
    const result = await waitForHub(id, taking, over);
    return { messageId, ms: ms(), ...result };
  } catch (error) {
    const known =
      error instanceof AgentError ? error : new AgentError('bug', String(error), { cause: error });
    return { messageId, ...failedAnswer(known) };
  }
}

async function waitForHub(
  id: number,
  { door, timeoutMs }: Taking,
  over: AbortSignal,
): Promise<TelemetryAnswer> {
  const patience = new AbortController();
  const timer = Number.isFinite(timeoutMs)
    ? setTimeout(() => {
        patience.abort(new AgentError('unavailable', `no answer of the hub within ${timeoutMs / 1000} s`));
      }, timeoutMs)
    : undefined;
  using signal = anyOf(over, patience.signal);
  try {
    const fate = await door.fateOf(id, signal);
    return fate.outcome === 'accepted' ? fate : rejectedAnswer(fate.condition, fate.description);
  } catch (error) {
    if (!signal.aborted || !(error instanceof AgentError)) throw error;
    if (!(await door.has(id))) {
      return failedAnswer(new AgentError('try-again', 'the spool dropped it: too old, or no room'));
    }
    const { message, code } = error;
    return {
      outcome: 'queued',
      error: message,
      code,
      hint: 'it is on disk, and the agent sends it when it can',
      retryable: false,
    };
  } finally {
    clearTimeout(timer);
  }
}

function telemetryOf(envelope: Envelope, { defaults, nextId }: Taking): TelemetryMessage {
  const message = messageOf(envelope, defaults, nextId);
  checkSize(messageBytes(message), hubLimits.telemetryBytes);
  return message;
}

async function readBody(
  request: IncomingMessage,
  response: ServerResponse,
  over: AbortSignal,
): Promise<Buffer> {
  const parts: Buffer[] = [];
  let length = 0;
  // Before any of it is read, when the client says how long it is.
  if (Number(request.headers['content-length']) > hubLimits.telemetryBytes) {
    throw tooLarge(hubLimits.telemetryBytes);
  }
  welcomeBody(request, response);
  using signal = anyOf(over, AbortSignal.timeout(bodyWithinMs));
  for await (const chunk of chunksUntil(request, signal)) {
    length += chunk.length;
    if (length > hubLimits.telemetryBytes) throw tooLarge(hubLimits.telemetryBytes);
    parts.push(chunk);
  }
  if (signal.aborted) throw new AgentError('data', `the body did not come within ${bodyWithinMs / 1000} s`);
  return Buffer.concat(parts);
}

/** For a client that asked first. */
function welcomeBody(request: IncomingMessage, response: ServerResponse): void {
  if (request.headers.expect !== undefined) response.writeContinue();
}

/**
 * What a request sends, until it ends or breaks off or the signal is aborted. Unlike its own iterator this leaves the
 * request whole: the answer is still to be written.
 */
async function* chunksUntil(request: IncomingMessage, signal: AbortSignal): AsyncGenerator<Buffer> {
  while (!signal.aborted) {
    const chunk = request.read() as Buffer | null;
    if (chunk !== null) yield chunk;
    else if (request.readableEnded || request.destroyed) return;
    else await moved(request, signal);
  }
}

/** There may be more to read, or never again. */
function moved(request: IncomingMessage, signal: AbortSignal): Promise<void> {
  const events = ['readable', 'end', 'close', 'error'] as const;
  return new Promise((resolve) => {
    const wake = () => {
      for (const event of events) request.off(event, wake);
      signal.removeEventListener('abort', wake);
      resolve();
    };
    for (const event of events) request.on(event, wake);
    signal.addEventListener('abort', wake);
  });
}

function formOf(body: Buffer): Envelope['form'] {
  if (!isUtf8(body)) return 'bytes';
  try {
    JSON.parse(body.toString('utf8'));
    return 'json';
  } catch {
    return 'text';
  }
}

function mediaType(type: string | undefined): string | undefined {
  return type?.split(';')[0]?.trim().toLowerCase();
}

const waits = ['disk', 'hub'] as const;
const texts = ['correlationId', 'userId', 'contentEncoding'] as const;
const onlyTexts = ['messageId', 'creationTime', 'component', 'outputName'] as const;
const keys = ['wait', 'timeout', 'expires', ...texts, ...onlyTexts] as const;
const defaultTimeoutMs = 30_000;

/** `?wait=hub&timeout=5s&messageId=m1&prop.room=kitchen`; a misspelt name is an error, as it is everywhere. */
function parametersOf(query: URLSearchParams): Parameters {
  const properties = Object.create(null) as Properties;
  for (const [key, value] of query) {
    if (key.startsWith('prop.') && key.length > 5) properties[key.slice(5)] = value;
    else if (!keys.some((known) => known === key)) throw unknownKey(key);
  }
  const wait = waits.find((known) => known === (query.get('wait') ?? 'disk'));
  if (wait === undefined) throw new AgentError('usage', 'wait is "disk" or "hub"');
  const timeoutMs = durationOf(query, 'timeout') ?? defaultTimeoutMs;
  return {
    wait,
    timeoutMs: timeoutMs === 0 ? Infinity : timeoutMs,
    defaults: { ...pick(query, texts), expiresAfterMs: durationOf(query, 'expires'), properties },
    only: pick(query, onlyTexts),
  };
}

function unknownKey(key: string): AgentError {
  const meant = didYouMean(key, keys);
  return new AgentError('usage', `unknown parameter "${key}"`, {
    hint: meant === undefined ? `known are ${keys.join(', ')} and prop.NAME` : `did you mean "${meant}"?`,
  });
}

function pick<Key extends string>(
  query: URLSearchParams,
  wanted: readonly Key[],
): Partial<Record<Key, string>> {
  const found: Partial<Record<Key, string>> = {};
  for (const key of wanted) {
    const value = query.get(key);
    if (value !== null) found[key] = value;
  }
  return found;
}

function durationOf(query: URLSearchParams, key: string): number | undefined {
  const text = query.get(key);
  if (text === null) return undefined;
  try {
    return parseDuration(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new AgentError('usage', `${key}: ${error.message}`);
  }
}
