import { AgentError } from '../errors.js';
import type { Handler } from '../handlers/handler.js';

/** Ends a reload that brings a handler which cannot work; those that were made for it are closed. */
export async function refuseHandlers(
  handlers: readonly Handler[],
  refused: readonly { name: string; reason: string }[],
): Promise<void> {
  if (refused.length === 0) return;
  for (const handler of handlers) await handler[Symbol.asyncDispose]();
  const [first] = refused;
  throw new AgentError('config', `a handler is refused: ${first?.name ?? ''}`, {
    hint: refused.map(({ name, reason }) => `${name}: ${reason}`).join('\n'),
  });
}
