import { getEventListeners } from 'node:events';
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test, vi } from 'vitest';

import { systemClock, type Clock } from '../../src/clock.js';
import { createDispatcher, type Dispatcher, type DispatcherOptions } from '../../src/handlers/dispatch.js';
import type { Answer, Handler, Run } from '../../src/handlers/handler.js';
import { memoryLedger, type CommandLedger } from '../../src/handlers/ledger.js';
import { programHandler } from '../../src/handlers/program.js';
import type { Match } from '../../src/handlers/route.js';
import { silentLog } from '../../src/log.js';
import { command, recordingLog, sh, tempDir } from './kit.js';

function dispatcher(handlers: Handler[], options: Partial<DispatcherOptions> = {}): Dispatcher {
  const made = createDispatcher({ handlers, log: silentLog, lockMs: 0, ...options });
  onTestFinished(() => made[Symbol.asyncDispose]());
  return made;
}

const accepted: Answer = { outcome: 'accept', status: 200, decidedBy: 'handler' };

/** A handler whose runs the test ends by hand. */
class HandHandler implements Handler {
  readonly on = 'command';
  readonly timeoutMs = 45_000;
  readonly afterCrash: 'run' | 'reject';
  readonly runs: { body: string; attempt: number; end: (answer?: Answer) => void }[] = [];
  running = 0;
  most = 0;

  constructor(
    readonly name: string,
    readonly match: Match = {},
    afterCrash: 'run' | 'reject' = 'run',
  ) {
    this.afterCrash = afterCrash;
  }

  run(event: { body: Buffer }, { attempt, stopping }: Run): Promise<Answer> {
    this.most = Math.max(this.most, ++this.running);
    return new Promise((resolve) => {
      const end = (answer = accepted): void => {
        this.running--;
        resolve(answer);
      };
      this.runs.push({ body: event.body.toString(), attempt, end });
      stopping.addEventListener('abort', () => {
        end({ outcome: 'release', status: 503, decidedBy: 'stopping' });
      });
    });
  }

  async nextRun(count: number): Promise<HandHandler['runs'][number]> {
    await vi.waitUntil(() => this.runs.length >= count);
    return this.runs[count - 1]!;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}

const answering = (answer: Answer, name = 'h'): Handler => ({
  name,
  on: 'command',
  timeoutMs: 1_000,
  afterCrash: 'run',
  run: () => Promise.resolve(answer),
  [Symbol.asyncDispose]: () => Promise.resolve(),
});

const settle = async (): Promise<void> => {
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
};

describe('the outcome', () => {
  test('is the handler program’s, and says who decided and how long it took', async () => {
    const d = dispatcher([programHandler({ name: 'greet', file: sh('echo no thanks >&2; exit 65') })]);
    const decision = await d.handle(command({ messageId: 'm1' }));
    expect(decision).toMatchObject({
      outcome: 'reject',
      reason: 'no thanks',
      handler: 'greet',
      attempt: 1,
      from: 'handler',
    });
    expect(decision.elapsedMs).toBeGreaterThan(0);
  });

  test('is reject when no handler takes the command, or release where so configured', async () => {
    const handlers = [new HandHandler('h', { property: { command: 'restart' } })];
    expect(await dispatcher(handlers).handle(command())).toMatchObject({
      outcome: 'reject',
      reason: 'no handler',
      from: 'none',
      attempt: 0,
    });
    expect(await dispatcher(handlers, { unmatched: 'release' }).handle(command())).toMatchObject({
      outcome: 'release',
      reason: 'no handler',
    });
  });

  test('is the first matching handler’s', async () => {
    const first = { ...answering(accepted, 'first'), match: { property: { command: 'restart' } } };
    const second = answering({ outcome: 'reject', status: 400, decidedBy: 'handler' }, 'second');
    const d = dispatcher([first, second]);
    expect(await d.handle(command({ properties: { command: 'restart' } }))).toMatchObject({
      handler: 'first',
    });
    expect(await d.handle(command({ properties: { command: 'stop' } }))).toMatchObject({ handler: 'second' });
  });

  test('never is an exception, not even of a handler that breaks its promise not to reject', async () => {
    const log = recordingLog();
    const handler = { ...answering(accepted), run: () => Promise.reject(new Error('unexpected')) };
    expect(await dispatcher([handler], { log }).handle(command())).toMatchObject({
      outcome: 'release',
      reason: 'unexpected',
    });
    expect(log.entries.map(({ level }) => level)).toContain('error');
  });
});

describe('a command that its handler fails on', () => {
  test('is later twice and rejected the third time', async () => {
    const d = dispatcher([programHandler({ name: 'h', file: sh('kill -SEGV $$') })]);
    const poison = command();
    expect(await d.handle(poison)).toMatchObject({
      outcome: 'release',
      reason: 'killed by SIGSEGV',
      attempt: 1,
    });
    expect(await d.handle(poison)).toMatchObject({ outcome: 'release', attempt: 2 });
    expect(await d.handle(poison)).toMatchObject({
      outcome: 'reject',
      reason: 'failed 3 times: killed by SIGSEGV',
      attempt: 3,
    });
  });

  test('is later as often as its handler says so itself, or while it cannot be started', async () => {
    const busy = dispatcher([answering({ outcome: 'release', status: 503, decidedBy: 'handler' })]);
    const broken = dispatcher([programHandler({ name: 'h', file: '/no/such/file' })]);
    const one = command();
    for (let attempt = 1; attempt <= 5; attempt++) {
      expect(await busy.handle(one)).toMatchObject({ outcome: 'release', attempt });
      expect(await broken.handle(one)).toMatchObject({ outcome: 'release', attempt });
    }
  });

  test('makes the handler degraded until it works, and is logged once', async () => {
    const log = recordingLog();
    const file = join(tempDir(), 'later');
    const d = dispatcher([programHandler({ name: 'h', file })], { log });
    await d.handle(command());
    await d.handle(command());
    expect(d.health().get('h')).toMatchObject({
      state: 'degraded',
      reason: expect.stringContaining('is missing'),
    });
    expect(log.entries.filter(({ level }) => level === 'error')).toHaveLength(1);
    writeFileSync(file, '#!/bin/sh\n', { mode: 0o755 });
    expect(await d.handle(command())).toMatchObject({ outcome: 'accept' });
    expect(d.health().get('h')).toEqual({ state: 'ok' });
  });
});

describe('order and concurrency', () => {
  const byRoute = (name: string): HandHandler => new HandHandler(name, { property: { route: name } });
  const to = (route: string, body = ''): ReturnType<typeof command> =>
    command({ properties: { route }, body: Buffer.from(body) });

  test('handlers run beside one another, each one command at a time and in order', async () => {
    const [a, b] = [byRoute('a'), byRoute('b')];
    const d = dispatcher([a, b]);
    const decisions = [to('a', '1'), to('a', '2'), to('b', '3'), to('a', '4')].map((each) => d.handle(each));
    await b.nextRun(1);
    expect(a.runs.map(({ body }) => body)).toEqual(['1']);
    for (const count of [1, 2, 3]) (await a.nextRun(count)).end();
    b.runs[0]!.end();
    await Promise.all(decisions);
    expect(a.runs.map(({ body }) => body)).toEqual(['1', '2', '4']);
    expect(a.most).toBe(1);
  });

  test('a handler that hangs does not stop the others', async () => {
    const hangs = {
      ...programHandler({ name: 'hangs', file: sh('sleep 60'), timeoutMs: 60_000 }),
      match: { property: { route: 'a' } },
    };
    const works = programHandler({ name: 'works', file: sh('exit 0') });
    const d = dispatcher([hangs, works]);
    void d.handle(to('a'));
    const decisions = await Promise.all(Array.from({ length: 20 }, () => d.handle(to('b'))));
    expect(decisions.every(({ outcome }) => outcome === 'accept')).toBe(true);
  });

  test('four programs run at once with order none, and never five', async () => {
    const cwd = tempDir();
    const text = `echo + >> log; n=0; while [ "$(grep -c + log)" -lt 4 ] && [ $n -lt 500 ]; do n=$((n+1)); sleep 0.01; done; sleep 0.1; echo - >> log`;
    const d = dispatcher([programHandler({ name: 'h', file: sh(text), cwd })], { order: 'none' });
    await Promise.all(Array.from({ length: 8 }, () => d.handle(command())));
    const marks = readFileSync(join(cwd, 'log'), 'utf8').trim().split('\n');
    let running = 0;
    const most = marks.map((mark) => (running += mark === '+' ? 1 : -1));
    expect(Math.max(...most)).toBe(4);
  });

  test('by device and by key one at a time each', async () => {
    const h = new HandHandler('h');
    const byDevice = dispatcher([h], { order: 'device' });
    const first = [command({ deviceId: 'd1' }), command({ deviceId: 'd1' }), command({ deviceId: 'd2' })];
    const decisions = first.map((each) => byDevice.handle(each));
    await h.nextRun(2);
    await settle();
    expect(h.runs).toHaveLength(2);
    h.runs[0]!.end();
    (await h.nextRun(3)).end();
    h.runs[1]!.end();
    await Promise.all(decisions);

    const k = new HandHandler('k');
    const byKey = dispatcher([k], { order: { key: 'site' } });
    const more = ['x', 'x', 'y', undefined, undefined].map((site) =>
      byKey.handle(command({ properties: site === undefined ? {} : { site } })),
    );
    await k.nextRun(4);
    await settle();
    expect(k.runs).toHaveLength(4);
    k.runs[0]!.end();
    await k.nextRun(5);
    for (const { end } of k.runs.slice(1)) end();
    await Promise.all(more);
  });

  test('free slots are what could be taken, and their changes are told', async () => {
    const h = new HandHandler('h');
    const d = dispatcher([h], { concurrency: 2 });
    const told: number[] = [];
    using subscription = d.onFreeSlots((free) => told.push(free));
    expect([d.concurrency, d.freeSlots]).toEqual([2, 2]);
    const both = [d.handle(command()), d.handle(command())];
    expect(d.freeSlots).toBe(0);
    (await h.nextRun(1)).end();
    (await h.nextRun(2)).end();
    await Promise.all(both);
    expect(d.freeSlots).toBe(2);
    expect(told).toEqual([1, 0, 1, 2]);
    subscription[Symbol.dispose]();
    const third = d.handle(command());
    (await h.nextRun(3)).end();
    await third;
    expect(told).toHaveLength(4);
  });
});

test('a hub that sends as many as there are free slots never has more in hand, and each runs once, in order', async () => {
  const cwd = tempDir();
  const file = sh('echo "$IOTHUB_PROP_ROUTE $(cat)" >> ran');
  const routes = ['a', 'b', 'c'];
  const d = dispatcher(
    routes.map((route) => ({
      ...programHandler({ name: route, file, cwd }),
      match: { property: { route } },
    })),
  );
  const queue = Array.from({ length: 50 }, (_, index) =>
    command({ properties: { route: routes[index % 3]! }, body: Buffer.from(String(index)) }),
  );
  let inHand = 0;
  let most = 0;
  let left = queue.length;
  await new Promise<void>((done) => {
    const grant = (): void => {
      while (d.freeSlots > 0 && queue.length > 0) {
        most = Math.max(most, ++inHand);
        void d.handle(queue.shift()!).then(() => {
          inHand--;
          if (--left === 0) done();
        });
      }
    };
    d.onFreeSlots(() => {
      setImmediate(grant);
    });
    grant();
  });
  expect(most).toBe(4);
  const ran = readFileSync(join(cwd, 'ran'), 'utf8').trim().split('\n');
  for (const [offset, route] of routes.entries()) {
    const numbers = ran.filter((line) => line.startsWith(route)).map((line) => Number(line.slice(2)));
    expect(numbers).toEqual(Array.from({ length: numbers.length }, (_, index) => offset + index * 3));
  }
  expect(ran).toHaveLength(50);
});

describe('a second delivery', () => {
  test('of a command that runs shares the run', async () => {
    const h = new HandHandler('h');
    const d = dispatcher([h]);
    const one = command();
    const first = d.handle(one);
    const second = d.handle({ ...one, lockToken: 'another', deliveryCount: 1 });
    expect(d.freeSlots).toBe(3);
    (await h.nextRun(1)).end();
    expect([(await first).outcome, (await second).outcome]).toEqual(['accept', 'accept']);
    expect(h.runs).toHaveLength(1);
  });

  test('of a command that has an outcome gets it from the record', async () => {
    const cwd = tempDir();
    const d = dispatcher([programHandler({ name: 'h', file: sh('echo run >> runs; exit 65'), cwd })]);
    const one = command();
    const first = await d.handle(one);
    d.settled(first);
    expect(await d.handle(one)).toMatchObject({
      outcome: 'reject',
      reason: 'exit 65',
      from: 'record',
      key: first.key,
    });
    expect(readFileSync(join(cwd, 'runs'), 'utf8')).toBe('run\n');
  });

  test('with another body, or another sequence number, is another command', async () => {
    const h = answering(accepted);
    const d = dispatcher([h]);
    const one = command();
    const decisions = [
      await d.handle(one),
      await d.handle({ ...one, body: Buffer.from('other') }),
      await d.handle({ ...one, sequenceNumber: 999_999 }),
    ];
    expect(decisions.map(({ from }) => from)).toEqual(['handler', 'handler', 'handler']);
  });

  test('of a command that cannot be recognised runs again, and this is said once', async () => {
    const log = recordingLog();
    const d = dispatcher([answering(accepted)], { log });
    const nameless = command({ messageId: undefined, sequenceNumber: undefined });
    expect((await d.handle(nameless)).from).toBe('handler');
    expect((await d.handle(nameless)).from).toBe('handler');
    expect(log.entries.filter(({ level }) => level === 'warn')).toHaveLength(1);
  });

  test('after its link was lost gets the outcome of the run that went on', async () => {
    const h = new HandHandler('h');
    const d = dispatcher([h]);
    const one = command();
    const link = new AbortController();
    const first = d.handle(one, { signal: link.signal });
    const run = await h.nextRun(1);
    link.abort();
    expect(await first).toMatchObject({ outcome: 'release', reason: 'the link is gone', from: 'none' });
    const second = d.handle(one);
    run.end();
    expect(await second).toMatchObject({ outcome: 'accept', attempt: 1 });
    expect(h.runs).toHaveLength(1);
  });

  test('is the only one to run when the link was lost before its turn', async () => {
    const h = new HandHandler('h');
    const d = dispatcher([h]);
    const link = new AbortController();
    const [one, two] = [command({ body: Buffer.from('1') }), command({ body: Buffer.from('2') })];
    const first = d.handle(one);
    const lost = d.handle(two, { signal: link.signal });
    link.abort();
    expect((await lost).from).toBe('none');
    (await h.nextRun(1)).end();
    await first;
    await vi.waitUntil(() => d.freeSlots === 4);
    const again = d.handle(two);
    (await h.nextRun(2)).end();
    expect(await again).toMatchObject({ outcome: 'accept', attempt: 1 });
    expect(h.runs.map(({ body }) => body)).toEqual(['1', '2']);
  });
});

describe('the ledger', () => {
  test('is asked and told in order, before and after the run', async () => {
    const calls: string[] = [];
    const memory = memoryLedger();
    const ledger = new Proxy(memory, {
      get: (target, name: keyof typeof memory) => (key: string, more: never) => {
        calls.push(name);
        return target[name](key, more);
      },
    });
    const handler = { ...answering(accepted), run: () => (calls.push('run'), Promise.resolve(accepted)) };
    const d = dispatcher([handler], { ledger });
    d.settled(await d.handle(command()));
    expect(calls).toEqual(['received', 'started', 'run', 'finished', 'settled']);
  });

  test('gets what a handler prints as a reply, if the handler is to reply', async () => {
    for (const reply of [true, false]) {
      let recorded: Buffer | undefined;
      const memory = memoryLedger();
      const ledger: CommandLedger = {
        ...memory,
        finished: (key, result) => {
          recorded = result.reply?.body;
          return memory.finished(key, result);
        },
      };
      const d = dispatcher([programHandler({ name: 'h', file: sh('echo 42'), reply })], { ledger });
      await d.handle(command());
      expect(recorded?.toString()).toBe(reply ? '42\n' : undefined);
    }
  });

  test.each(['received', 'started', 'finished'] as const)(
    'that fails when told of %s sends the command back',
    async (name) => {
      const h = new HandHandler('h');
      const ledger = { ...memoryLedger(), [name]: () => Promise.reject(new Error('disk full')) };
      const d = dispatcher([h], { ledger });
      const decision = d.handle(command());
      if (name === 'finished') (await h.nextRun(1)).end();
      expect(await decision).toMatchObject({ outcome: 'release', reason: 'disk full', from: 'none' });
      expect(h.runs).toHaveLength(name === 'finished' ? 1 : 0);
    },
  );

  test('that knows of a run without an outcome leaves it to the handler’s policy', async () => {
    const unknown = {
      ...memoryLedger(),
      received: () => Promise.resolve({ state: 'unknown', attempts: 1, faults: 0 } as const),
    };
    const again = new HandHandler('again');
    const decision = dispatcher([again], { ledger: unknown }).handle(command());
    const run = await again.nextRun(1);
    expect(run.attempt).toBe(2);
    run.end();
    expect(await decision).toMatchObject({ outcome: 'accept', attempt: 2 });

    const never = new HandHandler('never', {}, 'reject');
    expect(await dispatcher([never], { ledger: unknown }).handle(command())).toMatchObject({
      outcome: 'reject',
    });
    expect(never.runs).toHaveLength(0);
  });
});

describe('many commands that wait for the same write', () => {
  /** Those that begin together, or are decided together, get the same promise, as of the store. */
  const sharing = (written: () => Promise<void>): CommandLedger => {
    const memory = memoryLedger();
    let next: Promise<void> | undefined;
    const shared = (): Promise<void> =>
      (next ??= new Promise(setImmediate).then(() => {
        next = undefined;
        return written();
      }));
    return {
      ...memory,
      started: (key, run) => (void memory.started(key, run), shared()),
      finished: (key, result) => (void memory.finished(key, result), shared()),
    };
  };

  test('all go on when it is done', async () => {
    const d = dispatcher([answering(accepted)], {
      order: 'none',
      concurrency: 10,
      ledger: sharing(() => Promise.resolve()),
    });
    const decisions = await Promise.all(Array.from({ length: 30 }, () => d.handle(command())));
    for (const decision of decisions) expect(decision).toMatchObject({ outcome: 'accept', from: 'handler' });
    expect(d.freeSlots).toBe(10);
  });

  test('all go back to the hub when it fails', async () => {
    const handler = new HandHandler('h');
    const ledger = sharing(() => Promise.reject(new Error('disk full')));
    const d = dispatcher([handler], { order: 'none', concurrency: 10, ledger });
    const decisions = await Promise.all(Array.from({ length: 30 }, () => d.handle(command())));
    for (const decision of decisions) {
      expect(decision).toMatchObject({ outcome: 'release', reason: 'disk full', from: 'none' });
    }
    expect(handler.runs).toEqual([]);
    expect(d.freeSlots).toBe(10);
  });

  test('all are told, though one of them fails on being told', async () => {
    const log = recordingLog();
    const d = dispatcher([answering(accepted)], {
      order: 'none',
      ledger: sharing(() => Promise.resolve()),
      log,
    });
    const told: string[] = [];
    for (const messageId of ['a', 'b', 'c']) {
      d.take(command({ messageId }), ({ outcome }) => {
        if (messageId === 'b') throw new Error('no ears');
        told.push(`${messageId} ${outcome}`);
      });
    }
    await vi.waitUntil(() => d.freeSlots === 4);
    expect(told).toEqual(['a accept', 'c accept']);
    expect(log.entries.filter(({ level }) => level === 'error')).toHaveLength(1);
  });
});

describe('a released command', () => {
  test('is kept back, longer each time and within its lock, without holding a slot', async () => {
    const sleeps: { ms: number; freeSlots: number }[] = [];
    const clock: Clock = {
      ...systemClock,
      monotonic: () => 0,
      sleep: (ms) => {
        sleeps.push({ ms, freeSlots: d.freeSlots });
        return Promise.resolve();
      },
    };
    const busy = answering({ outcome: 'release', status: 503, decidedBy: 'handler' });
    const d = dispatcher([busy], { clock, lockMs: 60_000 });
    const one = command();
    for (let attempt = 1; attempt <= 6; attempt++) await d.handle(one);
    expect(sleeps).toEqual(
      [5_000, 10_000, 20_000, 40_000, 50_000, 50_000].map((ms) => ({ ms, freeSlots: 4 })),
    );
  });

  test('is let go at once when the agent stops', async () => {
    const busy = answering({ outcome: 'release', status: 503, decidedBy: 'handler' });
    const d = dispatcher([busy], { lockMs: 60_000 });
    const decision = d.handle(command());
    await settle();
    await d.drain();
    expect(await decision).toMatchObject({ outcome: 'release' });
  });
});

test('sixty commands in hand of one link are no leak to Node, and leave none behind', async () => {
  const warnings: Error[] = [];
  const onWarning = (warning: Error): void => void warnings.push(warning);
  process.on('warning', onWarning);
  const link = new AbortController();
  const busy = answering({ outcome: 'release', status: 503, decidedBy: 'handler' });
  const d = dispatcher([busy], { lockMs: 60_000, order: 'none' });
  const decisions = Array.from({ length: 60 }, () => d.handle(command(), { signal: link.signal }));
  await settle();
  expect(d.freeSlots).toBe(4);
  link.abort();
  await Promise.all(decisions);
  await settle();
  process.off('warning', onWarning);
  expect(warnings).toEqual([]);
  expect(getEventListeners(link.signal, 'abort')).toEqual([]);
});

describe('draining', () => {
  test('ends what runs, releases what waits, takes nothing more', async () => {
    const cwd = tempDir();
    const text = `trap 'echo stopped >> log; exit 0' TERM; : > ready; sleep 60 & wait`;
    const d = dispatcher([programHandler({ name: 'h', file: sh(text), cwd })]);
    const runs = d.handle(command());
    const waits = d.handle(command());
    await vi.waitUntil(() => existsSync(join(cwd, 'ready')), { timeout: 10_000 });
    await d.drain();
    expect(await runs).toMatchObject({ outcome: 'accept' });
    expect(await waits).toMatchObject({ outcome: 'release', reason: 'the agent is stopping', from: 'none' });
    expect(d.freeSlots).toBe(0);
    expect(await d.handle(command())).toMatchObject({ outcome: 'release', reason: 'the agent is stopping' });
    expect(readFileSync(join(cwd, 'log'), 'utf8')).toBe('stopped\n');
  });

  test('kills a program that does not listen when its time is over, or at once on a signal', async () => {
    for (const impatient of [false, true]) {
      const cwd = tempDir();
      const file = sh('trap "" TERM; : > ready; while :; do sleep 1; done');
      const d = dispatcher([programHandler({ name: 'h', file, cwd })], {
        drainTimeoutMs: impatient ? 60_000 : 200,
      });
      const decision = d.handle(command());
      await vi.waitUntil(() => existsSync(join(cwd, 'ready')), { timeout: 10_000 });
      await d.drain(impatient ? AbortSignal.abort() : undefined);
      expect(await decision).toMatchObject({ outcome: 'release', reason: 'the agent is stopping' });
    }
  });
});

describe('methods and twins', () => {
  test('are answered by their handlers, and by nobody where there is none', async () => {
    const method = programHandler({
      name: 'reboot',
      on: 'method',
      match: { method: 'reboot' },
      file: sh('echo "{\\"m\\":\\"$IOTHUB_METHOD\\"}"; exit 0'),
      exit: { '0': 202 },
    });
    const twin = programHandler({ name: 'interval', on: 'twin', file: sh('test "$(cat)" -gt 5 || exit 65') });
    const d = dispatcher([method, twin]);
    const base = { deviceId: 'dev1', properties: {} };
    const reboot = await d.answer({ event: 'method', method: 'reboot', body: Buffer.from('{}'), ...base });
    expect(reboot).toMatchObject({ status: 202, reply: Buffer.from('{"m":"reboot"}\n') });
    expect(
      await d.answer({ event: 'method', method: 'other', body: Buffer.from('{}'), ...base }),
    ).toBeUndefined();
    const change = { event: 'twin', path: 'interval', version: 3, ...base } as const;
    expect(await d.answer({ ...change, body: Buffer.from('10') })).toMatchObject({ status: 200 });
    expect(await d.answer({ ...change, body: Buffer.from('1') })).toMatchObject({ status: 400 });
  });

  test('are given no more time than their caller waits', async () => {
    const d = dispatcher([programHandler({ name: 'slow', on: 'method', file: sh('sleep 60') })]);
    const event = {
      event: 'method',
      method: 'x',
      deviceId: 'd',
      properties: {},
      body: Buffer.from('{}'),
    } as const;
    expect(await d.answer(event, { timeoutMs: 100 })).toMatchObject({ status: 504 });
  });
});

test('two hundred commands through four programs leave nothing open', async () => {
  const cwd = tempDir();
  appendFileSync(join(cwd, 'count'), '');
  const d = dispatcher([programHandler({ name: 'h', file: sh('echo x >> count'), cwd })], { order: 'none' });
  const decisions = await Promise.all(Array.from({ length: 200 }, () => d.handle(command())));
  expect(decisions.every(({ outcome }) => outcome === 'accept')).toBe(true);
  expect(readFileSync(join(cwd, 'count'), 'utf8').length).toBe(400);
  expect(d.freeSlots).toBe(4);
});
