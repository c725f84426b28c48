import { chmodSync, cpSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { describe, expect, onTestFinished, test, vi } from 'vitest';

import interval, { current } from '../../config/handlers/twin.d/interval.js';
import { listHandlers } from '../../src/handlers/directory.js';
import { createDispatcher, type Dispatcher } from '../../src/handlers/dispatch.js';
import type { Handler } from '../../src/handlers/handler.js';
import { loadModule, moduleHandler } from '../../src/handlers/module.js';
import { programHandler } from '../../src/handlers/program.js';
import { streamHandler } from '../../src/handlers/stream.js';
import { silentLog } from '../../src/log.js';
import { command, recordingLog, runOnce, script, tempDir, testPython } from './kit.js';

const samples = join(import.meta.dirname, '../../config/handlers');

/** A copy as an administrator would install it, since a checkout may be writable by a group. */
function installed(): string {
  const directory = join(tempDir(), 'handlers');
  cpSync(samples, directory, { recursive: true });
  for (const entry of ['.', ...readdirSync(directory, { recursive: true, encoding: 'utf8' })]) {
    const path = join(directory, entry);
    chmodSync(path, statSync(path).mode & 0o755);
  }
  return directory;
}

async function handlersOf(directory: string, cwd: string): Promise<Handler[]> {
  const { found } = listHandlers([directory]);
  expect(found.map(({ refused }) => refused).filter((why) => why !== undefined)).toEqual([]);
  return Promise.all(
    found
      .filter(({ file }) => !file.endsWith('.ts')) // Node 20 cannot import it; its code is tested below
      .map(async ({ form, ...options }) =>
        form === 'program'
          ? programHandler({ ...options, cwd })
          : moduleHandler(await loadModule(options.file), options),
      ),
  );
}

async function agent(): Promise<{ dispatcher: Dispatcher; cwd: string }> {
  const cwd = tempDir();
  const dispatcher = createDispatcher({
    handlers: await handlersOf(installed(), cwd),
    log: silentLog,
    lockMs: 0,
  });
  onTestFinished(() => dispatcher[Symbol.asyncDispose]());
  return { dispatcher, cwd };
}

const named = (name: string, body: string): ReturnType<typeof command> =>
  command({ properties: { command: name }, body: Buffer.from(body) });

test('the handler directory has the samples that it should', () => {
  expect(listHandlers([installed()]).found.map(({ name, form }) => `${name} ${form}`)).toEqual([
    'command.d/diagnose program',
    'command.d/restart module',
    'command.d/set-limit program',
    'method.d/uptime program',
    'twin.d/interval module',
  ]);
});

test('set-limit.sh keeps a good number, rejects others with the reason, and is later while it is busy', async () => {
  const { dispatcher, cwd } = await agent();
  expect(await dispatcher.handle(named('set-limit', '80'))).toMatchObject({ outcome: 'accept' });
  expect(readFileSync(join(cwd, 'limit'), 'utf8')).toBe('80\n');
  for (const [body, reason] of [
    ['', 'a limit is a whole number'],
    ['8; rm -rf /', 'a limit is a whole number'],
    ['101', 'a limit is at most 100, not 101'],
  ] as const) {
    expect(await dispatcher.handle(named('set-limit', body))).toMatchObject({ outcome: 'reject', reason });
  }
  mkdirSync(join(cwd, 'limit.lock'));
  expect(await dispatcher.handle(named('set-limit', '81'))).toMatchObject({
    outcome: 'release',
    reason: 'someone else is changing the limit',
  });
  expect(readFileSync(join(cwd, 'limit'), 'utf8')).toBe('80\n');
});

testPython('diagnose.py replies with what it found, and rejects what it does not understand', async () => {
  const handler = programHandler({ name: 'diagnose', file: join(installed(), 'command.d/diagnose.py') });
  const answer = await runOnce(handler, { body: Buffer.from('{"paths":["/"]}') });
  expect(answer).toMatchObject({ outcome: 'accept' });
  expect(JSON.parse(String(answer.reply))).toMatchObject({ attempt: 1, free: { '/': expect.any(Number) } });
  for (const body of ['', '[]', '{}', '{"paths":[1]}', '{"paths":["/no/such/path"]}']) {
    expect(await runOnce(handler, { body: Buffer.from(body) })).toMatchObject({
      outcome: 'reject',
      status: 400,
    });
  }
});

describe('restart.mjs', () => {
  const withSystemctl = (text: string): void => {
    const bin = tempDir();
    script(`#!/bin/sh\n${text}\n`, { dir: bin, name: 'systemctl' });
    vi.stubEnv('PATH', `${bin}${delimiter}${process.env['PATH'] ?? ''}`);
    onTestFinished(() => {
      vi.unstubAllEnvs();
    });
  };

  test('restarts what may be restarted and nothing else', async () => {
    const log = join(tempDir(), 'log');
    withSystemctl(`echo "$@" >> ${log}`);
    const { dispatcher } = await agent();
    expect(await dispatcher.handle(named('restart', '{"service":"chrony"}'))).toMatchObject({
      outcome: 'accept',
    });
    expect(await dispatcher.handle(named('restart', '{"service":"sshd"}'))).toMatchObject({
      outcome: 'reject',
      reason: '"sshd" is not to be restarted from afar',
    });
    expect(await dispatcher.handle(named('restart', 'chrony'))).toMatchObject({ outcome: 'reject' });
    expect(readFileSync(log, 'utf8')).toBe('restart chrony\n');
  });

  test('is later when the service does not start', async () => {
    withSystemctl('exit 1');
    const { dispatcher } = await agent();
    expect(await dispatcher.handle(named('restart', '{"service":"chrony"}'))).toMatchObject({
      outcome: 'release',
    });
  });
});

test('uptime.sh answers its method with JSON', async () => {
  const { dispatcher } = await agent();
  const event = {
    event: 'method',
    method: 'uptime',
    deviceId: 'dev1',
    properties: {},
    body: Buffer.from('null'),
  } as const;
  const answer = await dispatcher.answer(event);
  expect(answer).toMatchObject({ status: 200 });
  expect(JSON.parse(String(answer?.reply))).toEqual({ seconds: expect.any(Number), device: 'dev1' });
});

test('interval.ts takes a good interval and acknowledges another with 400', async () => {
  const log = recordingLog();
  const dispatcher = createDispatcher({ handlers: [moduleHandler(interval, { name: 'interval' })], log });
  const change = { event: 'twin', path: 'interval', version: 2, deviceId: 'd', properties: {} } as const;
  expect(await dispatcher.answer({ ...change, body: Buffer.from('30') })).toMatchObject({
    status: 200,
    reason: 'every 30 s',
  });
  expect(current.intervalSeconds).toBe(30);
  for (const body of ['0', '"x"', 'null', '{']) {
    expect(await dispatcher.answer({ ...change, body: Buffer.from(body) })).toMatchObject({ status: 400 });
  }
  expect(current.intervalSeconds).toBe(30);
});

testPython('counter-stream.py counts across commands, in one process', async () => {
  const file = join(installed(), 'counter-stream.py');
  const handler = streamHandler({ name: 'counter', file, log: silentLog });
  onTestFinished(() => handler[Symbol.asyncDispose]());
  const send = (body: string): ReturnType<typeof runOnce> =>
    runOnce(handler, { contentType: 'application/json', body: Buffer.from(body) });
  expect(await send('2')).toMatchObject({ outcome: 'accept', reply: Buffer.from('{"total":2}') });
  expect(await send('40')).toMatchObject({ outcome: 'accept', reply: Buffer.from('{"total":42}') });
  expect(await send('"x"')).toMatchObject({
    outcome: 'reject',
    reason: 'the body is to be a whole number, as JSON',
  });
});
