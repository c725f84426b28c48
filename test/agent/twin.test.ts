import { describe, expect, test } from 'vitest';

import { TwinKeeper, type TwinOptions } from '../../src/agent/twin.js';
import { systemClock } from '../../src/clock.js';
import type { Emulator } from '../../src/emulator/emulator.js';
import { RetryLater, type TwinCall, type TwinResult } from '../../src/handlers/contract.js';
import type { Handler } from '../../src/handlers/handler.js';
import { programHandler } from '../../src/handlers/program.js';
import { device, startHub } from '../amqp/hub.js';
import { recordingLog, sh } from '../handlers/kit.js';
import { fastClock } from './clock.js';
import { occasion, startServing, twinHandler } from './serving.js';

function keep(
  hub: Emulator,
  handlers: readonly Handler[],
  { session, ...options }: Partial<TwinOptions> & { session?: Parameters<typeof startServing>[3] } = {},
) {
  return startServing(
    hub,
    handlers,
    ({ stopping, dispatcher, log }) => {
      const identity = { deviceId: device };
      const keeper = new TwinKeeper(dispatcher, { identity, stopping, clock: systemClock, log, ...options });
      return (opened) => keeper.serve(opened);
    },
    session,
  );
}

const desire = (hub: Emulator, desired: object) => hub.device(device).twin.patch({ desired }, hub.now());
const reported = (hub: Emulator) => hub.device(device).twin.reported.properties;

/** Resolves when what is reported has this under this name. */
const untilReported = (hub: Emulator, name: string, wanted: object) =>
  hub.waitFor(() => {
    const entry = reported(hub)[name] as Record<string, unknown> | undefined;
    return entry !== undefined && Object.entries(wanted).every(([key, value]) => entry[key] === value);
  });

const untilSubscribed = (hub: Emulator, times = 1) =>
  hub.waitFor((record) => record.of('twin').filter(({ operation }) => operation === 'GET').length >= times);

/** A handler that takes everything and remembers it. */
function remembering(act: (change: TwinCall) => TwinResult | undefined = () => undefined) {
  const seen: [string, unknown, number][] = [];
  const handler = twinHandler((change) => {
    seen.push([change.path, change.json(), change.version]);
    return act(change);
  });
  return { seen, handler };
}

test('what is desired already is handed on when it begins, and acknowledged', async () => {
  await using hub = await startHub();
  desire(hub, { interval: 5, name: 'x' });
  const { seen, handler } = remembering();
  await using _agent = keep(hub, [handler]);
  await untilReported(hub, 'name', { ac: 200 });
  expect(seen).toEqual([
    ['interval', 5, 2],
    ['name', 'x', 2],
  ]);
  expect(reported(hub)).toEqual({
    interval: { value: 5, ac: 200, av: 2 },
    name: { value: 'x', ac: 200, av: 2 },
  });
});

test('each change is handed on as it comes, with the whole value of its property', async () => {
  await using hub = await startHub();
  const { seen, handler } = remembering();
  await using _agent = keep(hub, [handler]);
  await untilSubscribed(hub);
  desire(hub, { fan: { speed: 1, mode: 'auto' } });
  await untilReported(hub, 'fan', { av: 2 });
  desire(hub, { fan: { speed: 2 } });
  await untilReported(hub, 'fan', { av: 3 });
  desire(hub, { fan: { mode: null } });
  await untilReported(hub, 'fan', { av: 4 });
  expect(seen).toEqual([
    ['fan', { speed: 1, mode: 'auto' }, 2],
    ['fan', { speed: 2, mode: 'auto' }, 3],
    ['fan', { speed: 2 }, 4],
  ]);
  expect(reported(hub)).toEqual({ fan: { value: { speed: 2 }, ac: 200, av: 4 } });
});

test('a property that is taken back is handed on as null, and its value is gone from the report', async () => {
  await using hub = await startHub();
  desire(hub, { interval: 5 });
  const { seen, handler } = remembering();
  await using _agent = keep(hub, [handler]);
  await untilReported(hub, 'interval', { av: 2 });
  desire(hub, { interval: null });
  await untilReported(hub, 'interval', { av: 3 });
  expect(seen.at(-1)).toEqual(['interval', null, 3]);
  expect(reported(hub)).toEqual({ interval: { ac: 200, av: 3 } });
});

test('what is inside a property goes to who is routed there, and is reported there', async () => {
  await using hub = await startHub();
  const speed: unknown[] = [];
  const rest: unknown[] = [];
  await using _agent = keep(hub, [
    twinHandler((change) => void speed.push([change.path, change.json()]), {
      name: 'speed',
      match: { path: 'fan.speed' },
    }),
    twinHandler((change) => void rest.push([change.path, change.json()]), {
      name: 'fan',
      match: { path: 'fan' },
    }),
  ]);
  await untilSubscribed(hub);
  desire(hub, { fan: { speed: 1 }, other: 1 });
  await hub.waitFor(() => 'fan' in reported(hub));
  desire(hub, { fan: { mode: 'x' } });
  await untilReported(hub, 'fan', { av: 3 });
  expect(speed).toEqual([['fan.speed', 1]]);
  expect(rest).toEqual([['fan', { speed: 1, mode: 'x' }]]);
  expect(reported(hub)).toMatchObject({ fan: { speed: { value: 1, ac: 200, av: 2 } } });
  expect(reported(hub)).not.toHaveProperty('other');
});

describe('what a module does is acknowledged', () => {
  test.each<[string, () => TwinResult | undefined, object]>([
    ['nothing returned', () => undefined, { value: 1, ac: 200, av: 2 }],
    [
      'a status and a description',
      () => ({ status: 202, description: 'on its way' }),
      { value: 1, ac: 202, av: 2, ad: 'on its way' },
    ],
    ['a refusal', () => ({ status: 400, description: 'too small' }), { ac: 400, av: 2, ad: 'too small' }],
    [
      'a report of its own',
      () => ({ status: 200, reported: { p: { value: 10 }, fw: '1.2' } }),
      { value: 10, ac: 200, av: 2 },
    ],
    [
      'an error',
      () => {
        throw new Error('broken');
      },
      { ac: 500, av: 2, ad: 'broken' },
    ],
  ])('%s', async (_title, act, entry) => {
    await using hub = await startHub();
    desire(hub, { p: 1 });
    await using _agent = keep(hub, [twinHandler(act)]);
    await hub.waitFor(() => 'p' in reported(hub));
    expect(reported(hub)['p']).toEqual(entry);
    expect('fw' in reported(hub)).toBe(_title === 'a report of its own');
  });
});

describe('what a program does is acknowledged', () => {
  test.each<[string, string, object]>([
    ['exit 0', 'cat >/dev/null', { value: 1, ac: 200, av: 2 }],
    ['exit 0 with a report', `printf '{"p":{"value":%s0}}' "$(cat)"`, { value: 10, ac: 200, av: 2 }],
    ['exit 0 with text', 'cat >/dev/null; echo done', { value: 1, ac: 200, av: 2 }],
    ['exit 65', 'echo "wrong unit" >&2; exit 65', { ac: 400, av: 2, ad: 'wrong unit' }],
    ['exit 77', 'exit 77', { ac: 403, av: 2, ad: 'exit 77' }],
    ['exit 1', 'exit 1', { ac: 500, av: 2, ad: 'exit 1' }],
    ['exit 75', 'exit 75', { ac: 503, av: 2, ad: 'exit 75' }],
    ['exit 127', 'exit 127', { ac: 501, av: 2, ad: 'exit 127' }],
    ['a signal', 'kill -9 $$', { ac: 500, av: 2, ad: 'killed by SIGKILL' }],
    ['too long', 'sleep 60', { ac: 504, av: 2, ad: 'no end after 0.3 s' }],
  ])('%s', async (_title, body, entry) => {
    await using hub = await startHub();
    desire(hub, { p: 1 });
    const timeoutMs = body.startsWith('sleep') ? 300 : 10_000;
    await using _agent = keep(hub, [programHandler({ name: 'p', on: 'twin', file: sh(body), timeoutMs })]);
    await hub.waitFor(() => 'p' in reported(hub));
    expect(reported(hub)['p']).toEqual(entry);
  });

  test('it has the path and the version in its environment', async () => {
    await using hub = await startHub();
    desire(hub, { interval: 5 });
    const file = sh(`printf '{"saw":"%s %s %s"}' "$IOTHUB_EVENT" "$IOTHUB_TWIN_PATH" "$IOTHUB_TWIN_VERSION"`);
    await using _agent = keep(hub, [programHandler({ name: 'p', on: 'twin', file })]);
    await hub.waitFor(() => 'saw' in reported(hub));
    expect(reported(hub)['saw']).toBe('twin interval 2');
  });
});

describe('a handler that says later', () => {
  test('is asked again until it takes the value, with its attempts counted', async () => {
    await using hub = await startHub();
    desire(hub, { p: 1 });
    const attempts: number[] = [];
    const handler = twinHandler((_, { attempt }) => {
      attempts.push(attempt);
      if (attempt < 4) throw new RetryLater('not yet');
    });
    await using _agent = keep(hub, [handler], { clock: fastClock(50) });
    await untilReported(hub, 'p', { ac: 503, ad: 'not yet' });
    await untilReported(hub, 'p', { ac: 200 });
    expect(attempts).toEqual([1, 2, 3, 4]);
    expect(reported(hub)['p']).toEqual({ value: 1, ac: 200, av: 2 });
  });

  test('is given the newer value instead, at once', async () => {
    await using hub = await startHub();
    desire(hub, { p: 1 });
    const { seen, handler } = remembering((change) => {
      if (change.json() === 1) throw new RetryLater();
      return undefined;
    });
    await using _agent = keep(hub, [handler]);
    await untilReported(hub, 'p', { ac: 503 });
    desire(hub, { p: 2 });
    await untilReported(hub, 'p', { ac: 200, av: 3 });
    expect(seen.at(-1)).toEqual(['p', 2, 3]);
  });

  test('by crashing is asked three times', async () => {
    await using hub = await startHub();
    desire(hub, { p: 1 });
    let runs = 0;
    const handler = twinHandler(() => {
      runs++;
      throw new TypeError('a bug');
    });
    const clock = fastClock(200);
    await using _agent = keep(hub, [handler], { clock });
    await untilReported(hub, 'p', { ac: 500 });
    await clock.sleep(60_000);
    expect(runs).toBe(3);
  });
});

test('one property is applied after the other of its own, different ones do not wait, and a value that was replaced is skipped', async () => {
  await using hub = await startHub();
  const began = occasion();
  const release = occasion();
  const seen: unknown[] = [];
  const slow = twinHandler(
    async (change) => {
      seen.push(change.json());
      began.happens();
      if (change.json() === 1) await release.happened;
      return undefined;
    },
    { name: 'slow', match: { path: 'slow' } },
  );
  const quick = twinHandler(() => undefined, { name: 'quick' });
  await using _agent = keep(hub, [slow, quick]);
  await untilSubscribed(hub);
  desire(hub, { slow: 1 });
  await began.happened;
  for (const value of [2, 3]) desire(hub, { slow: value });
  desire(hub, { quick: 1 });
  await untilReported(hub, 'quick', { ac: 200 });
  expect(seen).toEqual([1]);
  release.happens();
  await untilReported(hub, 'slow', { av: 4 });
  expect(seen).toEqual([1, 3]);
});

describe('a connection that is lost', () => {
  const losses: [string, (hub: Emulator) => void, number][] = [
    ['altogether', (hub) => hub.faults.now({ act: 'drop' }), 2],
    [
      'as to its twin links',
      (hub) => hub.faults.now({ act: 'detach' }, { link: 'twin', direction: 'in' }),
      1,
    ],
    ['as to all links but those', (hub) => hub.faults.now({ act: 'detach' }, { link: 'telemetry' }), 1],
  ];

  test.each(losses)('%s leaves no gap and repeats nothing', async (_title, lose, connections) => {
    await using hub = await startHub();
    desire(hub, { kept: 1, changed: 1, gone: 1 });
    const { seen, handler } = remembering();
    await using _agent = keep(hub, [handler]);
    await untilReported(hub, 'gone', { ac: 200 });
    seen.length = 0;
    lose(hub);
    desire(hub, { changed: 2 });
    desire(hub, { gone: null, new: 1 });
    await untilReported(hub, 'new', { ac: 200 });
    await untilReported(hub, 'changed', { ac: 200, value: 2 });
    desire(hub, { after: 1 });
    await untilReported(hub, 'after', { ac: 200 });
    expect(seen.map(([path, value]) => [path, value])).toEqual(
      expect.arrayContaining([
        ['changed', 2],
        ['gone', null],
        ['new', 1],
        ['after', 1],
      ]) as unknown,
    );
    expect(seen).toHaveLength(4);
    expect(hub.record.of('connected')).toHaveLength(connections);
  });

  test('while a handler runs does not disturb it, and its outcome is reported on the next one', async () => {
    await using hub = await startHub();
    desire(hub, { p: 1 });
    let runs = 0;
    const handler = twinHandler(async () => {
      runs++;
      hub.faults.now({ act: 'drop' });
      await untilSubscribed(hub, 2);
      return { status: 200, description: 'through all of it' };
    });
    await using _agent = keep(hub, [handler]);
    await untilReported(hub, 'p', { ac: 200 });
    expect(reported(hub)['p']).toEqual({ value: 1, ac: 200, av: 2, ad: 'through all of it' });
    expect(runs).toBe(1);
  });

  test('with a report on its way sends that again, and runs nothing again', async () => {
    await using hub = await startHub();
    const { seen, handler } = remembering();
    await using _agent = keep(hub, [handler]);
    await untilSubscribed(hub);
    hub.faults.add({ at: 'transfer', link: 'twin', do: { act: 'drop' } });
    desire(hub, { p: 1 });
    await untilReported(hub, 'p', { ac: 200 });
    expect(seen).toEqual([['p', 1, 2]]);
    expect(hub.record.of('connected')).toHaveLength(2);
  });

  test('ten times in the middle of a hundred changes ends with every last value applied once', async () => {
    await using hub = await startHub();
    const { seen, handler } = remembering();
    const names = ['a', 'b', 'c'];
    await using _agent = keep(hub, [handler]);
    await untilSubscribed(hub);
    for (let n = 1; n <= 100; n++) {
      const name = names[n % 3]!;
      desire(hub, { [name]: n });
      if (n % 10 === 0) {
        hub.faults.now({ act: 'detach' }, { link: 'twin', direction: n % 20 === 0 ? 'in' : 'out' });
        desire(hub, { [name]: n + 1000 });
        await untilReported(hub, name, { value: n + 1000, ac: 200 });
      }
    }
    for (const name of names) {
      const last = hub.device(device).twin.desired.properties[name];
      await untilReported(hub, name, { value: last, ac: 200 });
      expect(seen.filter(([path]) => path === name).at(-1)?.[1]).toBe(last);
    }
    const versions = seen.map(([path, , version]) => `${path} ${version}`);
    expect(new Set(versions).size).toBe(versions.length);
  });
});

test('a hub that throttles reports gets them later, all together', async () => {
  await using hub = await startHub();
  desire(hub, { a: 1, b: 2 });
  const { handler } = remembering();
  await using _agent = keep(hub, [handler], { clock: fastClock(20) });
  hub.faults.add({ at: 'transfer', link: 'twin', after: 2, times: 3, do: { act: 'refuse', status: 429 } });
  await untilReported(hub, 'a', { ac: 200 });
  await untilReported(hub, 'b', { ac: 200 });
  const patches = hub.record.of('twin').filter(({ operation }) => operation === 'PATCH');
  expect(patches.filter(({ status }) => status === 200).length).toBeLessThanOrEqual(2);
});

test('a value that leaves no room for its echo is acknowledged without it', async () => {
  await using hub = await startHub();
  const { twin } = hub.device(device);
  const text = 'x'.repeat(4_000);
  twin.patchReported(
    Object.fromEntries(Array.from({ length: 7 }, (_, n) => [`r${String(n)}`, text])),
    hub.now(),
  );
  desire(hub, { big: { one: text, two: text } });
  const log = recordingLog();
  await using _agent = keep(hub, [remembering().handler], { session: { log } });
  await hub.waitFor(() => 'big' in reported(hub));
  expect(reported(hub)['big']).toMatchObject({ ac: 200, av: 2 });
  expect(reported(hub)['big']).not.toHaveProperty('value');
  expect(log.entries.map(({ message }) => message)).toContain('the hub refused a report');
});

describe('handlers that are replaced while it runs', () => {
  test('get what is desired, if it was another who had it', async () => {
    await using hub = await startHub();
    desire(hub, { a: 1, b: 1, c: 1 });
    const old = twinHandler(() => undefined, { name: 'old', match: { path: 'a' } });
    let keeper: TwinKeeper | undefined;
    await using agent = startServing(hub, [old], ({ stopping, dispatcher, log }) => {
      const options = { identity: { deviceId: device }, stopping, clock: systemClock, log };
      const made = (keeper = new TwinKeeper(dispatcher, options));
      return (session) => made.serve(session);
    });
    await untilReported(hub, 'a', { ac: 200 });
    const seen: string[] = [];
    const next = (name: string, path: string) =>
      twinHandler((change) => void seen.push(`${name} ${change.path}`), { name, match: { path } });
    agent.dispatcher.replaceHandlers([next('old', 'a'), next('new', 'b')]);
    keeper?.handlersChanged();
    await untilReported(hub, 'b', { ac: 200 });
    expect(seen).toEqual(['new b']);
    desire(hub, { a: 2 });
    await untilReported(hub, 'a', { av: 3 });
    expect(seen).toEqual(['new b', 'old a']);
  });

  test('get what the former ones were interrupted in', async () => {
    await using hub = await startHub();
    desire(hub, { p: 1 });
    const interrupted: Handler = {
      ...twinHandler(() => undefined),
      run: () => Promise.resolve({ outcome: 'release', status: 503, decidedBy: 'stopping' }),
    };
    await using agent = keep(hub, [interrupted], { clock: fastClock(50) });
    await untilSubscribed(hub);
    agent.dispatcher.replaceHandlers([twinHandler(() => undefined)]);
    await untilReported(hub, 'p', { ac: 200 });
    expect(hub.record.of('twin').filter(({ operation }) => operation === 'PATCH')).toHaveLength(1);
  });
});

test('stopping waits for what runs and reports it, and begins nothing', async () => {
  await using hub = await startHub();
  desire(hub, { p: 1 });
  const started = occasion();
  const handler = twinHandler(async (_, { signal }) => {
    started.happens();
    await new Promise((resolve) => {
      signal.addEventListener('abort', resolve);
    });
    return { status: 200, description: 'just in time' };
  });
  await using agent = keep(hub, [handler]);
  await started.happened;
  await agent.stop();
  expect(reported(hub)['p']).toMatchObject({ ac: 200, ad: 'just in time' });
});
