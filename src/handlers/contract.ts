/**
 * `iothub-device/handler`: what a handler sees and what it answers. A handler written as a module is
 *
 * ```ts
 * import type { CommandHandler } from 'iothub-device/handler';
 *
 * export default {
 *   on: 'command',
 *   async handle(command, { signal, log }) {
 *     const { service } = command.json<{ service: string }>(); // not JSON: rejected
 *     if (busy()) return command.release('busy'); // or: throw new RetryLater('busy')
 *     await restart(service, { signal });
 *     return command.accept({ reply: { restarted: service } });
 *   },
 * } satisfies CommandHandler;
 * ```
 *
 * Nothing returned means accept. An error thrown means no, for good: `reject` with its message, because what fails
 * once usually fails again and the sender should hear of it. It means "later" (`release`) when it is a `RetryLater`,
 * or the `AbortError` of the handler's own signal. A `TypeError`, `ReferenceError` or `RangeError` is a bug of the
 * handler and not of the command: later three times, then no.
 *
 * A module runs inside the agent's process. It is trusted code: it can block the agent or end it, unless
 * `isolate = true` in the configuration gives it a process of its own.
 */

/** Fields that every event has. */
interface EventFields {
  deviceId: string;
  moduleId?: string | undefined;
  /** Application properties; empty for methods and twins. */
  properties: Record<string, string>;
  /** MIME type; `application/json` for methods and twins. */
  contentType?: string | undefined;
  /** As it arrived. A method's payload and a twin's value are its JSON text. */
  body: Buffer;
}

/** A cloud-to-device message. */
export interface CommandEvent extends EventFields {
  event: 'command';
  messageId?: string | undefined;
  correlationId?: string | undefined;
  userId?: string | undefined;
  contentEncoding?: string | undefined;
  /** Which feedback its sender asked for: `none`, `positive`, `negative` or `full`. */
  ack?: string | undefined;
  /** When the hub took it, milliseconds since the epoch. */
  enqueuedAt?: number | undefined;
  /** When the hub gives up on it, milliseconds since the epoch. */
  expiresAt?: number | undefined;
  sequenceNumber?: number | undefined;
  /** The hub's count of earlier deliveries. It may stay 0; `attempt` is the agent's own count. */
  deliveryCount: number;
}

/** A direct method. Its caller waits for the answer. */
export interface MethodEvent extends EventFields {
  event: 'method';
  method: string;
  requestId?: string | undefined;
}

/** A change of desired properties. */
export interface TwinEvent extends EventFields {
  event: 'twin';
  /** Name of the desired property, with dots for what is inside another: `interval`, `fan.speed`. */
  path: string;
  /** `$version` of the desired properties that it belongs to. */
  version: number;
}

export type HandlerEvent = CommandEvent | MethodEvent | TwinEvent;
export type EventKind = HandlerEvent['event'];

/** What every event can do for a module. */
export interface EventReaders {
  /** The body as UTF-8. */
  text(): string;
  /**
   * The body as JSON. Keys that could replace a prototype (`__proto__`, `constructor`, `prototype`) are left out.
   * @throws BadMessage when it is not JSON or is nested deeper than 64 levels
   */
  // eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters -- a cast, said where it is read
  json<T = unknown>(): T;
}

/** A command as a module sees it. */
export interface CommandCall extends Readonly<CommandEvent>, EventReaders {
  /** Done. `reply` goes out as telemetry whose correlation id is the command's message id. */
  accept(options?: { reply?: unknown }): CommandResult;
  /** No, for good: the hub dead-letters it and tells its sender, if they asked. */
  reject(reason?: string): CommandResult;
  /** Later: the hub delivers it again. */
  release(reason?: string): CommandResult;
}

/** A direct method as a module sees it. */
export interface MethodCall extends Readonly<MethodEvent>, EventReaders {
  /** Answers the caller: `status` in the manner of HTTP, `payload` as JSON. */
  respond(status: number, payload?: unknown): MethodResult;
}

/** A desired property as a module sees it. */
export interface TwinCall extends Readonly<TwinEvent>, EventReaders {
  /** Acknowledges the value: `status` in the manner of HTTP becomes `ac`, `reported` is merged into the report. */
  acknowledge(
    status: number,
    options?: { description?: string; reported?: Record<string, unknown> },
  ): TwinResult;
}

export type CommandResult =
  | { outcome: 'accept'; reply?: unknown }
  | { outcome: 'reject'; reason?: string | undefined }
  | { outcome: 'release'; reason?: string | undefined };

export interface MethodResult {
  status: number;
  payload?: unknown;
}

export interface TwinResult {
  status: number;
  description?: string | undefined;
  reported?: Record<string, unknown> | undefined;
}

/** What a module gets beside the event. */
export interface HandlerContext {
  /** Aborted at the deadline and when the agent stops. */
  signal: AbortSignal;
  /** When the signal is aborted at the latest, milliseconds since the epoch. */
  deadline: number;
  /** 1 for the first run of this event, counted by the agent. */
  attempt: number;
  /** Goes to the agent's log with the handler's name and the message id. */
  log: HandlerLog;
  /** Sends telemetry: resolves once it is kept (see the agent's `[spool]`). Absent where there is no agent. */
  send?: ((message: HandlerTelemetry) => Promise<void>) | undefined;
}

export interface HandlerLog {
  error(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
  info(message: string, fields?: Record<string, unknown>): void;
  debug(message: string, fields?: Record<string, unknown>): void;
}

export interface HandlerTelemetry {
  /** A string or bytes go as they are; anything else as JSON. */
  body: unknown;
  properties?: Record<string, string>;
  contentType?: string;
  messageId?: string;
  correlationId?: string;
}

// eslint-disable-next-line @typescript-eslint/no-invalid-void-type -- a function without a return is a good handler
type Returned<Result> = Result | undefined | void | Promise<Result | undefined | void>;

export interface CommandHandler {
  on: 'command';
  /** Nothing returned means accept. */
  handle(command: CommandCall, context: HandlerContext): Returned<CommandResult>;
}

export interface MethodHandler {
  on: 'method';
  /** Nothing returned means status 200 without a payload. */
  handle(method: MethodCall, context: HandlerContext): Returned<MethodResult>;
}

export interface TwinHandler {
  on: 'twin';
  /** Nothing returned means status 200. */
  handle(change: TwinCall, context: HandlerContext): Returned<TwinResult>;
}

export type ModuleHandler = CommandHandler | MethodHandler | TwinHandler;

/** Not now: the command is released and comes again; a method answers 503; a twin change is retried. */
export class RetryLater extends Error {
  override readonly name = 'RetryLater';
}

/** The message is wrong and will stay so: the command is rejected; a method and a twin answer 400. */
export class BadMessage extends Error {
  override readonly name = 'BadMessage';
}
