import { fromCondition } from '../amqp/errors.js';
import { AgentError, type ErrorCode } from '../errors.js';
import type { DeviceId, SendOutcome } from '../model.js';
import { visible } from '../visible.js';
import { exitCodeFor, exitCodes } from './exit-codes.js';
import { jsonOnOneLine } from './json-text.js';
import { columns, type Printable } from './output.js';

/** It is on disk, and will be sent. */
export interface Queued {
  outcome: 'queued';
}

/** What became of one thing that was to be sent. */
export type Sent = {
  line?: number | undefined;
  messageId?: string | undefined;
  /** Of a command: for whom it is. */
  to?: DeviceId | undefined;
} & (
  | { result: SendOutcome | Queued; ms: number }
  /** It was never sent: the line could not be read, say, or the connection ended before. */
  | { error: AgentError }
);

/**
 * One line for what became of a message:
 *
 *     {"line":2,"messageId":"m2","outcome":"rejected","ms":41,"condition":"amqp:…","error":"…","retryable":false}
 *
 * `outcome` is `accepted`, `queued`, `rejected`, `released`, `modified`, or `failed` when the message was not sent. The other
 * keys are there when they apply.
 */
export function sentLine(sent: Sent): Printable {
  const error = sentError(sent);
  const outcome = 'result' in sent ? sent.result.outcome : 'failed';
  const ms = 'result' in sent ? Math.round(sent.ms) : undefined;
  const { line, messageId, to } = sent;
  return {
    json: () =>
      jsonOnOneLine(
        JSON.stringify({
          line,
          messageId,
          ...to,
          outcome,
          ms,
          condition: error?.condition,
          error: error?.message,
          hint: error?.hint,
          retryable: error && isRetryable(error.code),
        }),
      ),
    text: (look) => {
      const which = [
        line === undefined ? '' : `line ${String(line)}`,
        to?.deviceId ?? '',
        messageId ?? '',
      ].filter((part) => part !== '');
      const why = error ? [error.message, error.hint].filter((part) => part !== undefined).join('; ') : '';
      const took = ms === undefined ? '' : `${String(ms)} ms`;
      return columns([outcome, visible(which.join(' ')), took, visible(why)], [8, 26, 6], look.columns);
    },
  };
}

/** Why a message was not accepted or queued; undefined when it was. */
export function sentError(sent: Sent): AgentError | undefined {
  if (!('result' in sent)) return sent.error;
  const { result } = sent;
  switch (result.outcome) {
    case 'accepted':
    case 'queued':
      return undefined;
    case 'rejected':
      return result.condition === undefined
        ? new AgentError('data', 'the hub rejected the message and gave no reason')
        : fromCondition(result);
    case 'released':
    case 'modified':
      return new AgentError('try-again', 'the hub gave the message back');
  }
}

/** The exit code of a command that sent several messages. */
export class ExitTally {
  #code: ErrorCode | undefined;

  /**
   * Counts one message in. The first failure decides, but one that will fail again outranks one that may not: who
   * sees 75 may send everything again, who sees 65 has to look.
   */
  add(sent: Sent): void {
    const code = sentError(sent)?.code;
    if (code === undefined) return;
    if (this.#code === undefined || (isRetryable(this.#code) && !isRetryable(code))) this.#code = code;
  }

  get exitCode(): number {
    return this.#code === undefined ? exitCodes.ok : exitCodeFor(this.#code);
  }
}

function isRetryable(code: ErrorCode): boolean {
  return code === 'try-again' || code === 'unavailable' || code === 'host-unknown';
}
