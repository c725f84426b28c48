import { PassThrough, Readable } from 'node:stream';

import { createOutput, type Io } from '../../src/cli/io.js';

export interface FakeIo extends Io {
  /** Everything that was written so far. */
  readonly out: string;
  readonly err: string;
  stopWith(reason: Error): void;
}

/** An `Io` over streams of this process: what a command prints is text to look at. */
export function fakeIo(
  options: { stdin?: string | Buffer; env?: Record<string, string>; isTTY?: boolean } = {},
): FakeIo {
  const text = { out: '', err: '' };
  const sink = (name: 'out' | 'err'): PassThrough => {
    const stream = Object.assign(new PassThrough(), { isTTY: options.isTTY === true });
    stream.setEncoding('utf8').on('data', (chunk: string) => (text[name] += chunk));
    return stream;
  };
  const stop = new AbortController();
  const now = new AbortController();
  return {
    stdin: Readable.from(options.stdin === undefined ? [] : [Buffer.from(options.stdin)], {
      objectMode: false,
    }),
    stdout: createOutput(sink('out')),
    stderr: createOutput(sink('err')),
    env: { ...options.env },
    exitCode: 0,
    verbosity: 0,
    onSignal: () => ({ [Symbol.dispose]: () => undefined }),
    stop: stop.signal,
    now: now.signal,
    stopWith: (reason) => {
      stop.abort(reason);
    },
    get out() {
      return text.out;
    },
    get err() {
      return text.err;
    },
  };
}
