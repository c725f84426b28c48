import { spawn, type ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';

import { openStore } from '../../src/store/store.js';

/** What processes that worked with a store were promised, whatever became of them. */
export class Promises {
  readonly stored = new Set<string>();
  readonly #maybeRemoved = new Set<string>();
  readonly #removed = new Set<string>();
  readonly #started = new Set<string>();
  readonly #decided = new Set<string>();
  readonly failures: string[] = [];

  hear(line: string): void {
    const [what = '', id = '', ...more] = line.split(' ');
    const heard = {
      stored: this.stored,
      removing: this.#maybeRemoved,
      removed: this.#removed,
      started: this.#started,
      decided: this.#decided,
    }[what];
    heard?.add(id);
    if (what === 'failed') this.failures.push([id, ...more].join(' '));
  }

  get count(): number {
    return this.stored.size + this.#removed.size + this.#decided.size;
  }

  /** Opens the store and returns what is not as promised: nothing, if all is well. */
  async broken(directory: string): Promise<string[]> {
    await using store = await openStore({ directory, ledger: { replyMessage: () => undefined } });
    const found = new Set<string>();
    for await (const { messageId, encoded } of store.spool.waiting()) {
      found.add(messageId);
      if (!encoded.equals(Buffer.alloc(encoded.length, messageId)))
        return [`${messageId} is not what it was`];
    }
    const states = new Map([...store.ledger.entries()].map((entry) => [entry.key, entry.state]));
    const isGone = (id: string): boolean => !found.has(id) && !this.#maybeRemoved.has(id);
    return [
      ...[...this.stored].filter(isGone).map((id) => `${id} was stored and is lost`),
      ...[...this.#removed].filter((id) => found.has(id)).map((id) => `${id} was removed and is back`),
      ...[...this.#started]
        .filter((key) => !states.has(key))
        .map((key) => `${key} was started and is forgotten`),
      ...[...this.#decided]
        .filter((key) => states.get(key) !== 'decided' || isGone(`reply-${key}`))
        .map((key) => `${key} was decided, and its outcome or reply is lost`),
    ];
  }
}

export interface WriterOptions {
  readonly directory: string;
  readonly prefix: string;
  readonly count?: number;
  readonly segmentBytes?: number;
  readonly promises: Promises;
  /** Command line to start it under, e.g. strace. */
  readonly under?: readonly string[];
}

/** `store-writer.js` as a process. */
export class WriterProcess implements AsyncDisposable {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #exited: Promise<unknown>;
  #wake: () => void = () => undefined;
  /** Of the writer itself, whatever it was started under. */
  pid: number | undefined;
  #isDone = false;
  #hasEnded = false;

  constructor({ directory, prefix, count, segmentBytes, promises, under = [] }: WriterOptions) {
    const program = join(import.meta.dirname, '../fixtures/store-writer.js');
    const options = [count ?? 'Infinity', ...(segmentBytes === undefined ? [] : [segmentBytes])].map(String);
    const [file = '', ...args] = [...under, process.execPath, program, directory, prefix, ...options];
    this.#child = spawn(file, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#exited = once(this.#child, 'exit').then(() => {
      this.#hasEnded = true;
      this.#wake();
    });
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      promises.hear(line);
      if (line.startsWith('open ')) this.pid = Number(line.slice(5));
      if (line === 'done') this.#isDone = true;
      this.#wake();
    });
  }

  /** Waits until it has said so much that `condition` holds; fails when it ends before. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      if (this.#hasEnded) throw new Error('the writer has ended');
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Waits until all it was to do is done. */
  done(): Promise<void> {
    return this.until(() => this.#isDone);
  }

  /** Ends it in order. */
  async end(): Promise<void> {
    this.#child.stdin.end();
    await this.#exited;
  }

  /** `kill -9`; resolves when all it has said is heard. */
  async kill(): Promise<void> {
    const closed = this.#hasEnded ? undefined : once(this.#child, 'close');
    if (this.pid !== undefined && !this.#hasEnded) process.kill(this.pid, 'SIGKILL');
    else this.#child.kill('SIGKILL');
    await closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#hasEnded) await this.kill();
  }
}
