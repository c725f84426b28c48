import { createRequire } from 'node:module';
import type pinoModule from 'pino';
import type { Writable } from 'node:stream';

import { AgentError, causeTexts, errorText } from '../errors.js';
import type { Log, LogFields, LogLevel } from '../log.js';
import { formatRecord, type LogLook, type LogRecord } from './log-format.js';
import { Repeats } from './log-repeats.js';

export interface LogOptions {
  level: LogLevel;
  look: LogLook;
  /** Standard error of the process. */
  stream: Writable;
}

export interface OpenLog extends Log {
  /** From now on, for this log and all its children. */
  setLevel(level: LogLevel): void;
  /** Resolves when every line has left the process, or the reader has not taken them for a second. */
  flush(): Promise<void>;
}

/**
 * A log over a stream that may not be read. pino makes the records: fields of any shape as JSON. What it writes goes
 * through `formatRecord` into a queue with an end.
 *
 * A reader that stops reading must not stop the agent, so nothing here waits: Node writes to pipes and sockets
 * without blocking, to a terminal when it is told to, and when `longestQueueBytes` are waiting, further lines are
 * dropped and counted. The count is the first thing the reader sees when it is back. pino's own destinations and its
 * worker are not used: with a blocked reader they hang or outlive SIGTERM.
 *
 * Of lines that repeat themselves only so many are printed (`Repeats`).
 */
export function createLog({ level: firstLevel, look, stream }: LogOptions): OpenLog {
  const sink = new Sink(stream, look);
  let level = firstLevel;
  let records: Records | undefined;
  const print = (at: LogLevel, message: string, fields: LogFields) => {
    // Loaded with the first line: most runs of a one-shot command have nothing to say.
    records ??= openRecords(sink);
    records[at](plainFields(fields, ranks[level] >= ranks.debug), message);
  };
  const repeats = new Repeats((at, message, heldBack, seconds) => {
    print(at, message, { heldBack, seconds });
  });
  const logWith = (bound: LogFields): Log => {
    const say = (at: LogLevel) => (message: string, fields?: LogFields) => {
      if (ranks[at] > ranks[level] || !repeats.admits(at, message)) return;
      print(at, message, { ...bound, ...fields });
    };
    return {
      error: say('error'),
      warn: say('warn'),
      info: say('info'),
      debug: say('debug'),
      trace: say('trace'),
      get isTracing() {
        return level === 'trace';
      },
      child: (fields) => logWith({ ...bound, ...fields }),
    };
  };
  return Object.assign(logWith({}), {
    setLevel(wanted: LogLevel) {
      level = wanted;
    },
    flush: () => sink.flush(),
  });
}

type Records = Record<LogLevel, (fields: object, message: string) => void>;

const ranks: Record<LogLevel, number> = { error: 0, warn: 1, info: 2, debug: 3, trace: 4 };

function openRecords(sink: Sink): Records {
  // CommonJS, so that it can be loaded within a call that is not asynchronous.
  const pino = createRequire(import.meta.url)('pino') as typeof pinoModule;
  return pino(
    // `nestedKey` keeps a field called "msg" or "level" from taking the place of the real one.
    { level: 'trace', base: null, formatters: { level: (name) => ({ level: name }) }, nestedKey: 'fields' },
    {
      write: (line) => {
        sink.write(JSON.parse(line) as Partial<LogRecord>);
      },
    },
  );
}

/** Errors as text, because JSON has nothing to say about them. */
function plainFields(fields: LogFields, withStack: boolean): LogFields {
  const plain: LogFields = {};
  for (const [name, value] of Object.entries(fields)) {
    if (!(value instanceof Error)) {
      plain[name] = value;
      continue;
    }
    plain[name] = [errorText(value), ...causeTexts(value)].join(': ');
    if (value instanceof AgentError && value.hint !== undefined) plain['hint'] = value.hint;
    if (withStack) plain['stack'] = value.stack;
  }
  return plain;
}

/**
 * `tty.WriteStream` makes the terminal block, so that one which is stopped with ^S would stop the process with its
 * next line. There is no public way to undo that.
 */
function letNotBlock(stream: Writable): void {
  const { _handle: handle } = stream as { _handle?: { setBlocking?: (isBlocking: boolean) => void } };
  handle?.setBlocking?.(false);
}

/** Enough for a few thousand lines, little enough for a small gateway. */
const longestQueueBytes = 512 * 1024;
const flushMs = 1000;

class Sink {
  readonly #stream: Writable;
  readonly #look: LogLook;
  #dropped = 0;
  #broken = false;

  constructor(stream: Writable, look: LogLook) {
    this.#stream = stream;
    this.#look = look;
    letNotBlock(stream);
    stream.on('drain', () => {
      this.#sayDropped();
    });
    // Nobody is left to tell.
    stream.on('error', () => {
      this.#broken = true;
    });
  }

  write({ time = 0, level = 'info', msg = '', fields = {} }: Partial<LogRecord>): void {
    if (this.#broken) return;
    if (this.#stream.writableLength > longestQueueBytes) {
      this.#dropped++;
      return;
    }
    this.#sayDropped();
    this.#stream.write(formatRecord({ time, level, msg, fields }, this.#look));
  }

  async flush(): Promise<void> {
    if (this.#broken || this.#stream.writableLength === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, flushMs);
      const done = (): void => {
        clearTimeout(timer);
        this.#stream.off('error', done);
        resolve();
      };
      this.#stream.once('error', done);
      // The callback of an empty write comes after everything before it.
      this.#stream.write('', done);
    });
  }

  #sayDropped(): void {
    if (this.#dropped === 0) return;
    const dropped = this.#dropped;
    this.#dropped = 0;
    this.write({
      time: Date.now(),
      level: 'warn',
      msg: 'log lines were dropped because nobody read them',
      fields: { dropped },
    });
  }
}
