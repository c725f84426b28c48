import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';

import { systemClock, type Clock } from '../../src/clock.js';
import { createDispatcher, type Dispatcher, type DispatcherOptions } from '../../src/handlers/dispatch.js';
import type { Answer, Handler, Run } from '../../src/handlers/handler.js';
import { programHandler } from '../../src/handlers/program.js';
import { silentLog } from '../../src/log.js';
import { openStore, type Store, type StoreOptions } from '../../src/store/store.js';
import { command, recordingLog, sh, tempDir } from './kit.js';

const rules = { maximumAttempts: 3, maximumAgeMs: 3_600_000 };

/** A store on disk whose replies can be read. */
async function openInboxStore(directory: string, inbox: StoreOptions['inbox'] = {}): Promise<Store> {
  const store = await openStore({
    directory,
    inbox: { retryDelay: { firstMs: 10, mostMs: 20 }, ...inbox },
    ledger: {
      replyMessage: ({ deviceId, messageId }, outcome, { body }) => {
        const reason = outcome.outcome === 'reject' ? (outcome.reason ?? '') : '';
        const text = `${outcome.outcome} ${messageId ?? ''} ${reason}|${body.toString()}`;
        return { deviceId, messageId: `r-${messageId ?? ''}`, encoded: Buffer.from(text) };
      },
    },
  });
  onTestFinished(() => store.close());
  return store;
}

function dispatcher(store: Store, handlers: Handler[], options: Partial<DispatcherOptions> = {}): Dispatcher {
  const { ledger, inbox } = store;
  const made = createDispatcher({ handlers, ledger, inbox, log: silentLog, lockMs: 0, ...options });
  onTestFinished(() => made[Symbol.asyncDispose]());
  return made;
}

async function replies({ spool }: Store): Promise<string[]> {
  const texts: string[] = [];
  for await (const { encoded } of spool.waiting()) texts.push(encoded.toString());
  return texts;
}

/** A handler of the inbox that answers as it is told, run by run. */
function answering(...answers: Partial<Answer>[]): Handler & { runs: number[] } {
  const runs: number[] = [];
  return {
    name: 'job',
    on: 'command',
    timeoutMs: 1_000,
    replies: 'always',
    afterCrash: 'run',
    inbox: rules,
    runs,
    run: (_event, { attempt }: Run) => {
      runs.push(attempt);
      const answer = answers[runs.length - 1] ?? answers.at(-1);
      return Promise.resolve({ outcome: 'accept', status: 200, decidedBy: 'handler', ...answer });
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

const untilEmpty = (store: Store): Promise<unknown> =>
  vi.waitUntil(() => store.inbox.size.waiting === 0, { timeout: 10_000, interval: 5 });

test('a command with an inbox is accepted at once, run later, and its result goes out as a reply', async () => {
  const store = await openInboxStore(tempDir());
  const file = sh('read -r body; echo "did $body"');
  const d = dispatcher(store, [programHandler({ name: 'job', file, inbox: rules })]);
  const decision = await d.handle(command({ messageId: 'm1', body: Buffer.from('it\n') }));
  expect(decision).toMatchObject({ outcome: 'accept', from: 'inbox', handler: 'job', attempt: 0 });
  await untilEmpty(store);
  expect(await replies(store)).toEqual(['accept m1 |did it\n']);
});

test('a second delivery of a command in the inbox is accepted without a second run', async () => {
  const store = await openInboxStore(tempDir());
  const job = answering({});
  const d = dispatcher(store, [job]);
  const one = command();
  expect((await d.handle(one)).from).toBe('inbox');
  expect((await d.handle(one)).from).toBe('record');
  await untilEmpty(store);
  expect(job.runs).toEqual([1]);
});

test('"later" is tried again until it is given up, and then dead with the last reason', async () => {
  const store = await openInboxStore(tempDir());
  const job = answering({ outcome: 'release', reason: 'busy' });
  const d = dispatcher(store, [job]);
  await d.handle(command({ messageId: 'm1' }));
  await untilEmpty(store);
  expect(job.runs).toEqual([1, 2, 3]);
  const reason = 'given up after 3 attempts: busy';
  expect([...store.inbox.entries()]).toMatchObject([{ state: 'dead', attempts: 3, reason }]);
  expect(await replies(store)).toEqual([`reject m1 ${reason}|`]);
});

test('"no" is final: the command is dead at once', async () => {
  const store = await openInboxStore(tempDir());
  const job = answering({ outcome: 'reject', reason: 'no such service' });
  await dispatcher(store, [job]).handle(command({ messageId: 'm1' }));
  await untilEmpty(store);
  expect(job.runs).toEqual([1]);
  expect([...store.inbox.entries()]).toMatchObject([{ state: 'dead', reason: 'no such service' }]);
});

test('what cannot be started waits as long as it takes', async () => {
  const store = await openInboxStore(tempDir());
  const broken = { outcome: 'release', decidedBy: 'installation', reason: 'no interpreter' } as const;
  const job = answering(broken, broken, broken, broken, broken, {});
  await dispatcher(store, [job]).handle(command());
  await untilEmpty(store);
  expect(job.runs).toEqual([1, 2, 3, 4, 5, 6]);
  expect(store.inbox.size.dead).toBe(0);
});

test('a handler that is gone leaves its commands waiting until there is one of its name', async () => {
  const store = await openInboxStore(tempDir());
  const log = recordingLog();
  await store.ledger.received('k');
  await store.inbox.take('k', command(), 'job');
  const d = dispatcher(store, [], { log });
  await vi.waitUntil(() => log.entries.some(({ level }) => level === 'warn'));
  expect(store.inbox.size.waiting).toBe(1);
  const job = answering({});
  d.replaceHandlers([job]);
  await untilEmpty(store);
  expect(job.runs).toEqual([1]);
});

test('a full inbox gives the command back, and says so', async () => {
  const store = await openInboxStore(tempDir(), { maximumWaiting: 1 });
  const log = recordingLog();
  let end: (() => void) | undefined;
  const hangs: Handler = {
    ...answering({}),
    run: () =>
      new Promise((resolve) => {
        end = () => {
          resolve({ outcome: 'accept', status: 200, decidedBy: 'handler' });
        };
      }),
  };
  const d = dispatcher(store, [hangs], { log });
  expect(await d.handle(command())).toMatchObject({ outcome: 'accept' });
  expect(await d.handle(command())).toMatchObject({
    outcome: 'release',
    from: 'none',
    reason: 'the inbox cannot take it: the inbox is full: 1 commands',
  });
  expect(log.entries.filter(({ level }) => level === 'warn')).toHaveLength(1);
  (await vi.waitUntil(() => end))();
  await untilEmpty(store);
});

test('a command that is too old when its turn comes is given up without a run', async () => {
  const store = await openInboxStore(tempDir());
  const job = answering({});
  const late = command({ messageId: 'm1', enqueuedAt: 1000, expiresAt: 1000 });
  await store.ledger.received('k');
  await store.inbox.take('k', late, 'job');
  // Its age is above nought, by a clock that need not be fine.
  await vi.waitUntil(() => [...store.inbox.entries()].every(({ isExpired }) => isExpired));
  dispatcher(store, [job]);
  await untilEmpty(store);
  expect(job.runs).toEqual([]);
  expect(await replies(store)).toEqual(['reject m1 its time has run out|']);
});

test.each([
  ['run', [2], 'accept m1 |'],
  ['reject', [], 'reject m1 the agent ended while its handler ran; what it did is unknown|'],
] as const)('a run that the agent did not survive is policy: %s', async (afterCrash, runs, reply) => {
  const directory = tempDir();
  const first = await openInboxStore(directory);
  await first.ledger.received('k');
  await first.inbox.take('k', command({ messageId: 'm1' }), 'job');
  await first.inbox.began([...first.inbox.waiting()][0]!.id);
  await first.close();
  const store = await openInboxStore(directory);
  const job = { ...answering({}), afterCrash };
  dispatcher(store, [job]);
  await untilEmpty(store);
  expect(job.runs).toEqual(runs);
  expect(await replies(store)).toEqual([reply]);
});

test('a command that ends the agent again and again is given up', async () => {
  const directory = tempDir();
  const first = await openInboxStore(directory);
  await first.ledger.received('k');
  await first.inbox.take('k', command({ messageId: 'm1' }), 'job');
  await first.close();
  for (let life = 1; life <= 3; life++) {
    const store = await openInboxStore(directory);
    await store.inbox.began([...store.inbox.waiting()][0]!.id);
    await store.close();
  }
  const store = await openInboxStore(directory);
  const job = answering({});
  dispatcher(store, [job]);
  await untilEmpty(store);
  expect(job.runs).toEqual([]);
  expect(await replies(store)).toEqual([
    'reject m1 given up after 3 attempts: the agent ended while its handler ran|',
  ]);
});

test('when the agent stops, what runs is told, and runs again in its next life, or not, as its handler says', async () => {
  for (const [afterCrash, left] of [
    ['run', [{ state: 'waiting', failures: 0, dueInMs: 0 }]],
    [
      'reject',
      [{ state: 'dead', reason: 'the agent stopped while its handler ran; what it did is unknown' }],
    ],
  ] as const) {
    const store = await openInboxStore(tempDir());
    const cwd = tempDir();
    const file = sh('echo run >> runs; sleep 60');
    const d = dispatcher(store, [programHandler({ name: 'job', file, cwd, inbox: rules, afterCrash })]);
    await d.handle(command());
    const runs = () => readFileSync(join(cwd, 'runs'), 'utf8');
    await vi.waitFor(() => {
      expect(runs()).toBe('run\n');
    });
    await d.drain();
    expect([...store.inbox.entries()]).toMatchObject(left);
  }
});

test('commands of one handler run one at a time and in order, while one that is put back waits aside', async () => {
  const store = await openInboxStore(tempDir(), { retryDelay: { firstMs: 50, mostMs: 50 } });
  const log: string[] = [];
  let running = 0;
  const job: Handler = {
    ...answering({}),
    async run(event, { attempt }) {
      expect(++running).toBe(1);
      log.push(event.body.toString());
      await systemClock.sleep(1);
      running--;
      const isLater = event.body.toString() === '2' && attempt === 1;
      return { outcome: isLater ? 'release' : 'accept', status: 200, decidedBy: 'handler' };
    },
  };
  const d = dispatcher(store, [job]);
  const bodies = ['1', '2', '3', '4', '5'];
  await Promise.all(bodies.map((body) => d.handle(command({ body: Buffer.from(body) }))));
  await untilEmpty(store);
  expect(log).toEqual([...bodies, '2']);
});

test('a command with an inbox does not wait behind those that run, nor they behind it', async () => {
  const store = await openInboxStore(tempDir());
  const runs: string[] = [];
  const ends: (() => void)[] = [];
  const hand = (name: string, inbox: Handler['inbox']): Handler => ({
    ...answering({}),
    name,
    inbox,
    match: { property: { to: name } },
    run: () =>
      new Promise((resolve) => {
        runs.push(name);
        ends.push(() => {
          resolve({ outcome: 'accept', status: 200, decidedBy: 'handler' });
        });
      }),
  });
  const d = dispatcher(store, [hand('kept', rules), hand('now', undefined)], { concurrency: 1 });
  const kept = { properties: { to: 'kept' } };
  const decided = [await d.handle(command(kept)), await d.handle(command(kept))];
  expect(decided.map(({ outcome }) => outcome)).toEqual(['accept', 'accept']);
  expect(d.freeSlots).toBe(1);
  const now = d.handle(command({ properties: { to: 'now' } }));
  await vi.waitUntil(() => runs.length === 2);
  for (const end of ends) end();
  await now;
  await vi.waitUntil(() => runs.length === 3);
  ends.at(-1)!();
  await untilEmpty(store);
  expect(runs.toSorted()).toEqual(['kept', 'kept', 'now']);
});

test('a disk that fails stops no command for good', async () => {
  const store = await openInboxStore(tempDir());
  const log = recordingLog();
  const hasty: Clock = { ...systemClock, sleep: (ms, signal) => systemClock.sleep(ms / 1000, signal) };
  const job = answering({});
  let failures = 2;
  const { inbox } = store;
  const failing: NonNullable<DispatcherOptions['inbox']> = {
    take: (...args) => inbox.take(...args),
    waiting: () => inbox.waiting(),
    began: (id) => (failures-- > 0 ? Promise.reject(new Error('EIO')) : inbox.began(id)),
    postponed: (...args) => inbox.postponed(...args),
    finished: (...args) => inbox.finished(...args),
    onArrival: (listener) => inbox.onArrival(listener),
  };
  const d = dispatcher(store, [job], { inbox: failing, clock: hasty, log });
  await d.handle(command());
  await untilEmpty(store);
  expect(log.entries.filter(({ level }) => level === 'error')).toHaveLength(2);
  expect(job.runs).toEqual([1]);
});
