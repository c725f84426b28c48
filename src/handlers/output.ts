import type { Readable } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';

import type { Log } from '../log.js';
import { keptOutputBytes, type Answer } from './handler.js';

/**
 * What a program prints. Everything is read, for a pipe that nobody reads would hang it; little is kept, for it may
 * print without end, without a newline, and without sense.
 */

/** Keeps the first 64 KiB of a stream. */
export class KeptOutput {
  readonly #chunks: Buffer[] = [];
  #kept = 0;
  #discarded = 0;

  constructor(stream: Readable, onOverflow: () => void) {
    stream.on('data', (chunk: Buffer) => {
      const room = keptOutputBytes - this.#kept;
      if (chunk.length <= room) {
        this.#chunks.push(chunk);
        this.#kept += chunk.length;
        return;
      }
      // Copied, so that a large chunk is not held for the sake of its first bytes.
      if (room > 0) this.#chunks.push(Buffer.from(chunk.subarray(0, room)));
      this.#kept += room;
      if (this.#discarded === 0) onOverflow();
      this.#discarded += chunk.length - room;
    });
  }

  /** What it printed, if it printed anything, and how much that was if not all of it is here. */
  reply(): Pick<Answer, 'reply' | 'replyBytes'> {
    if (this.#kept === 0) return {};
    const replyBytes = this.#discarded === 0 ? undefined : this.#kept + this.#discarded;
    return { reply: Buffer.concat(this.#chunks), replyBytes };
  }
}

/** A longer line is cut: it is for a person to read. */
const longestLine = 2_000;
const longestReason = 256;
/** Of one run, into the log. */
const mostLines = 1_000;

/**
 * Hands the first lines of a stream on (64 KiB, 1 000 lines), and remembers the last one that says something, however
 * much comes.
 */
export class LineOutput {
  readonly #decoder = new StringDecoder('utf8');
  readonly #onLine: (line: string) => void;
  readonly #onOverflow: () => void;
  #partial = '';
  /** Of a line that was too long: its rest, up to the newline, is skipped. */
  #skipping = false;
  #lastLine = '';
  #bytes = 0;
  #lines = 0;
  #overflowed = false;
  /** After the first 64 KiB: the end of what came, undecoded. */
  #tail = Buffer.alloc(0);

  constructor(stream: Readable, onLine: (line: string) => void, onOverflow: () => void) {
    this.#onLine = onLine;
    this.#onOverflow = onOverflow;
    stream.on('data', (chunk: Buffer) => {
      this.#take(chunk);
    });
  }

  /** The last line that is not empty, as the reason of a refusal. To be asked for when nothing more comes. */
  lastLine(): string | undefined {
    if (this.#bytes <= keptOutputBytes) this.#endLine();
    const tail = this.#tail.toString('utf8').split('\n').map(withoutLevel).filter(hasText).at(-1);
    const line = tail ?? this.#lastLine;
    return line === '' ? undefined : plainText(line, longestReason);
  }

  #take(chunk: Buffer): void {
    const before = this.#bytes;
    this.#bytes += chunk.length;
    const room = Math.max(0, keptOutputBytes - before);
    if (room > 0) this.#split(this.#decoder.write(chunk.subarray(0, room)));
    if (chunk.length <= room) return;
    this.#endLine();
    this.#overflow();
    const rest = chunk.subarray(room);
    const joined = rest.length >= longestLine ? rest : Buffer.concat([this.#tail, rest]);
    this.#tail = Buffer.from(joined.subarray(-longestLine));
  }

  #split(text: string): void {
    const lines = text.split('\n');
    for (const [index, part] of lines.entries()) {
      if (index > 0) this.#endLine();
      if (this.#skipping) continue;
      this.#partial += part;
      if (this.#partial.length <= longestLine) continue;
      this.#endLine();
      this.#skipping = true;
    }
  }

  #endLine(): void {
    const line = this.#partial;
    this.#partial = '';
    this.#skipping = false;
    if (!hasText(line)) return;
    this.#lastLine = withoutLevel(line);
    this.#lines += 1;
    if (this.#lines <= mostLines) this.#onLine(line);
    else this.#overflow();
  }

  #overflow(): void {
    if (this.#overflowed) return;
    this.#overflowed = true;
    this.#onOverflow();
  }
}

type LineLevel = 'error' | 'warn' | 'info' | 'debug';

const syslogLevels: LineLevel[] = ['error', 'error', 'error', 'error', 'warn', 'info', 'info', 'debug'];
const telegrafLevels: Record<string, LineLevel> = { E: 'error', W: 'warn', I: 'info', D: 'debug' };
/** `<3>` as systemd reads it (sd-daemon(3)), `E! ` as telegraf does. */
const levelPrefix = /^\s*(?:<([0-7])>|([EWID])! ?)/;

/** Writes one line of a program's standard error to the log, at the level that its prefix names. */
export function logLine(log: Log, line: string): void {
  const match = levelPrefix.exec(line);
  const level = match?.[1] === undefined ? telegrafLevels[match?.[2] ?? ''] : syslogLevels[Number(match[1])];
  log[level ?? 'info'](plainText(withoutLevel(line), longestLine));
}

/** Text that a log, a terminal and an AMQP description can take: no control or bidi characters, not too long. */
export function plainText(text: string, longest: number): string {
  const plain = text
    .toWellFormed()
    .replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]+/g, ' ')
    .trim();
  if (plain.length <= longest) return plain;
  // A pair of surrogates that the cut would part goes altogether.
  return `${plain.slice(0, longest - 1).replace(/[\ud800-\udbff]$/, '')}…`;
}

function withoutLevel(line: string): string {
  return line.replace(levelPrefix, '');
}

function hasText(line: string): boolean {
  return plainText(line, longestLine) !== '';
}
