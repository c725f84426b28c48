/** One line of input, without its end; `tooLong` when it is longer than the limit and its text was dropped. */
export interface Line {
  /** From 1. */
  number: number;
  bytes: Buffer;
  tooLong: boolean;
}

/**
 * Lines of a stream, read only as fast as they are taken. At most `limitBytes` of a line are ever held: a stream
 * that has no line breaks must not fill the memory. One that is too long is told as soon as that is known.
 */
export async function* readLines(chunks: AsyncIterable<Buffer>, limitBytes: number): AsyncGenerator<Line> {
  for await (const lines of readLinesTogether(chunks, limitBytes)) yield* lines;
}

/** The same, those together that arrived together: all of them are to be taken before what comes next. */
export async function* readLinesTogether(
  chunks: AsyncIterable<Buffer>,
  limitBytes: number,
): AsyncGenerator<Iterable<Line>> {
  let number = 1;
  let open = new OpenLine(limitBytes);
  const linesOf = function* (chunk: Buffer): Generator<Line> {
    let start = 0;
    for (let end = chunk.indexOf(lineFeed); end !== -1; end = chunk.indexOf(lineFeed, start)) {
      open.add(chunk.subarray(start, end));
      start = end + 1;
      if (!open.isTold) yield open.close(number);
      number++;
      open = new OpenLine(limitBytes);
    }
    open.add(chunk.subarray(start));
    if (open.isTooLong && !open.isTold) yield open.close(number);
  };
  for await (const chunk of chunks) yield linesOf(chunk);
  if (!open.isEmpty && !open.isTold) yield [open.close(number)];
}

/** A line whose end has not been seen. */
class OpenLine {
  #parts: Buffer[] = [];
  #length = 0;
  isTold = false;

  constructor(readonly limitBytes: number) {}

  get isEmpty(): boolean {
    return this.#length === 0;
  }

  get isTooLong(): boolean {
    return this.#length > this.limitBytes;
  }

  add(part: Buffer): void {
    if (part.length === 0) return;
    this.#length += part.length;
    if (this.isTooLong) this.#parts = [];
    else this.#parts.push(part);
  }

  close(number: number): Line {
    this.isTold = true;
    return { number, bytes: withoutReturn(this.#parts), tooLong: this.isTooLong };
  }
}

const lineFeed = 0x0a;
const carriageReturn = 0x0d;

/** Files from Windows end their lines with both. */
function withoutReturn(parts: Buffer[]): Buffer {
  const [only] = parts;
  const line = parts.length === 1 && only ? only : Buffer.concat(parts);
  return line.at(-1) === carriageReturn ? line.subarray(0, -1) : line;
}
