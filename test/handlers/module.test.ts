import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

import { systemClock, type Clock } from '../../src/clock.js';
import {
  BadMessage,
  RetryLater,
  type CommandHandler,
  type MethodHandler,
  type TwinHandler,
} from '../../src/handlers/contract.js';
import type { Answer, Run } from '../../src/handlers/handler.js';
import { loadModule, moduleHandler } from '../../src/handlers/module.js';
import { silentLog } from '../../src/log.js';
import { recordingLog, runOnce, script, tempDir } from './kit.js';

const call = (
  handle: CommandHandler['handle'],
  event: Parameters<typeof runOnce>[1] = {},
  run: Partial<Run> = {},
): Promise<Answer> =>
  runOnce(moduleHandler({ on: 'command', handle }, { name: 'h', timeoutMs: 1_000 }), event, run);

describe('a command', () => {
  test.each<[string, CommandHandler['handle'], Partial<Answer>]>([
    ['nothing returned', () => undefined, { outcome: 'accept', status: 200 }],
    ['accept()', (c) => c.accept(), { outcome: 'accept' }],
    [
      'accept with a reply',
      (c) => c.accept({ reply: { a: 1 } }),
      { outcome: 'accept', reply: Buffer.from('{"a":1}') },
    ],
    [
      'accept with text',
      (c) => c.accept({ reply: 'done' }),
      { outcome: 'accept', reply: Buffer.from('done') },
    ],
    ['reject()', (c) => c.reject('no'), { outcome: 'reject', reason: 'no', decidedBy: 'handler' }],
    ['release()', (c) => c.release('busy'), { outcome: 'release', reason: 'busy', decidedBy: 'handler' }],
    [
      'a promise',
      async (c) => Promise.resolve(c.reject('later no')),
      { outcome: 'reject', reason: 'later no' },
    ],
  ])('%s', async (_, handle, expected) => {
    expect(await call(handle)).toMatchObject(expected);
  });

  test.each<[string, () => never, Partial<Answer>]>([
    [
      'an error',
      () => {
        throw new Error('disk on fire');
      },
      { outcome: 'reject', status: 500, reason: 'disk on fire', decidedBy: 'handler' },
    ],
    [
      'RetryLater',
      () => {
        throw new RetryLater('busy');
      },
      { outcome: 'release', status: 503, reason: 'busy', decidedBy: 'handler' },
    ],
    [
      'BadMessage',
      () => {
        throw new BadMessage('no service');
      },
      { outcome: 'reject', status: 400, reason: 'no service' },
    ],
    [
      'a TypeError',
      () => {
        throw new TypeError('x is undefined');
      },
      { outcome: 'release', status: 500, decidedBy: 'fault' },
    ],
    [
      'a ReferenceError',
      () => {
        throw new ReferenceError('y');
      },
      { outcome: 'release', decidedBy: 'fault' },
    ],
    [
      'a RangeError',
      () => {
        throw new RangeError('z');
      },
      { outcome: 'release', decidedBy: 'fault' },
    ],
    [
      'a SyntaxError, as of JSON.parse',
      () => {
        throw new SyntaxError('Unexpected token');
      },
      { outcome: 'reject', decidedBy: 'handler' },
    ],
    [
      'an AbortError that is not its own',
      () => {
        throw new DOMException('gone', 'AbortError');
      },
      { outcome: 'reject' },
    ],
    [
      'a string',
      () => {
        // eslint-disable-next-line @typescript-eslint/only-throw-error -- plain JavaScript may
        throw 'text';
      },
      { outcome: 'reject', reason: 'text' },
    ],
  ])('%s thrown', async (_, handle, expected) => {
    expect(await call(handle)).toMatchObject(expected);
  });

  test('a RetryLater of another copy of this package is one too', async () => {
    class RetryLater extends Error {
      override name = 'RetryLater';
    }
    expect(
      await call(() => {
        throw new RetryLater('x');
      }),
    ).toMatchObject({ outcome: 'release', decidedBy: 'handler' });
  });

  test('returning what is no outcome is a bug, and the log tells which', async () => {
    const log = recordingLog();
    const answer = await call((() => 'ok') as unknown as CommandHandler['handle'], {}, { log });
    expect(answer).toMatchObject({ outcome: 'release', decidedBy: 'fault' });
    expect(log.entries[0]).toMatchObject({ level: 'error', message: 'a bug in the handler' });
    expect(log.entries[0]!.fields['stack']).toMatch(/accept\(\), reject\(\) or release\(\)/);
  });

  test('reads its body as text and as JSON', async () => {
    const body = Buffer.from('{"service":"x","__proto__":{"polluted":true},"n":{"constructor":1,"k":2}}');
    let seen: unknown;
    await call(
      (c) => {
        seen = [c.text(), c.json(), c.messageId, c.properties];
        return undefined;
      },
      { body, messageId: 'm', properties: { a: 'b' } },
    );
    expect(seen).toEqual([body.toString(), { service: 'x', n: { k: 2 } }, 'm', { a: 'b' }]);
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined();
  });

  test.each([
    ['not JSON', 'nonsense'],
    ['nested without end', '['.repeat(65_000)],
    ['nested too deeply', '['.repeat(30_000) + ']'.repeat(30_000)],
    ['empty', ''],
  ])('a body that is %s is rejected by json()', async (_, text) => {
    const answer = await call(
      (c) => {
        c.json();
        return undefined;
      },
      { body: Buffer.from(text) },
    );
    expect(answer).toMatchObject({ outcome: 'reject', status: 400, decidedBy: 'handler' });
  });

  test('gets its attempt, its deadline, its log and a way to send', async () => {
    const sent: unknown[] = [];
    const log = recordingLog();
    const module: CommandHandler = {
      on: 'command',
      async handle(_, context) {
        context.log.info('working', { step: 1 });
        await context.send?.({ body: { t: 1 } });
        expect(context.deadline).toBeGreaterThan(Date.now());
        expect(context.attempt).toBe(2);
      },
    };
    const handler = moduleHandler(module, {
      name: 'h',
      send: (message) => Promise.resolve(void sent.push(message)),
    });
    expect(await runOnce(handler, {}, { attempt: 2, log })).toMatchObject({ outcome: 'accept' });
    expect(sent).toEqual([{ body: { t: 1 } }]);
    expect(log.entries).toEqual([{ level: 'info', message: 'working', fields: { step: 1 } }]);
  });
});

test('a copy of the context has all that the context has', async () => {
  const stop = new AbortController();
  const log = recordingLog();
  const answer = await call(
    (c, context) => {
      const { signal, ...copy } = { ...context };
      stop.abort();
      copy.log.info('copied');
      return signal.aborted && copy.attempt === 2 ? c.accept() : c.reject('not the same');
    },
    {},
    { stopping: stop.signal, log, attempt: 2 },
  );
  expect(answer).toMatchObject({ outcome: 'accept' });
  expect(log.entries.map(({ message }) => message)).toEqual(['copied']);
});

describe('the deadline', () => {
  const wait = (signal: AbortSignal): Promise<never> =>
    new Promise((_, reject) => {
      signal.addEventListener('abort', () => {
        reject(signal.reason as Error);
      });
    });

  test('aborts the signal, and the AbortError of that is later', async () => {
    const answer = await call((_, { signal }) => wait(signal), {}, { timeoutMs: 30 });
    expect(answer).toMatchObject({
      outcome: 'release',
      status: 504,
      decidedBy: 'fault',
      reason: 'no end after 0.03 s',
    });
  });

  test('leaves an answer that comes right after it', async () => {
    const answer = await call(
      async (c, { signal }) => {
        await wait(signal).catch(() => undefined);
        return c.reject('cleaned up');
      },
      {},
      { timeoutMs: 30 },
    );
    expect(answer).toMatchObject({ outcome: 'reject', reason: 'cleaned up' });
  });

  test('gives up on a function that never comes back', async () => {
    const clock: Clock = { ...systemClock, sleep: (ms, signal) => systemClock.sleep(ms / 100, signal) };
    const handler = moduleHandler(
      { on: 'command', handle: () => new Promise(() => undefined) },
      { name: 'h', clock },
    );
    const log = recordingLog();
    expect(await runOnce(handler, {}, { log })).toMatchObject({
      outcome: 'release',
      status: 504,
      decidedBy: 'fault',
    });
    expect(log.entries.map(({ message }) => message)).toEqual([
      'it does not heed its signal and is left running',
    ]);
  });

  test('is not waited for when the agent stops', async () => {
    const stop = new AbortController();
    const kill = new AbortController();
    const heeds = call((_, { signal }) => wait(signal), {}, { stopping: stop.signal, killing: kill.signal });
    const hangs = call(
      () => new Promise(() => undefined),
      {},
      { stopping: stop.signal, killing: kill.signal },
    );
    stop.abort();
    expect(await heeds).toMatchObject({ outcome: 'release', decidedBy: 'stopping' });
    kill.abort();
    expect(await hangs).toMatchObject({ outcome: 'release', decidedBy: 'stopping' });
  });
});

test('a method answers with a status and a payload', async () => {
  const event = {
    event: 'method',
    method: 'reboot',
    deviceId: 'd',
    properties: {},
    body: Buffer.from('{"in":5}'),
  } as const;
  const run: Run = {
    attempt: 1,
    timeoutMs: 1_000,
    log: silentLog,
    stopping: new AbortController().signal,
    killing: new AbortController().signal,
  };
  const answerOf = (handle: MethodHandler['handle']): Promise<Answer> =>
    Promise.resolve(moduleHandler({ on: 'method', handle }, { name: 'h' }).run(event, run));
  expect(await answerOf((m) => m.respond(202, { after: m.json<{ in: number }>().in }))).toMatchObject({
    status: 202,
    reply: Buffer.from('{"after":5}'),
  });
  expect(await answerOf(() => undefined)).toMatchObject({ status: 200 });
  expect(
    await answerOf(() => {
      throw new RetryLater('x');
    }),
  ).toMatchObject({ status: 503 });
  expect(await answerOf((() => ({ ok: true })) as never)).toMatchObject({ status: 500, decidedBy: 'fault' });
});

test('a twin change is acknowledged with a status, a description and a report', async () => {
  const event = {
    event: 'twin',
    path: 'interval',
    version: 4,
    deviceId: 'd',
    properties: {},
    body: Buffer.from('7'),
  } as const;
  const run: Run = {
    attempt: 1,
    timeoutMs: 1_000,
    log: silentLog,
    stopping: new AbortController().signal,
    killing: new AbortController().signal,
  };
  const answerOf = (handle: TwinHandler['handle']): Promise<Answer> =>
    Promise.resolve(moduleHandler({ on: 'twin', handle }, { name: 'h' }).run(event, run));
  expect(
    await answerOf((t) => t.acknowledge(200, { description: 'set', reported: { interval: t.json() } })),
  ).toEqual({
    outcome: 'accept',
    status: 200,
    reason: 'set',
    reply: Buffer.from('{"interval":7}'),
    decidedBy: 'handler',
  });
  expect(
    await answerOf(() => {
      throw new BadMessage('odd');
    }),
  ).toMatchObject({ status: 400, outcome: 'reject' });
});

describe('loading', () => {
  const text = (reason: string): string =>
    `import { hello } from './dep.mjs';\nexport default { on: 'command', handle: (c) => c.reject(${JSON.stringify(reason)} + hello) };\n`;

  test('takes the default export, and the file as it is now when loaded again', async () => {
    const dir = tempDir();
    writeFileSync(join(dir, 'dep.mjs'), "export const hello = '!';\n");
    const file = script(text('one'), { dir, name: 'h.mjs' });
    const first = moduleHandler(await loadModule(file), { name: 'h' });
    writeFileSync(file, text('two'));
    const second = moduleHandler(await loadModule(file), { name: 'h' });
    expect((await runOnce(first)).reason).toBe('one!');
    expect((await runOnce(second)).reason).toBe('two!');
  });

  test.each([
    ['is missing', () => join(tempDir(), 'none.mjs'), /cannot be loaded/],
    ['does not parse', () => script('export default {', { name: 'h.mjs' }), /cannot be loaded/],
    ['throws', () => script('throw new Error("at start")', { name: 'h.mjs' }), /at start/],
    ['exports nothing', () => script('export const a = 1;', { name: 'h.mjs' }), /is not a handler/],
    [
      'exports something else',
      () => script("export default { on: 'tuesday', handle() {} };", { name: 'h.mjs' }),
      /is not a handler/,
    ],
    [
      'is writable by others',
      () => script('export default {};', { name: 'h.mjs', mode: 0o666 }),
      /writable by everyone/,
    ],
  ])('of a file that %s is a configuration error', async (_, file, message) => {
    await expect(loadModule(file())).rejects.toMatchObject({
      code: 'config',
      message: expect.stringMatching(message),
    });
  });
});
