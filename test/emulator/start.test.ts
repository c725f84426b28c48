import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { expect, test } from 'vitest';

import { data, connectWith, openSender, sas, send } from './client.js';

const bin = join(import.meta.dirname, '../../bin/iothub-emulator.js');

test('start writes what clients need, prints each message, keeps its CA and ends with 0', async () => {
  await using dir = await scratch();
  const env = join(dir.path, 'hub.env');
  const args = [
    '--ports',
    'auto',
    '--device',
    'dev-01',
    '--state',
    join(dir.path, 'state'),
    '--write-env',
    env,
  ];
  const first = await start(args, env);
  const { IOTHUB_DEVICE_CONNECTION_STRING: device, IOTHUB_DEVICE_CA: caFile } = first.variables;
  const [, host, port, key] = /^HostName=(localhost:(\d+));DeviceId=dev-01;SharedAccessKey=(.*)$/.exec(
    device!,
  )!;
  const ca = readFileSync(caFile!, 'utf8');
  expect(statSync(join(dir.path, 'state')).mode & 0o777).toBe(0o700);
  expect(statSync(join(dir.path, 'state/ca.key')).mode & 0o777).toBe(0o600);
  expect(first.variables['NODE_EXTRA_CA_CERTS']).toBe(caFile);

  await using client = await connectWith({ port: Number(port), ca });
  const resource = `${host!}/devices/dev-01`;
  expect(await client.putToken(sas(resource, key!), resource)).toMatchObject({ status: 200 });
  const sender = await openSender(await client.session(), '/devices/dev-01/messages/events');
  const message = { message_id: 'm1', content_type: 'application/json', body: data('{"t":21.5}') };
  expect(await send(sender, message)).toEqual({ outcome: 'accepted' });
  expect(await first.line('telemetry')).toMatchObject({
    deviceId: 'dev-01',
    messageId: 'm1',
    body: { t: 21.5 },
    outcome: { outcome: 'accepted' },
  });
  expect(await first.stop()).toBe(0);

  await rm(env);
  const second = await start(args, env);
  expect(readFileSync(second.variables['IOTHUB_DEVICE_CA']!, 'utf8')).toBe(ca);
  expect(await second.stop()).toBe(0);
});

test('start refuses the well-known key beyond loopback', async () => {
  const child = spawn(process.execPath, [bin, 'start', '--ports', 'auto', '--host', '0.0.0.0']);
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
  const [code] = (await once(child, 'close')) as [number];
  expect(code).toBe(78);
  expect(said).toContain('well-known key');
});

async function start(args: readonly string[], env: string) {
  const child = spawn(process.execPath, [bin, 'start', '-o', 'json', ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(child, 'exit') as Promise<[number | null]>;
  const lines: Record<string, unknown>[] = [];
  const reader = createInterface(child.stdout);
  reader.on('line', (line) => lines.push(JSON.parse(line) as Record<string, unknown>));
  while (!existsSync(env) && child.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 20));
  const exports = readFileSync(env, 'utf8').matchAll(/^export (\w+)='(.*)'$/gm);
  return {
    variables: Object.fromEntries([...exports].map(([, name, value]) => [name!, value!])) as Record<
      string,
      string
    >,
    async line(event: string) {
      for (;;) {
        const found = lines.find((line) => line['event'] === event);
        if (found) return found;
        await once(reader, 'line', { signal: AbortSignal.timeout(10_000) });
      }
    },
    async stop() {
      child.kill('SIGTERM');
      return (await ended)[0];
    },
  };
}

async function scratch(): Promise<AsyncDisposable & { path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'emulator-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true }) };
}
