import type { Clock } from '../clock.js';
import { AgentError } from '../errors.js';
import type { HandlerTelemetry } from '../handlers/contract.js';
import { listHandlers, type FoundHandler } from '../handlers/directory.js';
import { ruledHandler, type Handler, type HandlerRules } from '../handlers/handler.js';
import { loadModule, moduleHandler, moduleProblem } from '../handlers/module.js';
import { startProblem } from '../handlers/process.js';
import { programHandler } from '../handlers/program.js';
import { streamHandler } from '../handlers/stream.js';
import type { Log } from '../log.js';
import type { HandlerConfig, HandlingConfig } from './config-handlers.js';

/** What handlers need of whom they work for. */
export interface HandlerSurroundings {
  log: Log;
  clock?: Clock;
  /** What a module's `send` does; absent: it has none. */
  send?: (message: HandlerTelemetry) => Promise<void>;
  /** The command that runs a module, which is its last argument, as a stream. Absent where none is run. */
  isolated?: readonly [string, ...string[]];
}

/** One place in the order in which handlers are tried. */
export interface PlacedHandler {
  config: HandlerConfig;
  handler: Handler;
  /** Why it cannot be run, as it is now. It takes its events all the same, and gives them back for later. */
  refused: string | undefined;
}

/**
 * The handlers of a configuration, in the order in which they are tried: its `[[handlers]]`, then those that are
 * found in its directories, in the order of their names.
 */
export async function placeHandlers(
  config: Pick<HandlingConfig, 'handlers' | 'handlerDirectories'>,
  surroundings: HandlerSurroundings,
): Promise<PlacedHandler[]> {
  const configured = config.handlers.map((handler) => ({ handler, refused: undefined }));
  const placed: PlacedHandler[] = [];
  for (const { handler, refused } of [...configured, ...foundIn(config.handlerDirectories)]) {
    placed.push(await placeHandler(handler, refused, surroundings));
  }
  return placed;
}

/** A handler that is refused still stands in its place: an event that is for it must not go to the next. */
async function placeHandler(
  config: HandlerConfig,
  refused: string | undefined,
  surroundings: HandlerSurroundings,
): Promise<PlacedHandler> {
  if (refused !== undefined) return { config, handler: refusedHandler(config, refused), refused };
  try {
    const handler = await handlerOf(config, surroundings);
    // A program is looked at again each time it is started, and may be well by then.
    return { config, handler, refused: problemOf(config) };
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    const why = [error.message, error.hint].filter((text) => text !== undefined).join('; ');
    return { config, handler: refusedHandler(config, why), refused: why };
  }
}

/** Files of handler directories that are not looked at because an earlier one has their name. */
export function overshadowed({ handlerDirectories }: Pick<HandlingConfig, 'handlerDirectories'>) {
  return listHandlers(handlerDirectories.paths).passedOver;
}

function problemOf(config: HandlerConfig): string | undefined {
  if (config.form !== 'module') return startProblem(config.exec[0]);
  // Any other has been loaded. To load this one here is what is not wanted.
  return config.isolate ? moduleProblem(config.file) : undefined;
}

async function handlerOf(
  config: HandlerConfig,
  { log, clock, send, isolated = [process.execPath] }: HandlerSurroundings,
): Promise<Handler> {
  switch (config.form) {
    case 'program': {
      const { exec, form: _, ...rules } = config;
      const [file, ...args] = exec;
      return programHandler({ ...rules, file, args, clock });
    }
    case 'stream': {
      const { exec, form: _, ...rules } = config;
      const [file, ...args] = exec;
      return streamHandler({ ...rules, file, args, log, clock });
    }
    case 'module': {
      if (config.isolate) {
        const [file, ...args] = [...isolated, config.file];
        const started = { file, args, checkPermissions: false, exactBodies: true };
        return streamHandler({ ...config, ...started, log, clock });
      }
      const module = await loadModule(config.file);
      if (module.on !== config.on) {
        throw new AgentError('config', `${config.file} handles ${module.on}, not ${config.on}`);
      }
      return moduleHandler(module, { ...config, send, clock });
    }
  }
}

function refusedHandler(config: HandlerRules & Pick<Handler, 'on'>, reason: string): Handler {
  return {
    ...ruledHandler(config, config.on, 'never'),
    run: () => Promise.resolve({ outcome: 'release', status: 501, reason, decidedBy: 'installation' }),
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

function* foundIn({
  paths,
  rules,
}: HandlingConfig['handlerDirectories']): Generator<{ handler: HandlerConfig; refused: string | undefined }> {
  if (paths.length === 0) return;
  for (const found of listHandlers(paths).found) {
    yield { handler: { ...rules[found.on], ...formOf(found) }, refused: found.refused };
  }
}

function formOf({ name, on, match, file, form }: FoundHandler) {
  const place = { name, on, match };
  if (form === 'module') return { ...place, form, file, isolate: false };
  const exec: [string] = [file];
  return { ...place, form, exec, cwd: undefined, exit: {}, onTimeout: 'release' as const };
}
