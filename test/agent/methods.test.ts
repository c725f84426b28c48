import { describe, expect, test } from 'vitest';

import { serveMethods } from '../../src/agent/methods.js';
import { systemClock } from '../../src/clock.js';
import type { Emulator } from '../../src/emulator/emulator.js';
import { BadMessage, RetryLater, type MethodResult } from '../../src/handlers/contract.js';
import type { Handler } from '../../src/handlers/handler.js';
import { programHandler } from '../../src/handlers/program.js';
import { device, encode, message, startHub } from '../amqp/hub.js';
import { recordingLog, sh } from '../handlers/kit.js';
import { methodHandler, occasion, startServing } from './serving.js';

function serve(
  hub: Emulator,
  handlers: readonly Handler[],
  options: Parameters<typeof startServing>[3] = {},
) {
  return startServing(
    hub,
    handlers,
    ({ stopping, dispatcher, log }) =>
      (session) =>
        serveMethods(session, dispatcher, { stopping, clock: systemClock, log }),
    options,
  );
}

async function invoke(hub: Emulator, name: string, payload: unknown = null, responseTimeoutMs = 10_000) {
  const call = { name, payload: JSON.stringify(payload), responseTimeoutMs, connectTimeoutMs: 10_000 };
  const result = await hub.device(device).methods.call(call);
  if (result.result !== 'answered') return result.result;
  return { status: result.status, payload: JSON.parse(result.payload) as unknown };
}

test('a method is given to its handler, and its caller gets status and payload', async () => {
  await using hub = await startHub();
  await using _agent = serve(hub, [
    methodHandler((call) => call.respond(202, { got: call.json(), by: call.method }), {
      match: { method: 'reboot' },
    }),
  ]);
  expect(await invoke(hub, 'reboot', { in: 5 })).toEqual({
    status: 202,
    payload: { got: { in: 5 }, by: 'reboot' },
  });
});

test('a method that nobody handles is answered with 501', async () => {
  await using hub = await startHub();
  await using _agent = serve(hub, [methodHandler(() => undefined, { match: { method: 'a' } })]);
  expect(await invoke(hub, 'b')).toEqual({
    status: 501,
    payload: { message: 'this device has no method "b"' },
  });
});

describe('what a module does is a status', () => {
  test.each<[string, () => MethodResult | undefined, unknown]>([
    ['nothing returned', () => undefined, { status: 200, payload: null }],
    ['a status alone', () => ({ status: 404 }), { status: 404, payload: null }],
    [
      'RetryLater',
      () => {
        throw new RetryLater('busy');
      },
      { status: 503, payload: { message: 'busy' } },
    ],
    [
      'BadMessage',
      () => {
        throw new BadMessage('no');
      },
      { status: 400, payload: { message: 'no' } },
    ],
    [
      'an error',
      () => {
        throw new Error('broken');
      },
      { status: 500, payload: { message: 'broken' } },
    ],
    [
      'a bug',
      () => {
        throw new TypeError('x is not a function');
      },
      { status: 500, payload: { message: 'x is not a function' } },
    ],
    [
      'a status that is no 32-bit integer',
      () => ({ status: 2 ** 40 }),
      { status: 500, payload: { message: 'the handler answered with the status 1099511627776' } },
    ],
    [
      'too large a payload',
      () => ({ status: 200, payload: 'x'.repeat(128 * 1024) }),
      { status: 500, payload: { message: 'the handler answered with 131074 bytes; the hub takes 131072' } },
    ],
  ])('%s', async (_title, handle, answer) => {
    await using hub = await startHub();
    await using _agent = serve(hub, [methodHandler(handle)]);
    expect(await invoke(hub, 'm')).toEqual(answer);
  });
});

describe('what a program does is a status', () => {
  test.each<[string, string, unknown]>([
    ['exit 0 with JSON', `printf '{"got":%s}' "$(cat)"`, { status: 200, payload: { got: { in: 5 } } }],
    ['exit 0 with text', 'cat >/dev/null; echo "all is well"', { status: 200, payload: 'all is well' }],
    ['exit 0 without a word', 'cat >/dev/null', { status: 200, payload: null }],
    ['exit 75', 'exit 75', { status: 503, payload: { message: 'exit 75' } }],
    ['exit 69', 'exit 69', { status: 503, payload: { message: 'exit 69' } }],
    ['exit 65', 'echo "wrong unit" >&2; exit 65', { status: 400, payload: { message: 'wrong unit' } }],
    ['exit 77', 'exit 77', { status: 403, payload: { message: 'exit 77' } }],
    ['exit 1 with JSON', 'echo \'{"code":7}\'; exit 1', { status: 500, payload: { code: 7 } }],
    ['exit 127', 'exit 127', { status: 501, payload: { message: 'exit 127' } }],
    ['a signal', 'kill -9 $$', { status: 500, payload: { message: 'killed by SIGKILL' } }],
    ['too long', 'sleep 60', { status: 504, payload: { message: 'no end after 0.3 s' } }],
  ])('%s', async (_title, body, answer) => {
    await using hub = await startHub();
    const timeoutMs = body.startsWith('sleep') ? 300 : 10_000;
    await using _agent = serve(hub, [programHandler({ name: 'p', on: 'method', file: sh(body), timeoutMs })]);
    expect(await invoke(hub, 'm', { in: 5 })).toEqual(answer);
  });

  test('it has the method and the request in its environment', async () => {
    await using hub = await startHub();
    const file = sh(`printf '"%s %s %s"' "$IOTHUB_EVENT" "$IOTHUB_METHOD" "\${#IOTHUB_REQUEST_ID}"`);
    await using _agent = serve(hub, [programHandler({ name: 'p', on: 'method', file })]);
    expect(await invoke(hub, 'reboot')).toEqual({ status: 200, payload: 'method reboot 36' });
  });

  test('128 KB come in whole', async () => {
    await using hub = await startHub();
    await using _agent = serve(hub, [programHandler({ name: 'p', on: 'method', file: sh('wc -c') })]);
    expect(await invoke(hub, 'm', 'x'.repeat(128 * 1024 - 2))).toEqual({ status: 200, payload: 128 * 1024 });
  });
});

test('calls to one handler take turns; one whose turn comes too late is not begun', async () => {
  await using hub = await startHub();
  let runs = 0;
  const handle = async () => {
    runs++;
    await new Promise((resolve) => setTimeout(resolve, 300));
    return undefined;
  };
  await using _agent = serve(hub, [methodHandler(handle, { timeoutMs: 500 })]);
  const answers = await Promise.all([1, 2, 3].map((n) => invoke(hub, 'm', n)));
  expect(answers[0]).toMatchObject({ status: 200 });
  expect(answers[2]).toEqual({ status: 504, payload: { message: 'those before it took too long' } });
  expect(runs).toBe(2);
});

describe('when its links are lost', () => {
  test('in the middle of a call, only they are opened anew', async () => {
    await using hub = await startHub();
    const log = recordingLog();
    const started = occasion();
    const handlers = [
      methodHandler(
        async () => {
          started.happens();
          await hub.waitFor(
            (record) => record.of('attached').filter((l) => l.link === 'methods').length === 4,
          );
          return undefined;
        },
        { name: 'slow', match: { method: 'slow' } },
      ),
      methodHandler(() => undefined, { name: 'fast' }),
    ];
    await using _agent = serve(hub, handlers, { log });
    const lost = invoke(hub, 'slow', null, 2_000);
    await started.happened;
    hub.faults.now({ act: 'detach', condition: 'amqp:link:detach-forced' }, { link: 'methods' });
    await hub.waitFor((record) => record.of('attached').filter((l) => l.link === 'methods').length === 4);
    expect(await invoke(hub, 'fast')).toMatchObject({ status: 200 });
    expect(await lost).toBe('no-answer');
    expect(hub.record.of('connected')).toHaveLength(1);
    expect(
      hub.record.of('detached').filter(({ link }) => link === 'commands' || link === 'telemetry'),
    ).toEqual([]);
    expect(log.entries.map((entry) => entry.message)).toContain(
      'the channel was lost before the answer of a method was out',
    );
  });

  test('with the connection, methods are served again on the next one', async () => {
    await using hub = await startHub();
    await using _agent = serve(hub, [methodHandler(() => undefined)]);
    expect(await invoke(hub, 'm')).toMatchObject({ status: 200 });
    hub.faults.now({ act: 'drop' });
    await hub.waitFor((record) => record.of('attached').filter((l) => l.link === 'methods').length === 4);
    expect(await invoke(hub, 'm')).toMatchObject({ status: 200 });
  });

  test('and it is the others that were, a call in hand is answered all the same', async () => {
    await using hub = await startHub();
    const started = occasion();
    const handle = async () => {
      started.happens();
      await hub.waitFor((record) => record.of('attached').filter((l) => l.link === 'commands').length === 2);
      return { status: 299 };
    };
    await using _agent = serve(hub, [methodHandler(handle)]);
    const answer = invoke(hub, 'm');
    await started.happened;
    hub.faults.now({ act: 'detach' }, { link: 'telemetry' });
    expect(await answer).toMatchObject({ status: 299 });
    expect(hub.record.of('attached').filter(({ link }) => link === 'methods')).toHaveLength(2);
  });
});

test('a hub that refuses methods costs nothing else', async () => {
  await using hub = await startHub();
  hub.faults.add({
    at: 'attach',
    link: 'methods',
    times: 'always',
    do: { act: 'refuse', condition: 'amqp:not-allowed' },
  });
  const log = recordingLog();
  await using agent = startServing(
    hub,
    [methodHandler(() => undefined)],
    ({ stopping, dispatcher }) =>
      async (session) => {
        const serving = serveMethods(session, dispatcher, { stopping, clock: systemClock, log });
        await hub.waitFor((record) => record.of('refused').length > 0);
        await session.telemetry.send(encode(message()));
        await serving;
      },
    { log },
  );
  await hub.waitFor((record) => record.of('telemetry').length === 1);
  await agent.stop();
  expect(hub.record.of('connected')).toHaveLength(1);
  const said = log.entries.filter(({ message: text }) => text === 'a channel is not open');
  expect(said).toMatchObject([{ level: 'warn', fields: { channel: 'methods' } }]);
});

test('stopping answers what is in hand, and takes no more', async () => {
  await using hub = await startHub();
  const started = occasion();
  const handle = async (_: unknown, { signal }: { signal: AbortSignal }) => {
    started.happens();
    await new Promise((resolve) => {
      signal.addEventListener('abort', resolve);
    });
    return { status: 200, payload: 'done before the end' };
  };
  await using agent = serve(hub, [methodHandler(handle)]);
  const answer = invoke(hub, 'm');
  await started.happened;
  await agent.stop();
  expect(await answer).toEqual({ status: 200, payload: 'done before the end' });
});
