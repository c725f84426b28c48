import { isUtf8 } from 'node:buffer';
import { createReadStream } from 'node:fs';

import { AgentError, errorText, systemErrorCode } from '../errors.js';
import {
  checkSize,
  longestEnvelope,
  type MessageDefaults,
  messageOf,
  tooLarge,
} from '../envelope-message.js';
import { type Line, readLinesTogether } from '../lines.js';
import { type Ack, type Envelope, type MessageKind, parseEnvelope } from '../message-envelope.js';
import { messageBytes } from '../message-size.js';
import { hubLimits, type DeviceId, type MessageFields, type TelemetryMessage } from '../model.js';
import { ulids } from '../ulids.js';
import type { Io } from './io.js';
import type { MessageFlags } from './message-options.js';

/** A command for a device. */
export interface OutgoingCommand extends MessageFields {
  messageId: string;
  ack: Ack;
  /** As its envelope says; undefined when it says nothing. */
  to: DeviceId | undefined;
}

/** One message to send, or one line that is none. `line` counts from 1; a message that is no line has none. */
export type InputItem<Message> =
  | { line: number | undefined; message: Message; error?: undefined }
  | { line: number; message?: undefined; error: AgentError };

export interface MessageInput<Message> {
  /** `one`: exactly one message, read and checked already. `many`: as many as the input has lines. */
  kind: 'one' | 'many';
  /** Reads only as fast as it is iterated. After a bad line it ends when `--on-error` says stop. */
  items: AsyncIterable<InputItem<Message>>;
  /** The same, those together that arrived together; instead of `items`, for who has many and no time for each. */
  groups: AsyncIterable<Iterable<InputItem<Message>>>;
}

/**
 * Opens what the flags name as telemetry. A single message that cannot be sent is an error here, before anyone
 * connects; a bad line is an item of its own. When `until` is aborted the input ends.
 */
export function openTelemetry(
  io: Io,
  flags: MessageFlags,
  until?: AbortSignal,
): Promise<MessageInput<TelemetryMessage>> {
  return openInput(io, flags, 'telemetry', until, (message) => message);
}

/** The same for cloud-to-device commands, which may be a quarter as large. */
export function openCommands(
  io: Io,
  flags: MessageFlags,
  until?: AbortSignal,
): Promise<MessageInput<OutgoingCommand>> {
  return openInput(io, flags, 'command', until, (message, { ack, deviceId, moduleId }) => ({
    ...message,
    // A handler that is tried out may use them as it uses any object.
    properties: { ...message.properties },
    ack: ack ?? flags.ack ?? 'none',
    to: deviceId === undefined ? undefined : { deviceId, moduleId },
  }));
}

/** Adds what only messages of one kind have. */
type Complete<Message> = (message: TelemetryMessage, envelope: Partial<Envelope>) => Message;

async function openInput<Message extends MessageFields>(
  io: Io,
  flags: MessageFlags,
  kind: MessageKind,
  until: AbortSignal | undefined,
  complete: Complete<Message>,
): Promise<MessageInput<Message>> {
  const source = onlySource(flags);
  const limitBytes = limits[kind];
  const nextId = messageIds(flags);
  const defaults = defaultsOf(flags);
  const build = (envelope: Envelope, line?: number): Message => {
    const message = complete(messageOf(envelope, defaults, nextId(line)), envelope);
    checkSize(messageBytes(message), limitBytes);
    return message;
  };

  if (source.kind === 'one') {
    const message = build(await source.read(io, limitBytes));
    return inputOf('one', single({ line: undefined, message }));
  }
  const lines = readLinesTogether(chunks(io, until), source.longestLine(limitBytes));
  const read = (line: Line): Message => {
    if (line.tooLong) throw tooLarge(limitBytes);
    return build(source.parse(line.bytes, kind), line.number);
  };
  return inputOf('many', each(lines, read, flags.onError === 'stop'));
}

function inputOf<Message>(
  kind: MessageInput<Message>['kind'],
  groups: MessageInput<Message>['groups'],
): MessageInput<Message> {
  return { kind, groups, items: oneByOne(groups) };
}

async function* oneByOne<T>(groups: AsyncIterable<Iterable<T>>): AsyncGenerator<T> {
  for await (const group of groups) yield* group;
}

const limits: Record<MessageKind, number> = {
  telemetry: hubLimits.telemetryBytes,
  command: hubLimits.commandBytes,
};

/** Where messages come from: one body, or the lines of standard input. */
type Source =
  | { kind: 'one'; read: (io: Io, limitBytes: number) => Promise<Envelope> }
  | {
      kind: 'many';
      longestLine: (limitBytes: number) => number;
      parse: (line: Buffer, kind: MessageKind) => Envelope;
    };

function onlySource({ data, dataFile, stdin, lines, ndjson }: MessageFlags): Source {
  const given: [string, Source][] = [];
  if (data !== undefined)
    given.push(['--data', { kind: 'one', read: () => Promise.resolve(textBody(Buffer.from(data))) }]);
  if (dataFile !== undefined)
    given.push(['--data-file', { kind: 'one', read: (io, limit) => fileBody(io, dataFile, limit) }]);
  if (stdin === true) given.push(['--stdin', { kind: 'one', read: (io, limit) => fileBody(io, '-', limit) }]);
  if (lines === true)
    given.push(['--lines', { kind: 'many', longestLine: (limit) => limit, parse: textBody }]);
  if (ndjson === true)
    given.push(['--ndjson', { kind: 'many', longestLine: longestEnvelope, parse: envelopeBody }]);

  const [first, second] = given;
  if (first === undefined) {
    throw new AgentError('usage', 'nothing to send', {
      hint: 'say what with --data TEXT, --data-file FILE, --stdin, --lines or --ndjson',
    });
  }
  if (second !== undefined) throw new AgentError('usage', `${first[0]} and ${second[0]} exclude each other`);
  return first[1];
}

/** Text as someone typed it: JSON when it is JSON. */
function textBody(body: Buffer): Envelope {
  return { form: isJson(body) ? 'json' : 'text', body };
}

async function fileBody(io: Io, file: string, limitBytes: number): Promise<Envelope> {
  const body = await readAtMost(file === '-' ? io.stdin : createReadStream(file), limitBytes + 1, file);
  return { form: isJson(body) ? 'json' : 'bytes', body };
}

/** The flags hold for every message that does not say otherwise. */
function defaultsOf(flags: MessageFlags): MessageDefaults {
  const {
    correlationId,
    userId,
    contentType,
    contentEncoding,
    expires: expiresAfterMs,
    prop: properties,
    creationTime,
    component,
    outputName,
  } = flags;
  const ofAll = { correlationId, userId, contentType, contentEncoding, expiresAfterMs, properties };
  return { ...ofAll, creationTime, component, outputName };
}

function envelopeBody(line: Buffer, kind: MessageKind): Envelope {
  return parseEnvelope(line, kind, Date.now());
}

async function readAtMost(stream: AsyncIterable<Buffer>, limitBytes: number, file: string): Promise<Buffer> {
  const parts: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of stream) {
      parts.push(chunk);
      length += chunk.length;
      if (length >= limitBytes) break;
    }
  } catch (error) {
    const missing = systemErrorCode(error) === 'ENOENT';
    const why = missing ? 'there is no such file' : errorText(error);
    throw new AgentError(missing ? 'no-input' : 'io', `cannot read ${file}: ${why}`);
  }
  return Buffer.concat(parts);
}

function isJson(body: Buffer): boolean {
  try {
    JSON.parse(body.toString('utf8'));
    return isUtf8(body);
  } catch {
    return false;
  }
}

/** Standard input until it ends or is not wanted any more. */
async function* chunks(io: Io, until: AbortSignal | undefined): AsyncGenerator<Buffer> {
  const { stdin } = io;
  const end = (): void => {
    stdin.destroy();
  };
  if (until?.aborted) return;
  until?.addEventListener('abort', end, { once: true });
  try {
    for await (const chunk of stdin) yield chunk as Buffer;
  } catch (error) {
    // Destroyed under the iteration: that is how it ends.
    if (until?.aborted) return;
    throw new AgentError('io', `cannot read standard input: ${errorText(error)}`, { cause: error });
  } finally {
    until?.removeEventListener('abort', end);
  }
}

async function* each<Message>(
  groups: AsyncIterable<Iterable<Line>>,
  read: (line: Line) => Message,
  stopAtError: boolean,
): AsyncGenerator<Iterable<InputItem<Message>>> {
  const input = { isOver: false };
  const itemsOf = function* (lines: Iterable<Line>): Generator<InputItem<Message>> {
    for (const line of lines) {
      if (line.bytes.length === 0 && !line.tooLong) continue;
      try {
        yield { line: line.number, message: read(line) };
      } catch (error) {
        if (!(error instanceof AgentError)) throw error;
        input.isOver = stopAtError;
        yield { line: line.number, error };
        if (stopAtError) return;
      }
    }
  };
  for await (const lines of groups) {
    yield itemsOf(lines);
    if (input.isOver) return;
  }
}

async function* single<T>(item: T): AsyncGenerator<Iterable<T>> {
  yield await Promise.resolve([item]);
}

/** Sorted as they were made, even within a millisecond. `--message-id` is the id of one message, or the start of many. */
function messageIds({ messageId }: MessageFlags): (line?: number) => () => string {
  const ulid = ulids();
  return (line) => () => {
    if (messageId === undefined) return ulid();
    return line === undefined ? messageId : `${messageId}-${String(line)}`;
  };
}
