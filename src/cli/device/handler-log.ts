import { plainText } from '../../handlers/output.js';
import type { Log, LogFields } from '../../log.js';
import type { Io } from '../io.js';

/** What the module says goes to standard error in lines that an agent, and the journal, read with their levels. */
export function lineLog(io: Io, bound: LogFields = {}): Log {
  const at =
    (priority: number) =>
    (message: string, fields: LogFields = {}) => {
      const facts = Object.entries({ ...bound, ...fields })
        .filter(([, value]) => value !== undefined)
        .map(([name, value]) => `${name}=${textOf(value)}`);
      void io.stderr.write(`<${priority}>${plainText([message, ...facts].join(' '), 2_000)}\n`);
    };
  return {
    error: at(3),
    warn: at(4),
    info: at(6),
    debug: () => undefined,
    trace: () => undefined,
    // The agent's own lines carry the handler's name and the message.
    child: () => lineLog(io, bound),
  };
}

function textOf(value: unknown): string {
  if (value instanceof Error) return value.message;
  return typeof value === 'string' ? value : JSON.stringify(value);
}
