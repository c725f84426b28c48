import type { AgentConfig } from '../../../daemon/config.js';
import { placeHandlers } from '../../../daemon/handlers.js';
import { AgentError } from '../../../errors.js';
import type { Log } from '../../../log.js';
import type { Finding } from '../../check/checks.js';

/** Whether each handler of the configuration can be started. None is: what it would do with a command is its business. */
export async function checkHandlers(config: AgentConfig, log: Log): Promise<Finding<true>> {
  const placed = await placeHandlers(config, { log });
  for (const { handler } of placed) await handler[Symbol.asyncDispose]();
  const refused = placed.flatMap(({ handler: { name }, refused: why }) =>
    why === undefined ? [] : [`${name}: ${why}`],
  );
  if (refused.length > 0) {
    const what = `${String(refused.length)} of ${String(placed.length)} cannot be run`;
    throw new AgentError('config', what, { hint: refused.join('\n') });
  }
  const names = placed.map(({ handler: { name } }) => name);
  if (names.length === 0) {
    return {
      result: 'ok',
      detail: 'none is configured: every command waits at the hub',
      facts: { handlers: [] },
    };
  }
  return { result: 'ok', detail: `${names.join(', ')} can be run`, facts: { handlers: names } };
}
