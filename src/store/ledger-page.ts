import type { Stamp } from './age.js';
import type { Progress } from './command-progress.js';
import { kinds } from './kinds.js';
import type { Operation, PutOperation, Ref } from './log/record.js';
import type { CommitOptions } from './log/writer.js';

/** Commands that came to the same at the same time. */
export class Page {
  readonly keys: string[] = [];
  /** Of how many it is the last word. */
  commands = 0;

  constructor(
    readonly progress: Progress,
    public state: PageState,
  ) {}

  add(key: string): void {
    this.keys.push(key);
    this.commands++;
  }

  encode(at: Stamp): PutOperation {
    const item: Item = { keys: this.keys, at, progress: this.progress };
    return { put: { kind: kinds.command, value: [Buffer.from(JSON.stringify(item))] } };
  }
}

type PageState =
  /** On its way to the disk. `over` is settled when it is there, or cannot be; `before`: where its commands stood. */
  | { readonly is: 'writing'; readonly over: Promise<unknown>; readonly before: (Page | undefined)[] }
  | { readonly is: 'written'; readonly ref: Ref; readonly at: Stamp };

/** A page as an item of the log (JSON). */
interface Item {
  readonly keys: readonly string[];
  readonly at: Stamp;
  readonly progress: Progress;
}

/** As it was written before there were pages. */
interface ItemOfOne extends Omit<Item, 'keys'> {
  readonly key: string;
}

export function decode(value: Buffer): Item {
  const item = JSON.parse(value.toString()) as Item | ItemOfOne;
  return 'key' in item ? { keys: [item.key], at: item.at, progress: item.progress } : item;
}

/** Changes that share a record, and what goes into it besides. */
export class Batch {
  readonly pages: Page[] = [];
  size = 0;
  /** Resolves when it is on disk, to what was put alongside. */
  readonly done: Promise<readonly Ref[]>;
  #resolve: (refs: readonly Ref[]) => void = () => undefined;
  #reject: (error: unknown) => void = () => undefined;

  constructor(
    readonly alongside: readonly Operation[] = [],
    readonly options: CommitOptions = { essential: true },
  ) {
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Nobody waits for what goes along with others.
    this.done.catch(() => undefined);
  }

  /** Returns the page on which the command is from now on. */
  add(key: string, before: Page | undefined, progress: Progress): Page {
    const page = this.#pageWith(progress) ?? this.#newPage(progress);
    page.add(key);
    if (page.state.is === 'writing') page.state.before.push(before);
    this.size++;
    return page;
  }

  #pageWith(progress: Progress): Page | undefined {
    for (const page of this.pages) if (page.progress === progress) return page;
    return undefined;
  }

  #newPage(progress: Progress): Page {
    const page = new Page(progress, { is: 'writing', over: this.done, before: [] });
    this.pages.push(page);
    return page;
  }

  stored(refs: readonly Ref[]): void {
    this.#resolve(refs);
  }

  failed(error: unknown): void {
    this.#reject(error);
  }
}
