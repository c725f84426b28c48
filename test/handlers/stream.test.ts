import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test, vi } from 'vitest';

import type { Handler } from '../../src/handlers/handler.js';
import { streamHandler, type StreamHandlerOptions } from '../../src/handlers/stream.js';
import { hastyClock, recordingLog, runOnce, script, tempDir } from './kit.js';

/** A stream program: `body` is what it does with each `message`, with `answer` and `process` at hand. */
const program = (body: string): string =>
  script(
    `#!/usr/bin/env node
const answer = (message) => process.stdout.write(JSON.stringify(message) + '\\n');
const later = (ms) => new Promise((done) => setTimeout(done, ms));
let rest = '';
process.stdin.on('data', (chunk) => {
  const lines = (rest + chunk).split('\\n');
  rest = lines.pop();
  for (const line of lines) void take(JSON.parse(line));
});
async function take(message) {
${body}
}
`,
    { name: 'stream.mjs' },
  );

function stream(
  body: string,
  options: Partial<StreamHandlerOptions> = {},
): Handler & { log: ReturnType<typeof recordingLog> } {
  const log = recordingLog();
  const handler = streamHandler({ name: 's', file: program(body), log, ...options });
  onTestFinished(() => handler[Symbol.asyncDispose]());
  return Object.assign(handler, { log });
}

const pid = async (handler: Handler): Promise<number> => Number(String((await runOnce(handler)).reply));
const isAlive = (id: number): boolean => {
  try {
    return !readFileSync(`/proc/${id}/stat`, 'utf8').includes(') Z ');
  } catch {
    return false;
  }
};

describe('an answer', () => {
  test.each([
    [
      { outcome: 'accept', reply: { a: 1 } },
      { outcome: 'accept', status: 200, reply: Buffer.from('{"a":1}'), decidedBy: 'handler' },
    ],
    [
      { outcome: 'reject', reason: 'no' },
      { outcome: 'reject', status: 400, reason: 'no' },
    ],
    [
      { outcome: 'release', reason: 'busy' },
      { outcome: 'release', status: 503, reason: 'busy' },
    ],
    [
      { status: 202, reply: null },
      { outcome: 'accept', status: 202, reply: Buffer.from('null') },
    ],
    [{ status: 404 }, { outcome: 'reject', status: 404 }],
    [{ outcome: 'maybe' }, { outcome: 'release', decidedBy: 'fault' }],
    [{}, { outcome: 'release', decidedBy: 'fault' }],
  ])('%j', async (said, expected) => {
    const handler = stream(`answer({ id: message.id, ...${JSON.stringify(said)} });`);
    expect(await runOnce(handler)).toMatchObject(expected);
  });
});

test('the program is asked with everything about the event, its body in the form that suits it', async () => {
  const handler = stream(`answer({ id: message.id, outcome: 'accept', reply: message });`);
  const ask = async (fields: Parameters<typeof runOnce>[1]): Promise<Record<string, unknown>> =>
    JSON.parse(String((await runOnce(handler, fields)).reply)) as Record<string, unknown>;
  expect(
    await ask({
      messageId: 'm1',
      contentType: 'application/json; charset=utf-8',
      properties: { a: 'b' },
      body: Buffer.from('{"n":1}'),
    }),
  ).toEqual({
    id: '1',
    event: 'command',
    deviceId: 'dev1',
    messageId: 'm1',
    contentType: 'application/json; charset=utf-8',
    deliveryCount: 0,
    properties: { a: 'b' },
    attempt: 1,
    deadline: expect.stringMatching(/^\d{4}-.*Z$/),
    body: { n: 1 },
  });
  expect(await ask({ body: Buffer.from('{"n":1}') })).toMatchObject({ id: '2', bodyText: '{"n":1}' });
  expect(await ask({ contentType: 'application/json', body: Buffer.from('{"n":') })).toMatchObject({
    bodyText: '{"n":',
  });
  expect(await ask({ body: Buffer.from([0xff, 0x00]) })).toMatchObject({ bodyBase64: '/wA=' });
});

test('several events are in flight in one process, and answers come in any order', async () => {
  const handler = stream(`
    await later(message.bodyText === 'slow' ? 200 : 0);
    answer({ id: message.id, outcome: 'accept', reply: [process.pid, message.bodyText] });`);
  const order: string[] = [];
  const ask = async (text: string): Promise<unknown> => {
    const answer = await runOnce(handler, { body: Buffer.from(text) });
    order.push(text);
    return JSON.parse(String(answer.reply));
  };
  const replies = (await Promise.all([ask('slow'), ask('a'), ask('b'), ask('c')])) as [number, string][];
  expect(replies.map(([, text]) => text)).toEqual(['slow', 'a', 'b', 'c']);
  expect(new Set(replies.map(([id]) => id)).size).toBe(1);
  expect(order.at(-1)).toBe('slow');
});

test('what it prints on standard error is logged, and what is no answer is warned about', async () => {
  const handler = stream(`
    console.error('<4>careful');
    console.log('debug output');
    answer({ id: 'unknown', outcome: 'accept' });
    answer({ id: message.id, outcome: 'accept' });`);
  expect(await runOnce(handler)).toMatchObject({ outcome: 'accept' });
  await vi.waitUntil(() => handler.log.entries.length >= 3);
  expect(handler.log.entries).toEqual(
    expect.arrayContaining([
      { level: 'warn', message: 'careful', fields: { handler: 's' } },
      {
        level: 'warn',
        message: 'it printed what is no answer',
        fields: { handler: 's', line: 'debug output' },
      },
      expect.objectContaining({ message: 'it printed what is no answer' }),
    ]),
  );
});

test('when it ends, what is open is later and a fault, and the next event starts it again', async () => {
  const handler = stream(`
    if (message.bodyText === 'die') process.exit(3);
    if (message.bodyText !== 'hang') answer({ id: message.id, outcome: 'accept', reply: process.pid });`);
  const first = await pid(handler);
  const hang = runOnce(handler, { body: Buffer.from('hang') });
  const die = runOnce(handler, { body: Buffer.from('die') });
  for (const answer of [await hang, await die]) {
    expect(answer).toMatchObject({
      outcome: 'release',
      decidedBy: 'fault',
      reason: 'its program ended: exit 3',
    });
  }
  const second = await pid(handler);
  expect(second).not.toBe(first);
  expect(isAlive(first)).toBe(false);
});

test('one that keeps ending is started ever more slowly', async () => {
  const handler = stream('process.exit(1);');
  for (let round = 0; round < 3; round++) {
    expect(await runOnce(handler)).toMatchObject({ outcome: 'release', decidedBy: 'fault' });
  }
  expect(await runOnce(handler, {}, { timeoutMs: 300 })).toMatchObject({
    outcome: 'release',
    decidedBy: 'installation',
    reason: 'its program keeps ending',
  });
  const delays = handler.log.entries.map(({ fields }) => Number(fields['restartMs']));
  expect(delays).toHaveLength(3);
  expect(delays[0]).toBe(0);
  expect(delays[1]).toBeGreaterThanOrEqual(500);
  expect(delays[2]).toBeGreaterThanOrEqual(1_000);
});

test('one that cannot be started is later', async () => {
  const handler = stream('', { file: '/no/such/program' });
  expect(await runOnce(handler)).toMatchObject({
    outcome: 'release',
    decidedBy: 'installation',
    reason: expect.stringContaining('missing'),
  });
});

describe('past the deadline', () => {
  test('the program is told to cancel, and its answer to that counts', async () => {
    const handler = stream(`
      if (message.type === 'cancel') answer({ id: message.id, outcome: 'release', reason: 'cancelled' });`);
    expect(await runOnce(handler, {}, { timeoutMs: 300 })).toMatchObject({
      outcome: 'release',
      reason: 'cancelled',
      decidedBy: 'handler',
    });
  });

  test('one that does not answer is killed and started anew', async () => {
    const handler = stream(
      `
      if (message.bodyText === 'hang') for (;;);
      if (message.event) answer({ id: message.id, outcome: 'accept', reply: process.pid });`,
      { clock: hastyClock },
    );
    const first = await pid(handler);
    expect(await runOnce(handler, { body: Buffer.from('hang') }, { timeoutMs: 1_000 })).toMatchObject({
      outcome: 'release',
      status: 504,
      decidedBy: 'fault',
    });
    expect(await pid(handler)).not.toBe(first);
  });
});

describe('a ping', () => {
  test('that is answered changes nothing', async () => {
    const dir = tempDir();
    const handler = stream(
      `
      const fs = await import('node:fs');
      if (message.type === 'ping') { fs.appendFileSync('pings', 'x'); answer({ type: 'pong' }); }
      else answer({ id: message.id, outcome: 'accept', reply: process.pid });`,
      { pingEveryMs: 300, cwd: dir },
    );
    const first = await pid(handler);
    await vi.waitUntil(() => existsSync(join(dir, 'pings')) && readFileSync(join(dir, 'pings')).length >= 3, {
      timeout: 10_000,
    });
    expect(await pid(handler)).toBe(first);
  });

  test('that is not answered has the program started anew', async () => {
    const handler = stream(
      `if (message.event) answer({ id: message.id, outcome: 'accept', reply: process.pid });`,
      { pingEveryMs: 50 },
    );
    const first = await pid(handler);
    await vi.waitUntil(() => !isAlive(first), { timeout: 20_000, interval: 100 });
    expect(await pid(handler)).not.toBe(first);
  });
});

test('a line without end has the program started anew, and memory stays flat', async () => {
  const handler = stream(`
    if (message.bodyText === 'flood') for (;;) { if (!process.stdout.write('x'.repeat(65536))) await new Promise((d) => process.stdout.once('drain', d)); }
    answer({ id: message.id, outcome: 'accept' });`);
  expect(await runOnce(handler, { body: Buffer.from('flood') })).toMatchObject({
    outcome: 'release',
    decidedBy: 'fault',
  });
  expect(await runOnce(handler)).toMatchObject({ outcome: 'accept' });
});

test('closing ends its input; what does not end then is killed, with all it started', async () => {
  const polite = stream(`answer({ id: message.id, outcome: 'accept', reply: process.pid });`);
  const stubborn = stream(
    `
    process.on('SIGTERM', () => undefined);
    setInterval(() => undefined, 1000);
    const { spawn } = await import('node:child_process');
    const child = spawn('setsid', ['sleep', '60'], { stdio: 'ignore' });
    await later(100);
    answer({ id: message.id, outcome: 'accept', reply: process.pid + ',' + child.pid });`,
    { clock: hastyClock },
  );
  const first = await pid(polite);
  const [second, grandchild] = (JSON.parse(String((await runOnce(stubborn)).reply)) as string)
    .split(',')
    .map(Number);
  expect([isAlive(first), isAlive(second!), isAlive(grandchild!)]).toEqual([true, true, true]);
  await Promise.all([polite[Symbol.asyncDispose](), stubborn[Symbol.asyncDispose]()]);
  expect([isAlive(first), isAlive(second!), isAlive(grandchild!)]).toEqual([false, false, false]);
});

test('when the agent stops, open events are cancelled and may still be answered', async () => {
  const handler = stream(
    `if (message.type === 'cancel') answer({ id: message.id, outcome: 'reject', reason: 'half done' });`,
  );
  const stop = new AbortController();
  const answer = runOnce(handler, {}, { stopping: stop.signal });
  setTimeout(() => {
    stop.abort();
  }, 200);
  expect(await answer).toMatchObject({ outcome: 'reject', reason: 'half done' });
});
