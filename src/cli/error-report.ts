import { AgentError, causeTexts, errorChain, errorText } from '../errors.js';
import { redact } from '../secret.js';
import { visible } from '../visible.js';

/**
 * An error as people read it: what happened, why, what to do. No secret survives in it.
 *
 *     error: the hub refused the device key (amqp:unauthorized-access)
 *       the key may be rotated, or the clock wrong
 */
export function errorReport(error: unknown, { stack }: { stack: boolean }): string {
  const lines = error instanceof AgentError ? expected(error) : unexpected(error, stack);
  if (stack) lines.push(...stackOf(error));
  // A peer chooses parts of these texts, so nothing in them may break the line or drive the terminal.
  return redact(`error: ${lines.map(visible).join('\n  ')}\n`);
}

function expected(error: AgentError): string[] {
  const { condition, message } = error;
  const what = condition === undefined || message.includes(condition) ? message : `${message} (${condition})`;
  return [what, ...causeTexts(error), ...(error.hint?.split('\n') ?? [])];
}

function unexpected(error: unknown, stack: boolean): string[] {
  const what = `this is a bug: ${errorText(error) || 'an error without a text'}`;
  const todo = stack
    ? 'please report it with all of this'
    : 'please report it with what the same command prints with -v';
  return [what, ...causeTexts(error), todo];
}

function stackOf(error: unknown): string[] {
  return errorChain(error).flatMap((link) =>
    link instanceof Error ? (link.stack ?? '').split('\n').map((line) => line.trim()) : [],
  );
}
