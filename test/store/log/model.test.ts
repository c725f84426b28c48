import fc from 'fast-check';
import { expect, test } from 'vitest';

import type { DurableLog } from '../../../src/store/log/durable-log.js';
import type { Operation, Ref } from '../../../src/store/log/record.js';
import { FakeDisk, seeded, systemError } from '../fake-disk.js';
import { MemoryLog, openLog } from '../kit.js';

/** What the log should hold: the names of its items in the order of their commits, per kind. */
class Model {
  readonly alive = new Map<string, number>();

  apply(commit: Commit): void {
    for (const [name, kind] of commit.puts) this.alive.set(name, kind);
    for (const name of commit.removes) this.alive.delete(name);
  }

  names(kind: number): string[] {
    return [...this.alive].filter(([, k]) => k === kind).map(([name]) => name);
  }
}

interface Commit {
  readonly puts: readonly [name: string, kind: number][];
  readonly removes: readonly string[];
}

const kinds = [1, 8, 9];
const segmentBytes = 2048;
/** What the runs have met, so that none of it goes untested unnoticed. */
const said = new MemoryLog();

/** The log under test, on a disk that can be cut off. */
class Real {
  readonly refs = new Map<string, Ref>();
  serial = 0;

  private constructor(
    public disk: FakeDisk,
    public log: DurableLog,
    readonly random: () => number,
  ) {}

  static async start(seed: number): Promise<Real> {
    const random = seeded(seed);
    const disk = new FakeDisk(random);
    return new Real(disk, await open(disk), random);
  }

  async commit({ puts, removes }: Commit): Promise<void> {
    const operations: Operation[] = [
      ...puts.map(([name, kind]) => ({ put: { kind, value: [Buffer.from(name)] } })),
      ...removes.map((name) => ({ remove: this.refs.get(name)! })),
    ];
    const refs = await this.log.commit(operations);
    puts.forEach(([name], i) => this.refs.set(name, refs[i]!));
  }

  async names(kind: number): Promise<string[]> {
    const names: string[] = [];
    for await (const { ref, value } of this.log.items(kind)) {
      names.push(value.toString());
      this.refs.set(value.toString(), ref);
    }
    return names;
  }

  async reopen(disk: FakeDisk): Promise<void> {
    await this.log.close().catch(() => undefined);
    this.disk = disk;
    this.log = await open(disk);
  }
}

function open(disk: FakeDisk): Promise<DurableLog> {
  return openLog(disk, { segmentBytes, log: said });
}

async function compare(model: Model, real: Real): Promise<void> {
  for (const kind of kinds) {
    expect(await real.names(kind)).toEqual(model.names(kind));
    expect(real.log.count(kind)).toBe(model.names(kind).length);
    if (real.log.count(kind) === 0) expect(real.log.bytes(kind)).toBe(0);
  }
}

/** A commit of what the numbers ask for: new items, and some that are alive removed. */
function makeCommit(model: Model, real: Real, wish: Wish, taken = new Set<string>()): Commit {
  const puts = wish.puts.map(([kind, size]): [string, number] => {
    const name = `${real.serial++}:`;
    return [name.padEnd(size, 'x'), kinds[kind % kinds.length]!];
  });
  const alive = [...model.alive.keys()].filter((name) => !taken.has(name));
  const removes = [...new Set(wish.removes.map((n) => alive[n % Math.max(1, alive.length)]))].filter(
    (name) => name !== undefined,
  );
  for (const name of removes) taken.add(name);
  return { puts, removes };
}

interface Wish {
  readonly puts: readonly [kind: number, size: number][];
  readonly removes: readonly number[];
}

const wish = fc.record<Wish>({
  puts: fc.array(fc.tuple(fc.nat(2), fc.integer({ min: 1, max: 500 })), { maxLength: 3 }),
  removes: fc.array(fc.nat(10_000), { maxLength: 6 }),
});

class CommitCommand implements fc.AsyncCommand<Model, Real> {
  constructor(readonly wishes: readonly Wish[]) {}
  check = (): boolean => true;
  async run(model: Model, real: Real): Promise<void> {
    const taken = new Set<string>();
    const commits = this.wishes.map((w) => makeCommit(model, real, w, taken));
    await Promise.all(commits.map((commit) => real.commit(commit)));
    for (const commit of commits) model.apply(commit);
  }
  toString = (): string => `commit(${JSON.stringify(this.wishes)})`;
}

class DrainCommand implements fc.AsyncCommand<Model, Real> {
  constructor(readonly share: number) {}
  check = (): boolean => true;
  async run(model: Model, real: Real): Promise<void> {
    const oldest = [...model.alive.keys()];
    const removes = oldest.slice(0, Math.ceil(oldest.length * this.share));
    await real.log.commitEach(removes.map((name) => ({ remove: real.refs.get(name)! })));
    model.apply({ puts: [], removes });
  }
  toString = (): string => `drain(${this.share})`;
}

/** Leaves gaps everywhere, which is what compaction is for. */
class ThinOutCommand implements fc.AsyncCommand<Model, Real> {
  constructor(
    readonly seed: number,
    readonly share: number,
  ) {}
  check = (): boolean => true;
  async run(model: Model, real: Real): Promise<void> {
    const random = seeded(this.seed);
    const removes = [...model.alive.keys()].filter(() => random() < this.share);
    for (let i = 0; i < removes.length; i += 5) {
      await real.log.commit(removes.slice(i, i + 5).map((name) => ({ remove: real.refs.get(name)! })));
    }
    model.apply({ puts: [], removes });
  }
  toString = (): string => `thin out(${this.seed}, ${this.share})`;
}

/** A byte on the disk is wrong: one record at most is lost, and what it had removed may be back. */
class DamageCommand implements fc.AsyncCommand<Model, Real> {
  constructor(
    readonly file: number,
    readonly place: number,
    readonly bit: number,
  ) {}
  check = (): boolean => true;
  async run(model: Model, real: Real): Promise<void> {
    await real.log.close();
    const files = real.disk.paths(/\.(log|sum)$/);
    const path = files[this.file % files.length];
    if (path !== undefined && real.disk.bytesOf(path).length > 0) {
      const bytes = Buffer.from(real.disk.bytesOf(path));
      const at = Math.floor(this.place * bytes.length);
      bytes[at] = bytes[at]! ^ (1 << this.bit);
      real.disk.put(path, bytes);
    }
    await real.reopen(real.disk);
    const found = new Map<string, number>();
    for (const kind of kinds) for (const name of await real.names(kind)) found.set(name, kind);
    const lost = [...model.alive.keys()].filter((name) => !found.has(name));
    const back = [...found.keys()].filter((name) => !model.alive.has(name));
    expect(lost.length).toBeLessThanOrEqual(3);
    for (const name of back) expect(real.refs.has(name)).toBe(true);
    model.alive.clear();
    for (const [name, kind] of found) model.alive.set(name, kind);
    await compare(model, real);
  }
  toString = (): string => `damage(${this.file}, ${this.place}, ${this.bit})`;
}

class CompareCommand implements fc.AsyncCommand<Model, Real> {
  check = (): boolean => true;
  run = compare;
  toString = (): string => 'compare';
}

class RestartCommand implements fc.AsyncCommand<Model, Real> {
  check = (): boolean => true;
  async run(model: Model, real: Real): Promise<void> {
    await real.log.close();
    await real.reopen(real.disk);
    await compare(model, real);
  }
  toString = (): string => 'restart';
}

/** The process or the power goes while commits are under way: each of them is there whole or not at all. */
class CutCommand implements fc.AsyncCommand<Model, Real> {
  constructor(
    readonly how: 'kill' | 'power cut',
    readonly after: number,
    readonly wishes: readonly Wish[],
  ) {}
  check = (): boolean => true;
  async run(model: Model, real: Real): Promise<void> {
    const taken = new Set<string>();
    const commits = this.wishes.map((w) => makeCommit(model, real, w, taken));
    let left = this.after;
    real.disk.fault = () => (left-- <= 0 ? 'power cut' : undefined);
    const results = await Promise.allSettled(commits.map((commit) => real.commit(commit)));
    await real.reopen(this.how === 'kill' ? real.disk.afterKill() : real.disk.afterPowerCut());

    const found = new Set<string>();
    for (const kind of kinds) for (const name of await real.names(kind)) found.add(name);
    commits.forEach((commit, i) => {
      const traces = [
        ...commit.puts.map(([name]) => found.has(name)),
        ...commit.removes.map((name) => !found.has(name)),
      ];
      const isThere = traces.length > 0 && traces.every(Boolean);
      if (results[i]!.status === 'fulfilled' && traces.length > 0) expect(isThere).toBe(true);
      if (!isThere) expect(traces).not.toContain(true);
      if (isThere) model.apply(commit);
    });
    await compare(model, real);
  }
  toString = (): string => `${this.how}(${this.after}, ${JSON.stringify(this.wishes)})`;
}

/** The disk fails once, or is full for a while: what is refused is refused whole, and then it goes on. */
class FaultCommand implements fc.AsyncCommand<Model, Real> {
  constructor(
    readonly code: string,
    readonly after: number,
    readonly times: number,
    readonly wishes: readonly Wish[],
  ) {}
  check = (): boolean => true;
  async run(model: Model, real: Real): Promise<void> {
    const taken = new Set<string>();
    const commits = this.wishes.map((w) => makeCommit(model, real, w, taken));
    let skip = this.after;
    let left = this.times;
    real.disk.fault = () => (skip-- <= 0 && left-- > 0 ? systemError(this.code) : undefined);
    const refused: Commit[] = [];
    for (const commit of commits) {
      try {
        await real.commit(commit);
        model.apply(commit);
      } catch (error) {
        refused.push(commit);
        expect(error).toMatchObject({ name: 'AgentError' });
        await compare(model, real);
      }
    }
    real.disk.fault = () => undefined;
    await compare(model, real);
    if (refused.length > 0) await adopt(model, real, refused);
  }
  toString = (): string => `${this.code}(${this.after}, ${this.times}, ${JSON.stringify(this.wishes)})`;
}

/** What was refused may be found by the next start: it was not acknowledged, but nobody promised that it is gone. */
async function adopt(model: Model, real: Real, commits: readonly Commit[]): Promise<void> {
  await real.log.close().catch(() => undefined);
  await real.reopen(real.disk);
  const found = new Set<string>();
  for (const kind of kinds) for (const name of await real.names(kind)) found.add(name);
  for (const commit of commits) {
    if (commit.puts.some(([name]) => found.has(name) && !model.alive.has(name))) model.apply(commit);
    else if (commit.puts.length === 0 && commit.removes.some((name) => !found.has(name))) model.apply(commit);
  }
  await compare(model, real);
}

const wishes = fc.array(wish, { minLength: 1, maxLength: 8 });
const commands = fc.commands(
  [
    wishes.map((w) => new CommitCommand(w)),
    wishes.map((w) => new CommitCommand(w)),
    wishes.map((w) => new CommitCommand(w)),
    fc.double({ min: 0.1, max: 1, noNaN: true }).map((share) => new DrainCommand(share)),
    fc
      .tuple(fc.nat(), fc.double({ min: 0.3, max: 0.95, noNaN: true }))
      .map(([seed, share]) => new ThinOutCommand(seed, share)),
    fc
      .tuple(fc.nat(1000), fc.double({ min: 0, max: 0.999, noNaN: true }), fc.nat(7))
      .map(([file, place, bit]) => new DamageCommand(file, place, bit)),
    fc.constant(new CompareCommand()),
    fc.constant(new RestartCommand()),
    fc
      .tuple(fc.constantFrom('kill', 'power cut'), fc.nat(30), wishes)
      .map(([how, after, w]) => new CutCommand(how, after, w)),
    fc
      .tuple(fc.constantFrom('EIO', 'ENOSPC', 'EROFS'), fc.nat(20), fc.integer({ min: 1, max: 8 }), wishes)
      .map(([code, after, times, w]) => new FaultCommand(code, after, times, w)),
  ],
  { size: 'max', maxCommands: 80 },
);

const runs = Number(process.env['IOTHUB_MODEL_RUNS'] ?? 100);

test('the log does what a list in memory does, whatever happens to process, power and disk', async () => {
  await fc.assert(
    fc.asyncProperty(fc.nat(), commands, async (seed, list) => {
      await fc.asyncModelRun(async () => ({ model: new Model(), real: await Real.start(seed) }), list);
    }),
    // A failure is made smaller until the time is over; its seed and path are printed.
    { numRuns: runs, interruptAfterTimeLimit: 200 * runs },
  );
  const timesSaid = (start: string): number =>
    said.lines.filter(({ message }) => message.startsWith(start)).length;
  for (const event of ['rewrote segments', 'a write to the store failed', 'damaged bytes']) {
    expect(timesSaid(event), event).toBeGreaterThan(10);
  }
});
