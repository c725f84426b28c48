import { execFile } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { createServer, connect, type AddressInfo } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { describe, expect, test } from 'vitest';

import { device } from '../amqp/hub.js';
import { parseConfig } from '../../src/daemon/config.js';
import { runTool } from '../cli/tool.js';
import { startAgent, type ControlledAgent } from './agent-kit.js';
import { lint, readExposition, type Family } from './exposition.js';

const listening = '[metrics]\nlisten = "127.0.0.1:0"\n';

/** Where the metrics of a running agent are. */
async function urlOf({ agent }: ControlledAgent): Promise<string> {
  await agent.says(/metrics are served/);
  return /url=(http:\S+)\/metrics/.exec(agent.err)![1]!;
}

async function families(url: string): Promise<Map<string, Family>> {
  const response = await fetch(`${url}/metrics`);
  expect([response.status, response.headers.get('content-type')]).toEqual([
    200,
    'text/plain; version=0.0.4; charset=utf-8',
  ]);
  return readExposition(await response.text());
}

/** The value of the one sample whose labels are like these; undefined when there is none. */
function valueOf(
  all: Map<string, Family>,
  name: string,
  labels: Record<string, string> = {},
): number | undefined {
  const family = all.get(`iothub_device_${name}`) ?? all.get(`iothub_device_${name.replace(/_count$/, '')}`);
  return family?.samples.find(
    (sample) =>
      sample.name === `iothub_device_${name}` &&
      Object.entries(labels).every(([key, value]) => sample.labels[key] === value),
  )?.value;
}

describe('/metrics', () => {
  test('counts telemetry, commands, runs of handlers, connections and the disk', async () => {
    await using it = await startAgent({
      config: `${listening}[[handlers]]\nname = "restart"\nexec = ["./handler"]\n`,
    });
    const url = await urlOf(it);
    await it.folder.script('handler', '[ "$(cat)" = good ] || exit 65');
    const before = await families(url);
    expect([
      valueOf(before, 'connected'),
      valueOf(before, 'state', { state: 'online' }),
      valueOf(before, 'state', { state: 'waiting' }),
      valueOf(before, 'connections_total'),
      valueOf(before, 'connection_losses_total', { reason: 'unavailable' }),
      valueOf(before, 'telemetry_sent_total'),
      valueOf(before, 'spool_limit_bytes'),
    ]).toEqual([1, 1, 0, 1, 0, 0, 256 * 1024 * 1024]);
    expect(before.get('iothub_device_info')?.samples[0]?.labels).toMatchObject({
      device_id: device,
      hub: it.hub.hostName,
    });

    it.hub.faults.add({
      at: 'transfer',
      link: 'telemetry',
      do: { act: 'answer', outcome: 'rejected', condition: 'amqp:link:message-size-exceeded' },
    });
    await it.curl('/v1/telemetry?wait=hub', '-d', 'refused');
    for (let n = 0; n < 3; n++) await it.curl('/v1/telemetry?wait=hub', '-d', 'x');
    for (const body of ['good', 'bad']) it.hub.sendCommand({ deviceId: device, messageId: body, body });
    await it.hub.waitFor((record) => record.of('outcome').length === 2, { timeoutMs: 20_000 });
    it.hub.faults.now({ act: 'drop' });
    await it.hub.waitFor((record) => record.of('connected').length === 2, { timeoutMs: 20_000 });
    await expect.poll(async () => valueOf(await families(url), 'connections_total')).toBe(2);

    const after = await families(url);
    const expected = {
      telemetry_kept_total: 4,
      telemetry_sent_total: 3,
      telemetry_rejected_total: 1,
      spool_dead_letters: 1,
      spool_messages: 0,
    };
    const names = Object.keys(expected);
    expect(Object.fromEntries(names.map((name) => [name, valueOf(after, name)]))).toEqual(expected);
    expect(valueOf(after, 'telemetry_sent_bytes_total')).toBeGreaterThan(3);
    expect(valueOf(after, 'commands_total', { outcome: 'accept', from: 'handler' })).toBe(1);
    expect(valueOf(after, 'commands_total', { outcome: 'reject', from: 'handler' })).toBe(1);
    const run = { handler: 'restart', on: 'command' };
    expect(valueOf(after, 'handler_duration_seconds_count', { ...run, result: 'accept' })).toBe(1);
    expect(valueOf(after, 'handler_duration_seconds_count', { ...run, result: 'reject' })).toBe(1);
    expect(valueOf(after, 'handler_healthy', run)).toBe(1);
    expect(valueOf(after, 'connection_losses_total', { reason: 'unavailable' })).toBe(1);
    expect(valueOf(after, 'store_sync_duration_seconds_count')).toBeGreaterThan(5);
    expect(valueOf(after, 'token_expiry_timestamp_seconds')).toBeGreaterThan(Date.now() / 1000 + 3_000);
  });

  test('tells why it is offline, what waits, and what was dropped and refused', async () => {
    await using it = await startAgent({
      online: false,
      config: `${listening}[spool]\nmax_size = "1MiB"\nwhen_full = "drop_oldest"\n`,
    });
    const url = await urlOf(it);
    const body = await it.folder.write('body', Buffer.alloc(200 * 1024, 'x'));
    for (let n = 0; n < 8; n++) await it.curl('/v1/telemetry', '--data-binary', `@${body}`);
    await it.folder.write('agent.toml', 'nonsense');
    await it.curl('/v1/reload', '-X', 'POST');
    const all = await families(url);
    expect(valueOf(all, 'connected')).toBe(0);
    expect(valueOf(all, 'state', { state: 'waiting' })).toBe(1);
    expect(valueOf(all, 'connection_failures_total', { reason: 'refused' })).toBe(1);
    expect(valueOf(all, 'spool_messages')).toBeLessThan(8);
    expect(valueOf(all, 'spool_bytes')).toBeGreaterThan(400_000);
    expect(valueOf(all, 'spool_oldest_age_seconds')).toBeGreaterThan(0);
    expect(valueOf(all, 'telemetry_dropped_total', { reason: 'oldest' })).toBe(
      8 - valueOf(all, 'spool_messages')!,
    );
    expect(valueOf(all, 'config_reloads_total', { result: 'refused' })).toBe(1);
  });

  test('is an exposition by the book, and every name is on the page', async () => {
    await using it = await startAgent({ config: listening });
    const url = await urlOf(it);
    const text = await (await fetch(`${url}/metrics`)).text();
    const ours = [...readExposition(text).values()].filter(({ name }) => name.startsWith('iothub_'));
    expect(ours.length).toBeGreaterThan(25);
    expect(ours.flatMap(lint)).toEqual([]);
    const page = readFileSync(join(import.meta.dirname, '../../docs/operations.md'), 'utf8');
    expect(ours.map(({ name }) => name).filter((name) => !page.includes(`\`${name}\``))).toEqual([]);
    // Prometheus' own judge, where it is installed (Debian: prometheus).
    const promtool = ['/usr/bin/promtool', process.env['PROMTOOL'] ?? ''].find(existsSync);
    if (promtool === undefined) return;
    const own = text.replaceAll(/^(# (HELP|TYPE) )?(nodejs|process)_.*\n/gm, '');
    const checked = promisify(execFile)(promtool, ['check', 'metrics']);
    checked.child.stdin?.end(own);
    expect((await checked).stderr).toBe('');
  });
});

describe('/healthz and /readyz', () => {
  test('an agent that is offline is healthy and ready: it takes telemetry', async () => {
    await using it = await startAgent({ online: false, config: listening });
    const url = await urlOf(it);
    const [health, ready] = await Promise.all([fetch(`${url}/healthz`), fetch(`${url}/readyz`)]);
    expect([health.status, await health.json()]).toEqual([
      200,
      { healthy: true, state: 'waiting', stuck: [] },
    ]);
    expect([ready.status, await ready.json()]).toEqual([200, { ready: true, state: 'waiting' }]);
  });

  test('one that stops is not ready any more', async () => {
    await using it = await startAgent({
      config: `${listening}[[handlers]]\nexec = ["./handler"]\n`,
    });
    const url = await urlOf(it);
    await it.folder.script(
      'handler',
      `trap '' TERM; cat >/dev/null; : > started; while [ ! -e over ]; do sleep 0.1; done`,
    );
    it.hub.sendCommand({ deviceId: device, messageId: 'c1', body: 'go' });
    await it.folder.has('started');
    it.agent.kill('SIGTERM');
    await it.agent.says(/stopping/);
    const ready = await fetch(`${url}/readyz`);
    expect([ready.status, await ready.json()]).toEqual([503, { ready: false, state: 'draining' }]);
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
    await it.folder.write('over', '');
    expect(await it.agent.ended()).toMatchObject({ code: 0 });
  });
});

describe('the listener', () => {
  test('is read only: there is nothing else, and nothing takes a body', async () => {
    await using it = await startAgent({ config: listening });
    const url = await urlOf(it);
    expect((await fetch(`${url}/v1/status`)).status).toBe(404);
    expect((await fetch(`${url}/metrics`, { method: 'POST', body: 'x' })).status).toBe(405);
    expect((await fetch(`${url}/metrics`)).status).toBe(200);
  });

  test('keeps serving while two hundred clients say nothing', async () => {
    await using it = await startAgent({ config: listening });
    const url = new URL(await urlOf(it));
    const idle = Array.from({ length: 200 }, () => connect(Number(url.port), url.hostname));
    for (const socket of idle) socket.on('error', () => undefined);
    await Promise.all(idle.map((socket) => once(socket, 'connect').catch(() => undefined)));
    expect((await fetch(`${url.origin}/metrics`)).status).toBe(200);
    const open = readdirSync(`/proc/${it.agent.pid}/fd`).length;
    expect(open).toBeLessThan(100);
    for (const socket of idle) socket.destroy();
  });

  test('on a port that is taken is said, and nothing is left half open', async () => {
    await using it = await startAgent();
    it.agent.kill('SIGTERM');
    await it.agent.ended();
    const other = createServer().listen(0, '127.0.0.1');
    await once(other, 'listening');
    const { port } = other.address() as AddressInfo;
    await it.folder.write('agent.toml', `[metrics]\nlisten = "127.0.0.1:${port}"\n`);
    const { code, err } = await runTool('iothub-device', ['run'], { env: it.env, cwd: it.folder.path });
    other.close();
    expect([code, err]).toEqual([75, expect.stringContaining(`cannot serve metrics on 127.0.0.1:${port}`)]);
  });

  test.each(['9464', ':9464', 'example.com:9464', '127.0.0.1', '::1:9464', '127.0.0.1:99999'])(
    'needs an address of this machine and a port, and "%s" is none',
    (listen) => {
      expect(() => parseConfig(`[metrics]\nlisten = "${listen}"\n`, '/etc/agent.toml')).toThrow(
        'metrics.listen: write an address and a port as "127.0.0.1:9464"',
      );
    },
  );

  test.each([
    ['127.0.0.1:9464', '127.0.0.1'],
    ['[::1]:9464', '::1'],
    ['localhost:9464', 'localhost'],
    ['0.0.0.0:9464', '0.0.0.0'],
  ])('takes %s', (listen, host) => {
    const { metrics } = parseConfig(`[metrics]\nlisten = "${listen}"\n`, '/etc/agent.toml');
    expect(metrics.listen).toEqual({ host, port: 9464 });
  });
});

test('what counts is loaded only where something listens', () => {
  const src = join(import.meta.dirname, '../../src');
  const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter((file) =>
    file.endsWith('.ts'),
  );
  const importing = (what: RegExp) =>
    files.filter((file) => what.test(readFileSync(join(src, file), 'utf8')));
  expect(importing(/from 'prom-client'/)).toEqual(['daemon/metrics.ts']);
  expect(importing(/^import (?!type).*\/metrics\.js'/m)).toEqual([]);
});
