import { fstatSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';
import type { WriteStream } from 'node:tty';

import { AgentError, systemErrorCode } from '../errors.js';
import { exitCodes } from './exit-codes.js';

/** What a command gets instead of `process`, so that it can run in a test as it runs in a shell. */
export interface Io {
  readonly stdin: Readable;
  /** Data, and nothing else. */
  readonly stdout: Output;
  /** What people read: errors, warnings, progress. */
  readonly stderr: Output;
  readonly env: Record<string, string | undefined>;
  /** Set it when the outcome is not an error that is thrown: a rejected message, say. */
  exitCode: number;
  /** What `-q`, `-v`, `-vv` asked for: -1, 0, 1, 2. Set before a command's action runs. */
  verbosity: number;
  /**
   * Aborted by the first SIGINT or SIGTERM, with an `Interrupted` as its reason: finish what is in flight. A command
   * that never reads this property, or `now`, is ended by the signal itself.
   */
  readonly stop: AbortSignal;
  /** Aborted by the second one: end at once. The process ends a moment later in any case. */
  readonly now: AbortSignal;
  /** Calls `listener` for every such signal, until it is disposed of; who never asks is ended by it, as usual. */
  onSignal(signal: 'SIGHUP' | 'SIGUSR2', listener: () => void): Disposable;
}

/** A stream that is written with back-pressure and whose reader may leave. */
export interface Output {
  /** The stream itself, for a writer that must not wait: the log. */
  readonly stream: Writable;
  readonly isTTY: boolean;
  /** Whether it goes to the systemd journal. */
  readonly isJournal: boolean;
  /** Width of the terminal; undefined when it is not one. */
  readonly columns: number | undefined;
  /** Whether it is a terminal that shows colours and may (`NO_COLOR` is obeyed). */
  readonly hasColors: boolean;
  /** Resolves when there is room for more. Does nothing once the reader is gone; an `io` error when a disk is full. */
  write(data: string | Buffer): Promise<void>;
  /**
   * Aborted when the reader has closed its end, as `| head -1` does: nobody wants more, which is no error. Stop
   * reading, finish what is in flight, exit 0.
   */
  readonly readerGone: AbortSignal;
  /** Resolves when all that was written has left the process; throws an `io` error when it could not be written. */
  flush(): Promise<void>;
}

/** The reason of `io.stop`. Thrown through a command, it ends the process with 128 + the number of the signal. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
  readonly exitCode: number;

  constructor(readonly signal: 'SIGINT' | 'SIGTERM') {
    super(`stopped by ${signal}`);
    this.exitCode = signal === 'SIGINT' ? 130 : 143;
  }
}

/** How long an ending process may take to get rid of what it has printed. */
export const lastWordsMs = 500;

/**
 * The real thing. Standard streams are touched when first asked for: each costs a millisecond or two of start-up.
 * `onNow` is called after `now` was aborted. Disposed of when all that was printed has left, or nobody reads it.
 */
export function processIo(onNow: (reason: Interrupted) => void): Io & AsyncDisposable {
  const stdin = once((): Readable => process.stdin);
  const stdout = once(() => createOutput(process.stdout));
  const stderr = once(() => createOutput(process.stderr, isJournal(process.stderr.fd)));
  const signals = once(() => catchSignals(onNow));
  return {
    get stdin() {
      return stdin.get();
    },
    get stdout() {
      return stdout.get();
    },
    get stderr() {
      return stderr.get();
    },
    get stop() {
      return signals.get().stop;
    },
    get now() {
      return signals.get().now;
    },
    env: process.env,
    exitCode: exitCodes.ok,
    verbosity: 0,
    onSignal(signal, listener) {
      process.on(signal, listener);
      return {
        [Symbol.dispose]: () => {
          process.off(signal, listener);
        },
      };
    },
    async [Symbol.asyncDispose]() {
      // Asking for one here would open it.
      const flushed = [stdout, stderr].filter(({ made }) => made()).map((output) => output.get().flush());
      const late = new Promise((resolve) => setTimeout(resolve, lastWordsMs));
      await Promise.race([Promise.allSettled(flushed), late]);
    },
  };
}

/** Wraps a stream that may lose its reader. */
export function createOutput(
  stream: Writable & Partial<Pick<WriteStream, 'isTTY' | 'columns' | 'hasColors'>>,
  journal = false,
): Output {
  const gone = new AbortController();
  let failure: AgentError | undefined;
  const waiting = new Set<() => void>();
  const wakeAll = (): void => {
    for (const wake of waiting) wake();
    waiting.clear();
  };
  const room = (): Promise<void> => new Promise((resolve) => waiting.add(resolve));
  const throwFailure = (): void => {
    if (failure) throw failure;
  };

  stream.on('drain', wakeAll);
  stream.on('error', (error) => {
    if (!readerLeft.has(systemErrorCode(error) ?? '')) {
      failure ??= new AgentError('io', `writing failed: ${error.message}`, { cause: error });
    }
    gone.abort();
    wakeAll();
  });
  stream.on('close', () => {
    gone.abort();
    wakeAll();
  });

  return {
    stream,
    isTTY: stream.isTTY === true,
    isJournal: journal,
    hasColors: stream.hasColors?.() === true,
    get columns() {
      return stream.columns;
    },
    readerGone: gone.signal,
    async write(data) {
      throwFailure();
      if (gone.signal.aborted || stream.write(data)) return;
      await room();
      throwFailure();
    },
    async flush() {
      if (!gone.signal.aborted) {
        // The callback of an empty write comes after everything before it.
        const written = new Promise<void>((resolve) => {
          stream.write('', () => {
            resolve();
          });
        });
        await Promise.race([written, room()]);
      }
      throwFailure();
    },
  };
}

/** EPIPE: `| head`. ECONNRESET: the same through a socket. EIO: the terminal was closed. */
const readerLeft = new Set([
  'EPIPE',
  'ECONNRESET',
  'EIO',
  'ERR_STREAM_DESTROYED',
  'ERR_STREAM_WRITE_AFTER_END',
]);

/** systemd.exec(5), `$JOURNAL_STREAM`: device and inode of the stream to the journal, as `8:1234`. */
function isJournal(fd: number): boolean {
  const named = process.env['JOURNAL_STREAM'];
  if (named === undefined) return false;
  const { dev, ino } = fstatSync(fd);
  return named === `${String(dev)}:${String(ino)}`;
}

function catchSignals(onNow: (reason: Interrupted) => void): { stop: AbortSignal; now: AbortSignal } {
  const stop = new AbortController();
  const now = new AbortController();
  const listener = (signal: NodeJS.Signals): void => {
    const reason = new Interrupted(signal === 'SIGINT' ? 'SIGINT' : 'SIGTERM');
    if (!stop.signal.aborted) {
      stop.abort(reason);
      return;
    }
    now.abort(reason);
    onNow(reason);
  };
  process.on('SIGINT', listener);
  process.on('SIGTERM', listener);
  return { stop: stop.signal, now: now.signal };
}

function once<T>(make: () => T): { get: () => T; made: () => boolean } {
  let value: { of: T } | undefined;
  return { get: () => (value ??= { of: make() }).of, made: () => value !== undefined };
}
