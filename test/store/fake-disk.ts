import { basename, dirname } from 'node:path';

import type { Files, StoreFile } from '../../src/store/log/files.js';

/**
 * A file system in memory that knows what a power cut would leave of it. It can fail at the k-th call, and be cut off
 * there: from then on nothing works, and `afterPowerCut` is what the next start finds.
 */
export class FakeDisk implements Files {
  readonly #random: () => number;
  #names = new Map<string, Inode>();
  #durableNames = new Map<string, Inode>();
  #pendingNames: ((names: Map<string, Inode>) => void)[] = [];
  /** What was asked for, in order. */
  readonly trace: Call[] = [];
  /** Called before each operation that changes something; what it returns is thrown instead. */
  fault: (call: Call, index: number) => Error | 'power cut' | undefined = () => undefined;
  /** The same for what only reads. */
  readFault: (call: Call, index: number) => Error | undefined = () => undefined;
  #isCut = false;
  #changes = 0;
  #reads = 0;

  constructor(random: () => number = Math.random) {
    this.#random = random;
  }

  /** The disk as the next process finds it after `kill -9`: the page cache is still there. */
  afterKill(): FakeDisk {
    return this.#copy(this.#names, (inode) => inode.content);
  }

  /**
   * The disk after a power cut. Of what was not synced, anything may be missing: whole writes, single sectors of
   * them, and the newest changes of names.
   */
  afterPowerCut(): FakeDisk {
    const names = new Map(this.#durableNames);
    const kept = Math.floor(this.#random() * (this.#pendingNames.length + 1));
    for (const change of this.#pendingNames.slice(0, kept)) change(names);
    return this.#copy(names, (inode) => inode.afterPowerCut(this.#random));
  }

  /** Paths of the files whose names fit. */
  paths(pattern: RegExp): string[] {
    return [...this.#names.keys()].filter((path) => pattern.test(basename(path))).sort();
  }

  bytesOf(path: string): Buffer {
    return this.#inode(path).content;
  }

  put(path: string, bytes: Buffer): void {
    const inode = new Inode();
    inode.content = inode.durable = Buffer.from(bytes);
    this.#names.set(path, inode);
    this.#durableNames.set(path, inode);
  }

  makeDirectory(): Promise<void> {
    return Promise.resolve();
  }

  list(directory: string): Promise<string[]> {
    const paths = [...this.#names.keys()].filter((path) => dirname(path) === directory);
    return this.ask({ call: 'list', path: directory }, () => paths.map((path) => basename(path)));
  }

  open(path: string): Promise<StoreFile> {
    return this.ask({ call: 'open', path }, () => new FakeFile(this, path, this.#inode(path)));
  }

  create(path: string): Promise<StoreFile> {
    return this.change({ call: 'create', path }, () => {
      if (this.#names.has(path)) throw systemError('EEXIST', path);
      const inode = new Inode();
      this.#rename((names) => names.set(path, inode));
      return new FakeFile(this, path, inode);
    });
  }

  rename(from: string, to: string): Promise<void> {
    return this.change({ call: 'rename', path: to }, () => {
      const inode = this.#inode(from);
      this.#rename((names) => {
        names.delete(from);
        names.set(to, inode);
      });
    });
  }

  remove(path: string): Promise<void> {
    return this.change({ call: 'remove', path }, () => {
      this.#inode(path);
      this.#rename((names) => names.delete(path));
    });
  }

  syncDirectory(path: string): Promise<void> {
    return this.change({ call: 'syncDirectory', path }, () => {
      this.#durableNames = new Map(this.#names);
      this.#pendingNames = [];
    });
  }

  /** Does `work`, unless the fault says otherwise. A write that meets the power cut may still arrive in part. */
  async change<T>(call: Call, work: () => T): Promise<T> {
    await Promise.resolve();
    if (this.#isCut) throw systemError('EIO', 'power cut');
    const fault = this.fault(call, this.#changes++);
    this.trace.push(call);
    if (fault === 'power cut') {
      this.#isCut = true;
      if (call.call === 'write' || this.#random() < 0.5) work();
      throw systemError('EIO', 'power cut');
    }
    if (fault) throw fault;
    return work();
  }

  /** As `change`, for what changes nothing, and is not in the trace. */
  async ask<T>(call: Call, work: () => T): Promise<T> {
    await Promise.resolve();
    if (this.#isCut) throw systemError('EIO', 'power cut');
    const fault = this.readFault(call, this.#reads++);
    if (fault) throw fault;
    return work();
  }

  #rename(change: (names: Map<string, Inode>) => void): void {
    change(this.#names);
    this.#pendingNames.push(change);
  }

  #inode(path: string): Inode {
    const inode = this.#names.get(path);
    if (!inode) throw systemError('ENOENT', path);
    return inode;
  }

  #copy(names: ReadonlyMap<string, Inode>, contentOf: (inode: Inode) => Buffer): FakeDisk {
    const copy = new FakeDisk(this.#random);
    for (const [path, inode] of names) copy.put(path, contentOf(inode));
    return copy;
  }
}

export interface Call {
  readonly call:
    | 'list'
    | 'open'
    | 'read'
    | 'create'
    | 'write'
    | 'sync'
    | 'truncate'
    | 'rename'
    | 'remove'
    | 'syncDirectory';
  readonly path: string;
}

class Inode {
  content = Buffer.alloc(0);
  durable = Buffer.alloc(0);
  unsynced: Change[] = [];

  afterPowerCut(random: () => number): Buffer {
    let bytes = Buffer.from(this.durable);
    for (const { position, from, size } of this.unsynced) {
      const fate = random();
      if (fate < 0.3) continue;
      if (size !== undefined) bytes = resized(bytes, size);
      if (from === undefined || position === undefined) continue;
      bytes = resized(bytes, Math.max(bytes.length, position + from.length));
      for (let at = 0; at < from.length; at = nextSector(position, at)) {
        if (fate > 0.6 || random() < 0.5) {
          from.copy(bytes, position + at, at, Math.min(from.length, nextSector(position, at)));
        }
      }
    }
    return bytes;
  }
}

interface Change {
  readonly position?: number;
  readonly from?: Buffer;
  readonly size?: number;
}

class FakeFile implements StoreFile {
  constructor(
    private readonly disk: FakeDisk,
    private readonly path: string,
    private readonly inode: Inode,
  ) {}

  read(into: Buffer, position: number): Promise<number> {
    const { content } = this.inode;
    return this.disk.ask({ call: 'read', path: this.path }, () =>
      position < content.length ? content.copy(into, 0, position) : 0,
    );
  }

  write(from: Buffer, position: number): Promise<void> {
    const { inode } = this;
    const bytes = Buffer.from(from);
    return this.disk.change({ call: 'write', path: this.path }, () => {
      inode.content = resized(inode.content, Math.max(inode.content.length, position + bytes.length));
      bytes.copy(inode.content, position);
      inode.unsynced.push({ position, from: bytes });
    });
  }

  sync(): Promise<void> {
    const { inode } = this;
    return this.disk.change({ call: 'sync', path: this.path }, () => {
      inode.durable = Buffer.from(inode.content);
      inode.unsynced = [];
    });
  }

  size(): Promise<number> {
    return Promise.resolve(this.inode.content.length);
  }

  truncate(bytes: number): Promise<void> {
    const { inode } = this;
    return this.disk.change({ call: 'truncate', path: this.path }, () => {
      inode.content = Buffer.from(inode.content.subarray(0, bytes));
      inode.unsynced.push({ size: bytes });
    });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

function nextSector(position: number, at: number): number {
  return (Math.floor((position + at) / 512) + 1) * 512 - position;
}

function resized(bytes: Buffer<ArrayBuffer>, size: number): Buffer<ArrayBuffer> {
  if (bytes.length === size) return bytes;
  const result = Buffer.alloc(size);
  bytes.copy(result);
  return result;
}

export function systemError(code: string, what = ''): Error {
  return Object.assign(new Error(`${code}: ${what}`), { code });
}

/** Random numbers in [0, 1) that a seed decides (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
