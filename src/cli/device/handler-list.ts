import type { AgentConfig } from '../../daemon/config.js';
import type { HandlerConfig } from '../../daemon/config-handlers.js';
import { overshadowed, placeHandlers } from '../../daemon/handlers.js';
import type { Match } from '../../handlers/route.js';
import type { Log } from '../../log.js';
import { formatDuration } from '../../units.js';
import { visible } from '../../visible.js';
import { exitCodeFor, exitCodes } from '../exit-codes.js';
import { jsonOnOneLine } from '../json-text.js';
import { columns, type Printable, type Printer } from '../output.js';

/** A line for each handler, in the order in which they are tried. Returns the exit code. */
export async function listHandlers(config: AgentConfig, log: Log, printer: Printer): Promise<number> {
  const placed = await placeHandlers(config, { log });
  for (const { config: handler, refused } of placed) {
    await printer.print(handlerLine(handler, refused));
  }
  for (const { file, by } of overshadowed(config)) {
    log.warn('this file is passed over, for another has its name', { file, taken: by });
  }
  for (const { handler } of placed) await handler[Symbol.asyncDispose]();
  return placed.some(({ refused }) => refused !== undefined) ? exitCodeFor('config') : exitCodes.ok;
}

function handlerLine(handler: HandlerConfig, refused: string | undefined): Printable {
  const { name, on, form, match, timeoutMs, inbox } = handler;
  const settle = inbox === undefined ? 'after' : 'inbox';
  const what = form === 'module' ? { module: handler.file } : { exec: handler.exec };
  return {
    json: () =>
      jsonOnOneLine(JSON.stringify({ name, on, form, ...what, match, timeoutMs, settle, inbox, refused })),
    text: ({ columns: limit }) =>
      columns(
        [
          visible(name),
          on,
          form,
          formatDuration(timeoutMs),
          refused === undefined ? visible(matchText(match)) : `REFUSED: ${visible(refused)}`,
        ],
        [20, 7, 7, 4],
        limit,
      ),
  };
}

/** `property.command=restart body./service=web|db`; `any` when there is no condition. */
function matchText(match: Match): string {
  const conditions = Object.entries(match as Record<string, unknown>).flatMap(([key, value]) => {
    if (value === undefined) return [];
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      return [`${key}=${textOf(value)}`];
    return Object.entries(value).map(([name, wanted]) => `${key}.${name}=${textOf(wanted)}`);
  });
  return conditions.join(' ') || 'any';
}

function textOf(wanted: unknown): string {
  return Array.isArray(wanted) ? wanted.join('|') : String(wanted);
}
