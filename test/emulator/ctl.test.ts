import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { serveControl } from '../../src/emulator/control.js';
import { startEmulator } from '../../src/emulator/emulator.js';
import type { Emulator } from '../../src/emulator/emulator.js';
import { connectDevice, happens, openSender, send } from './client.js';

const bin = join(import.meta.dirname, '../../bin/iothub-emulator.js');
let hub: Emulator;
let control: Awaited<ReturnType<typeof serveControl>>;
let url: string;

beforeAll(async () => {
  hub = await startEmulator({ devices: ['d'] });
  control = await serveControl(hub, 0, (at) => `export IOTHUB_EMULATOR_URL='${at}'\n`);
  url = `http://127.0.0.1:${control.port}`;
});
afterAll(async () => {
  await control[Symbol.asyncDispose]();
  await hub[Symbol.asyncDispose]();
});

test('wait ends when the emulator is ready, and says so when it is not', async () => {
  expect(await run('wait')).toMatchObject({ code: 0 });
  const nobody = await run('wait', '--timeout', '200ms', '--url', 'http://127.0.0.1:9');
  expect(nobody.code).toBe(69);
});

test('env prints what start would write', async () => {
  expect(await run('env')).toMatchObject({ code: 0, out: `export IOTHUB_EMULATOR_URL='${url}'\n` });
});

test('adds a fault that waits, lists it, and takes it away', async () => {
  await run(
    'ctl',
    'fault',
    'transfer',
    'refuse',
    '--link',
    'telemetry',
    '--condition',
    'amqp:internal-error',
    '--times',
    'always',
  );
  await using client = await connectDevice(hub, 'd');
  const sender = await openSender(await client.session(), '/devices/d/messages/events');
  expect(await send(sender, {})).toEqual({ outcome: 'rejected', condition: 'amqp:internal-error' });
  expect((await run('ctl', 'faults')).out).toContain('amqp:internal-error');
  await run('ctl', 'clear');
  expect(await send(sender, {})).toEqual({ outcome: 'accepted' });
  const detached = happens(sender, 'sender_error');
  expect(
    (await run('ctl', 'now', 'detach', '--link', 'telemetry', '--condition', 'amqp:link:detach-forced')).out,
  ).toBe('{"hit":1}\n');
  await detached;
});

test('jumps the clock, and keeps devices', async () => {
  const before = hub.now();
  await run('ctl', 'jump', '1h');
  expect(hub.now() - before).toBeGreaterThanOrEqual(3_600_000);
  await run('ctl', 'add', 'x y'.replace(' ', '-'));
  await run('ctl', 'disable', 'x-y');
  expect(hub.device('x-y').status).toBe('disabled');
  await run('ctl', 'remove', 'x-y');
  expect(await run('ctl', 'enable', 'x-y')).toMatchObject({ code: 67 });
});

test('refuses what is no fault', async () => {
  expect(await run('ctl', 'fault', 'sometime', 'drop')).toMatchObject({ code: 64 });
  expect(await run('ctl', 'fault', 'transfer', 'delay')).toMatchObject({ code: 64 });
  expect(await run('ctl', 'fault', 'transfer', 'drop', '--link', 'chain')).toMatchObject({ code: 65 });
});

test('answers no browser', async () => {
  const post = (headers: Record<string, string>) =>
    fetch(new URL('/v1/clock', url), { method: 'POST', headers, body: '{"jumpMs":1}' });
  expect((await post({ 'content-type': 'text/plain' })).status).toBe(415);
  const { request } = await import('node:http');
  const rebound = request(new URL('/health', url), { headers: { host: 'evil.example' } }).end();
  const [response] = (await once(rebound, 'response')) as [{ statusCode: number; resume: () => void }];
  response.resume();
  expect(response.statusCode).toBe(403);
});

async function run(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const child = spawn(process.execPath, [bin, ...args], {
    env: { ...process.env, IOTHUB_EMULATOR_URL: url },
  });
  let out = '';
  let err = '';
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()));
  const [code] = (await once(child, 'close')) as [number];
  return { code, out, err };
}
