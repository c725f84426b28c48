import { runAgent } from '../../src/agent/run.js';
import { systemClock } from '../../src/clock.js';
import type { HubSession, HubSessionOptions } from '../../src/amqp/session.js';
import type { Emulator } from '../../src/emulator/emulator.js';
import type { MethodHandler, TwinHandler } from '../../src/handlers/contract.js';
import { createDispatcher } from '../../src/handlers/dispatch.js';
import type { Handler } from '../../src/handlers/handler.js';
import { moduleHandler } from '../../src/handlers/module.js';
import type { Match } from '../../src/handlers/route.js';
import { silentLog, type Log } from '../../src/log.js';
import { openSession } from '../amqp/hub.js';

export function methodHandler(
  handle: MethodHandler['handle'],
  rules: { name?: string; match?: Match; timeoutMs?: number } = {},
): Handler {
  return moduleHandler({ on: 'method', handle }, { name: 'method', ...rules });
}

export function twinHandler(
  handle: TwinHandler['handle'],
  rules: { name?: string; match?: Match; timeoutMs?: number } = {},
): Handler {
  return moduleHandler({ on: 'twin', handle }, { name: 'twin', ...rules });
}

export interface Life {
  stopping: AbortSignal;
  dispatcher: ReturnType<typeof createDispatcher>;
  log: Log;
}

/** An agent whose work is `serve`, with the dispatcher for these handlers. It stops at the end of the scope. */
export function startServing(
  hub: Emulator,
  handlers: readonly Handler[],
  serve: (life: Life) => (session: HubSession) => Promise<void>,
  { log = silentLog, ...session }: Partial<HubSessionOptions> = {},
) {
  const stop = new AbortController();
  const abandon = new AbortController();
  const dispatcher = createDispatcher({ handlers, log, drainTimeoutMs: 2_000 });
  const work = serve({ stopping: stop.signal, dispatcher, log });
  const running = runAgent({
    open: (signal) => openSession(hub, { signal, log, ...session }),
    work,
    stopping: stop.signal,
    abandon: abandon.signal,
    clock: systemClock,
    log,
  });
  running.catch(() => undefined);
  const stopAll = async () => {
    stop.abort(new Error('stop'));
    await Promise.all([running, dispatcher.drain()]);
  };
  return {
    dispatcher,
    running,
    stop: stopAll,
    async [Symbol.asyncDispose]() {
      stop.abort(new Error('stop'));
      abandon.abort(new Error('now'));
      await running.catch(() => undefined);
      await dispatcher[Symbol.asyncDispose]();
    },
  };
}

/** Something that happens once, and that can be waited for. */
export function occasion(): { happened: Promise<void>; happens: () => void } {
  let happens: () => void = () => undefined;
  const happened = new Promise<void>((resolve) => {
    happens = resolve;
  });
  return { happened, happens };
}
