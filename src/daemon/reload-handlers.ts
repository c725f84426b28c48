import { AgentError } from '../errors.js';
import type { Answer, Handler } from '../handlers/handler.js';

/** Handlers that can be let go of while they run. */
export interface Retirable {
  readonly handlers: readonly Handler[];
  /** Begins no more runs, and closes each handler when its last one has ended. */
  retire(): void;
}

/**
 * Handlers as they are, with a count of what runs. A command that has waited for its turn meanwhile is given back, to
 * be delivered again and handled by the ones that came after.
 */
export function retirable(handlers: readonly Handler[]): Retirable {
  let isRetired = false;
  const closers: (() => void)[] = [];
  const counted = handlers.map((handler): Handler => {
    let running = 0;
    const closeIfIdle = () => {
      // Whatever it says on its way out, nobody needs it any more.
      if (isRetired && running === 0) handler[Symbol.asyncDispose]().then(undefined, () => undefined);
    };
    closers.push(closeIfIdle);
    return {
      ...handler,
      async run(event, run) {
        if (isRetired) return replaced;
        running++;
        try {
          return await handler.run(event, run);
        } finally {
          running--;
          closeIfIdle();
        }
      },
      [Symbol.asyncDispose]: () => handler[Symbol.asyncDispose](),
    };
  });
  return {
    handlers: counted,
    retire() {
      isRetired = true;
      for (const close of closers) close();
    },
  };
}

const replaced: Answer = {
  outcome: 'release',
  status: 503,
  reason: 'the configuration was read again meanwhile',
  decidedBy: 'stopping',
};

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
