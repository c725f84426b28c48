import { fromCondition } from '../amqp/errors.js';
import type { AgentError, ErrorCode } from '../errors.js';

/**
 * What became of one message that was handed to the agent, as a line of JSON on the control socket:
 *
 *     {"line":2,"messageId":"m2","outcome":"queued","ms":4}
 *
 * `queued`: it is on disk, synced, and will be sent; with an `error` when more was waited for in vain.
 * `accepted`, `rejected`: so says the hub; what it rejects is a dead letter. `failed`: it is not kept.
 */
export interface TelemetryAnswer {
  /** In a stream, from 1. */
  line?: number | undefined;
  messageId?: string | undefined;
  outcome: 'queued' | 'accepted' | 'rejected' | 'failed';
  ms?: number | undefined;
  /** As the hub named it. */
  condition?: string | undefined;
  description?: string | undefined;
  error?: string | undefined;
  code?: ErrorCode | undefined;
  hint?: string | undefined;
  retryable?: boolean | undefined;
}

/** Why a message was not kept, or not answered for. */
export function failedAnswer(error: AgentError): TelemetryAnswer {
  return { outcome: 'failed', ...errorFields(error) };
}

/** An error as JSON: its text, its kind, and what helps. */
export function errorFields({ message, code, condition, hint }: AgentError) {
  return { error: message, code, condition, hint, retryable: isRetryable(code) };
}

/** The hub will never take it. */
export function rejectedAnswer(condition: string | undefined, description: string | undefined) {
  const error = fromCondition({ condition: condition ?? 'rejected', description });
  return { outcome: 'rejected', description, ...errorFields(error), retryable: false } as const;
}

function isRetryable(code: ErrorCode): boolean {
  return code === 'try-again' || code === 'unavailable' || code === 'io';
}
