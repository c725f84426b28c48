import { execFile } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, rmdirSync, rmSync } from 'node:fs';
import { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { promisify } from 'node:util';

/**
 * Pipes for the output of a program, and the input of one that lives long. Node connects a child by sockets, and a
 * socket cannot be opened by its name: `echo … > /dev/stderr`, which scripts are full of, fails with ENXIO. Node cannot
 * make a pipe, but it can open one that `mkfifo` made; a batch is made at a time, and their names are gone at once.
 */
export interface Pipe<Ours extends Readable | Writable> {
  readonly ours: Ours;
  readonly childEnd: number;
}

/** A pipe to read from a child; undefined where none can be made, and Node's socket has to do. */
export function pipeFromChild(): Promise<Pipe<Readable> | undefined> {
  const { O_RDONLY, O_WRONLY, O_NONBLOCK } = constants;
  return openPipe(
    O_RDONLY | O_NONBLOCK,
    O_WRONLY,
    (fd) => new Socket({ fd, readable: true, writable: false }),
  );
}

/** A pipe to write to a child. */
export function pipeToChild(): Promise<Pipe<Writable> | undefined> {
  const { O_RDONLY, O_WRONLY, O_NONBLOCK } = constants;
  return openPipe(
    O_WRONLY | O_NONBLOCK,
    O_RDONLY,
    (fd) => new Socket({ fd, readable: false, writable: true }),
  );
}

/** Each end is opened by way of /proc with flags of its own: ours does not block, the child's does. */
async function openPipe<Ours extends Readable | Writable>(
  ourFlags: number,
  childFlags: number,
  toStream: (descriptor: number) => Ours,
): Promise<Pipe<Ours> | undefined> {
  const pipe = await nextPipe();
  if (pipe === undefined) return undefined;
  const opened: number[] = [];
  try {
    for (const flags of [childFlags, ourFlags]) opened.push(openSync(`/proc/self/fd/${pipe}`, flags));
    const [childEnd, ourEnd] = opened;
    if (childEnd === undefined || ourEnd === undefined) return undefined;
    return { childEnd, ours: toStream(ourEnd) };
  } catch {
    for (const descriptor of opened) closeSync(descriptor);
    return undefined;
  } finally {
    closeSync(pipe);
  }
}

async function nextPipe(): Promise<number | undefined> {
  try {
    if (stock.length === 0) await (refilling ??= makeFifos().finally(() => (refilling = undefined)));
  } catch {
    return undefined; // no mkfifo, no directory to make them in, no descriptors left
  }
  return stock.pop();
}

/** Descriptors of nameless pipes that nobody uses yet. */
const stock: number[] = [];
const batch = 24;
let refilling: Promise<void> | undefined;

async function makeFifos(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'iothub-pipes-'));
  const names = Array.from({ length: batch }, (_, index) => join(directory, String(index)));
  try {
    await promisify(execFile)('mkfifo', ['-m', '600', ...names]);
    for (const name of names) stock.push(openSync(name, constants.O_RDWR | constants.O_NONBLOCK));
  } finally {
    // One by one: removing recursively takes a descriptor, and their lack may be why we are here.
    for (const name of names) rmSync(name, { force: true });
    rmdirSync(directory);
  }
}
