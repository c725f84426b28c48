import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import type { HubEvent } from '../../src/amqp/event-message.js';
import { systemClock, type Clock } from '../../src/clock.js';
import { Checkpoint, type HeldPartition } from '../../src/service/checkpoint.js';
import { openMonitor, type Monitor, type MonitorOptions } from '../../src/service/monitor.js';
import { device, failure, never, startHub } from '../amqp/hub.js';
import { devices, eventsOf, sendAs, signalled, take } from './kit.js';

async function folder() {
  const path = await mkdtemp(join(tmpdir(), 'checkpoint-'));
  return {
    file: join(path, 'seen.json'),
    [Symbol.asyncDispose]: () => rm(path, { recursive: true }),
  };
}

const ids = (events: readonly HubEvent[]): (string | undefined)[] => events.map(({ messageId }) => messageId);
const at = (offset: number): HeldPartition => ({
  position: { at: 'offset', offset: String(offset), sequenceNumber: offset },
  release: false,
});

function checkpointOf(file: string, clock: Clock = systemClock): Checkpoint {
  const partitions = ['0', '1', '2', '3'];
  return new Checkpoint({ file, eventHub: 'h/e', group: 'g', partitions, leaseMs: 10_000, clock });
}

test('what was dealt with is not read again, and what was not is', async () => {
  await using place = await folder();
  await using hub = await startHub();
  await sendAs(hub, device, ['a', 'b', 'c', 'd']);
  const options: MonitorOptions = {
    eventHub: eventsOf(hub),
    from: { at: 'start' },
    checkpoint: { file: place.file },
  };
  {
    await using events = openMonitor(options, never);
    expect(ids(await take(events, 2))).toEqual(['a', 'b']);
    // Handed out, and not said to be done.
    expect((await events.next()).value?.messageId).toBe('c');
  }
  await using events = openMonitor({ ...options, from: 'now' }, never);
  expect(ids(await take(events, 2))).toEqual(['c', 'd']);
});

test('where "now" was is saved before anything is read', async () => {
  await using place = await folder();
  await using hub = await startHub();
  await sendAs(hub, device, ['old']);
  const options: MonitorOptions = { eventHub: eventsOf(hub), checkpoint: { file: place.file } };
  const online = signalled();
  await openMonitor({ ...options, onOnline: online.raise }, never).return();
  {
    await using _events = openMonitor({ ...options, onOnline: online.raise }, never);
    await online.promise;
  }
  await sendAs(hub, device, ['new']);
  await using again = openMonitor(options, never);
  expect(ids(await take(again, 1))).toEqual(['new']);
});

test('two monitors share the partitions; when one leaves the other goes on where it was', async () => {
  await using place = await folder();
  await using hub = await startHub({ devices });
  const options: MonitorOptions = {
    eventHub: eventsOf(hub),
    from: { at: 'start' },
    checkpoint: { file: place.file },
  };
  const seen = new Map<string, number>();
  const follow = (events: Monitor): { partitions: Set<string>; ended: Promise<void> } => {
    const partitions = new Set<string>();
    const ended = (async () => {
      for await (const { messageId = '', partition } of events) {
        partitions.add(partition);
        seen.set(messageId, (seen.get(messageId) ?? 0) + 1);
      }
    })().catch(() => undefined);
    return { partitions, ended };
  };
  let round = 0;
  const sendRound = async () => {
    round++;
    await Promise.all(devices.map((id) => sendAs(hub, id, [`${id}/${String(round)}`])));
  };

  await using first = openMonitor(options, never);
  const one = follow(first);
  await sendRound();
  await expect.poll(() => seen.size, { timeout: 10_000 }).toBe(10);
  expect(one.partitions.size).toBe(4);

  const second = openMonitor(options, never);
  const two = follow(second);
  await expect.poll(() => ownersIn(place.file), { timeout: 15_000 }).toEqual([2, 2]);
  await sendRound();
  await expect.poll(() => seen.size, { timeout: 10_000 }).toBe(20);
  expect(two.partitions.size).toBe(2);

  await second[Symbol.asyncDispose]();
  await two.ended;
  await sendRound();
  await expect.poll(() => seen.size, { timeout: 15_000 }).toBe(30);
  // Nobody was robbed, so nothing came twice.
  expect([...seen.values()].filter((times) => times > 1)).toEqual([]);
});

test('who does not show himself for as long as a lease lasts loses his partitions, and what he saves then is not taken', async () => {
  await using place = await folder();
  const clock = handClock();
  const [asleep, awake] = [checkpointOf(place.file, clock), checkpointOf(place.file, clock)];
  const before = await asleep.beat(new Map());
  expect([...before.owned.keys()]).toEqual(['0', '1', '2', '3']);
  await asleep.beat(new Map([...before.owned.keys()].map((id) => [id, at(5)])));

  expect((await awake.beat(new Map())).owned.size).toBe(0);
  clock.forward(9_000);
  expect((await awake.beat(new Map())).owned.size).toBe(0);
  clock.forward(1_000);
  const { owned } = await awake.beat(new Map());
  expect([...owned.values()]).toEqual(
    Array.from({ length: 4 }, () => ({ epoch: before.owned.get('0')!.epoch + 1, position: at(5).position })),
  );
  await awake.beat(new Map([...owned.keys()].map((id) => [id, at(8)])));
  const after = await asleep.beat(new Map([...before.owned.keys()].map((id) => [id, at(6)])));
  expect(after.owned.size).toBe(0);
  const table = JSON.parse(await readFile(place.file, 'utf8')) as { partitions: Record<string, unknown> };
  expect(table.partitions['0']).toMatchObject({ epoch: 2, position: at(8).position });
});

test('a monitor whose process is gone loses its partitions at once', async () => {
  await using place = await folder();
  const gone = checkpointOf(place.file);
  await gone.beat(new Map());
  // As if another process, which has ended, had written it.
  const text = await readFile(place.file, 'utf8');
  await writeFile(place.file, text.replace(/ \d+ (\d+)"/, ' 1 $1"'));
  const next = checkpointOf(place.file);
  expect((await next.beat(new Map())).owned.size).toBe(4);
});

test('an owner that the event hub sends away does not fight, and reads on when the other has gone', async () => {
  await using place = await folder();
  await using hub = await startHub();
  await sendAs(hub, device, ['a']);
  // It waits for half a minute and more.
  const clock: Clock = {
    ...systemClock,
    sleep: (ms, signal) => systemClock.sleep(Math.min(ms, 1_000), signal),
  };
  const eventHub = { ...eventsOf(hub), clock };
  const from = { at: 'start' } as const;
  await using events = openMonitor({ eventHub, from, checkpoint: { file: place.file } }, never);
  expect(ids(await take(events, 1))).toEqual(['a']);
  // Somebody else's file, with higher epochs in it.
  await using other = await folder();
  const table = JSON.parse(await readFile(place.file, 'utf8')) as { partitions: Record<string, object> };
  const partitions = Object.keys(table.partitions).map((id) => [id, { epoch: 7 }]);
  await writeFile(
    other.file,
    JSON.stringify({ ...table, monitors: {}, partitions: Object.fromEntries(partitions) }),
  );
  const thief = openMonitor({ eventHub: eventsOf(hub), from, checkpoint: { file: other.file } }, never);
  expect(ids(await take(thief, 1))).toEqual(['a']);
  const mine = take(events, 1);
  await sendAs(hub, device, ['b']);
  expect(ids(await take(thief, 1))).toEqual(['b']);
  expect(Object.values(await partitionsIn(place.file))).toMatchObject(partitions.map(() => ({ epoch: 1 })));
  await thief[Symbol.asyncDispose]();
  expect(ids(await mine)).toEqual(['b']);
});

test('a checkpoint that is ahead of the event hub is refused: it would miss what comes', async () => {
  await using place = await folder();
  const checkpoint = { file: place.file };
  const from = { at: 'start' } as const;
  const name = 'same-name';
  {
    await using hub = await startHub({ eventHubName: name });
    await sendAs(hub, device, ['a', 'b', 'c']);
    await using events = openMonitor({ eventHub: eventsOf(hub), from, checkpoint }, never);
    await take(events, 3);
  }
  await using anew = await startHub({ eventHubName: name });
  await sendAs(anew, device, ['d']);
  const refused = openMonitor({ eventHub: eventsOf(anew), from, checkpoint }, never);
  expect(await failure(refused.next())).toMatchObject({
    code: 'config',
    hint: expect.stringMatching(/anew/) as string,
  });
  await refused.return();
});

test('a file of another group, and one that is no checkpoint, are refused by name', async () => {
  await using place = await folder();
  await checkpointOf(place.file).beat(new Map());
  const other = new Checkpoint({
    ...{ file: place.file, eventHub: 'h/e', group: 'x', partitions: ['0'] },
    ...{ leaseMs: 1_000, clock: systemClock },
  });
  expect(await failure(other.beat(new Map()))).toMatchObject({ code: 'config', retry: 'never' });
  for (const text of [
    '',
    'x',
    '{}',
    '{"v":1,"eventHub":"h/e","group":"g","partitions":{"0":{"epoch":"1"}}}',
  ]) {
    await writeFile(place.file, text);
    expect(await failure(checkpointOf(place.file).beat(new Map()))).toMatchObject({ code: 'config' });
  }
});

/** How many partitions each owner has, most first. */
async function ownersIn(file: string): Promise<number[]> {
  const counts = new Map<string, number>();
  for (const { owner = '' } of Object.values(await partitionsIn(file)))
    counts.set(owner, (counts.get(owner) ?? 0) + 1);
  return [...counts.values()].sort((a, b) => b - a);
}

async function partitionsIn(file: string): Promise<Record<string, { owner?: string }>> {
  const { partitions } = JSON.parse(await readFile(file, 'utf8')) as {
    partitions: Record<string, { owner?: string }>;
  };
  return partitions;
}

/** A clock that stands still until it is moved. */
function handClock(): Clock & { forward: (ms: number) => void } {
  let now = 0;
  return {
    now: () => now,
    monotonic: () => now,
    sleep: () => Promise.resolve(),
    forward: (ms) => {
      now += ms;
    },
  };
}
