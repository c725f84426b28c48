/**
 * One error type for everything that can go wrong on the way to the hub and back.
 *
 * `code` says what kind of failure it is and decides the exit code (`cli/exit-codes`); `retry` says what the
 * agent's loop does about it; `hint` is the sentence that tells a person what to do next.
 */
export type ErrorCode =
  | 'usage' // the command line is wrong
  | 'data' // the message or the input is wrong, or the hub rejected it for good
  | 'no-input' // a file to read is missing
  | 'no-device' // the hub does not know this device, or has no such address
  | 'host-unknown' // DNS
  | 'unavailable' // refused, unreachable, silent, closed
  | 'bug' // nobody recognised it
  | 'cannot-create' // a file or directory cannot be made
  | 'io' // disk or pipe
  | 'try-again' // throttled, quota, queue full, released
  | 'protocol' // not an AMQP peer, or TLS that cannot be trusted
  | 'refused' // key, token or permission
  | 'config'; // configuration or connection string

/** `soon`: network trouble, back off in seconds. `late`: the hub said no, keep trying in minutes. `never`: ours to mend. */
export type RetryClass = 'soon' | 'late' | 'never';

export interface AgentErrorOptions {
  /** AMQP error condition as the hub named it, e.g. `amqp:unauthorized-access`. */
  condition?: string | undefined;
  /** What a person can do about it. */
  hint?: string | undefined;
  cause?: unknown;
  retry?: RetryClass;
}

const retryByCode: Record<ErrorCode, RetryClass> = {
  usage: 'never',
  data: 'never',
  'no-input': 'never',
  'no-device': 'late',
  'host-unknown': 'soon',
  unavailable: 'soon',
  bug: 'soon',
  'cannot-create': 'never',
  io: 'soon',
  'try-again': 'late',
  protocol: 'late',
  refused: 'late',
  config: 'never',
};

export class AgentError extends Error {
  override readonly name = 'AgentError';
  readonly code: ErrorCode;
  readonly retry: RetryClass;
  readonly condition: string | undefined;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: AgentErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.retry = options.retry ?? retryByCode[code];
    this.condition = options.condition;
    this.hint = options.hint;
  }
}

/** The text of whatever was thrown, for a message or a log line. */
export function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

const longestChain = 6;

/** An error, and what caused it, from near to far. */
export function errorChain(error: unknown): unknown[] {
  const links: unknown[] = [];
  for (let at = error; at !== undefined && links.length < longestChain;) {
    links.push(at);
    at = at instanceof Error ? at.cause : undefined;
  }
  return links;
}

/**
 * What the causes of an error add to it, from near to far. Nothing that has been said: neither the same text, nor the
 * long form of a system error whose code the text names (`… (ECONNREFUSED)`).
 */
export function causeTexts(error: unknown): string[] {
  const said = [errorText(error)];
  for (const cause of errorChain(error).slice(1)) {
    const text = errorText(cause);
    const code = systemErrorCode(cause);
    const isSaid = said.some((before) => before.includes(text) || before.includes(`(${code ?? text})`));
    if (!isSaid) said.push(text);
  }
  return said.slice(1);
}

/** The `code` of a Node.js system error (`ECONNREFUSED`, `ENOENT` …), if it has one. */
export function systemErrorCode(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}
