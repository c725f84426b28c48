import { execFile, spawnSync } from 'node:child_process';
import { readFile, stat } from 'node:fs/promises';
import { createServer as createHttpsServer } from 'node:https';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test, vi } from 'vitest';

import { makeCertificate } from '../../src/emulator/certificates.js';
import type { Emulator } from '../../src/emulator/emulator.js';
import { HttpConnectProxy } from '../amqp/http-proxy.js';
import { device } from '../amqp/hub.js';
import { jsonLines, startAgent } from '../daemon/agent-kit.js';
import { brokenSetUps, closedPort, movedTo, setUp } from './broken-set-ups.js';
import { runTool, ToolProcess } from './tool.js';

interface Line {
  check: string;
  result: 'ok' | 'warn' | 'failed' | 'skipped';
  detail?: string;
  code?: string;
  error?: string;
  hint?: string;
  facts?: Record<string, unknown>;
}

/** Runs it as a process; the lines, and in one text all that is said about each check. */
async function check(env: Record<string, string>, ...args: string[]) {
  const { code, out, err } = await runTool('iothub-device', ['check', '-o', 'json', ...args], { env });
  return { code, err, out, lines: jsonLines(out) as unknown as Line[] };
}

const about = (lines: readonly Line[], name: string): string => {
  const line = lines.find((one) => one.check === name);
  return [line?.result, line?.detail, line?.error, line?.hint].filter(Boolean).join('\n');
};
const withResult = (lines: readonly Line[], result: Line['result']): string[] =>
  lines.filter((line) => line.result === result).map((line) => line.check);

/** Every check, in the order in which they are made. The names are a promise. */
const names = [
  ...['config', 'identity', 'agent', 'dns', 'tcp', 'proxy', 'https', 'clock', 'tls'],
  ...['amqp', 'token', 'telemetry', 'commands', 'message-size', 'spool', 'handlers'],
];

test('everything in order: each check says what it found, exit 0', async () => {
  await using it = await setUp();
  const { code, err, lines } = await check(it.env);
  expect(lines.map((line) => line.check)).toEqual(names);
  expect([withResult(lines, 'ok'), err, code]).toEqual([names, '', 0]);
  expect(about(lines, 'identity')).toContain(`${device} on localhost:${String(it.hub.port)}, with a key`);
  expect(about(lines, 'tls')).toMatch(
    /TLS 1\.3, "localhost" until .* signed by "iothub-emulator CA" \(trusted: --ca\)/,
  );
  expect(about(lines, 'clock')).toBe('ok\nagrees with that of the hub');
  expect(lines.find((line) => line.check === 'telemetry')?.facts).toMatchObject({ credit: 1000 });
  // Nothing is left behind on disk or at the hub.
  await expect(stat(join(it.folder.path, 'state'))).rejects.toThrow('ENOENT');
  await vi.waitFor(() => {
    expect(it.hub.connections).toEqual([]);
  });
});

describe.concurrent('a broken set-up is named', () => {
  test.each(brokenSetUps)('$what: exit $check.exits', async ({ breaks, check: { fails, says, exits } }) => {
    await using it = await setUp();
    const { code, out, lines } = await check(await breaks(it));
    expect(withResult(lines, 'failed')).toEqual(fails);
    expect(about(lines, fails[0]!)).toMatch(says);
    expect(code).toBe(exits);
    // Those that need it are not tried; all are named, whatever has failed; and no key is in it.
    expect(lines.map((line) => line.check)).toEqual(names);
    expect(out).not.toMatch(/SharedAccessKey|sig=/);
  });
});

const inNamespace = ['--map-root-user', '--mount'];
const canMount = spawnSync('unshare', [...inNamespace, 'mount', '-t', 'tmpfs', 'none', '/mnt']).status === 0;

describe.skipIf(!canMount)('on a disk of its own', () => {
  /** In a mount namespace with a small file system on /mnt, after `script`. */
  async function checkOn(size: string, script: string, env: Record<string, string>) {
    const tool = join(import.meta.dirname, '../../bin/iothub-device.js');
    const { stdout } = await promisify(execFile)(
      'unshare',
      [
        ...inNamespace,
        'sh',
        '-c',
        `mount -t tmpfs -o size=${size},mode=700 none /mnt; ${script}
         "$0" --use-openssl-ca "$1" check -o json; echo "{\\"exit\\":$?}"`,
        process.execPath,
        tool,
      ],
      { env: { PATH: process.env['PATH'], ...env, XDG_STATE_HOME: '/mnt' } },
    );
    const lines = jsonLines(stdout);
    return { code: lines.pop()?.['exit'], lines: lines as unknown as Line[] };
  }

  test('the disk is full: exit 74', async () => {
    await using it = await setUp();
    const { code, lines } = await checkOn('4m', 'head -c 8m /dev/zero > /mnt/fill 2>&1 | true', it.env);
    expect(withResult(lines, 'failed')).toEqual(['spool']);
    expect(about(lines, 'spool')).toMatch(/the disk is full: 0 B free in \/mnt\b[^]*make room there/);
    expect(code).toBe(74);
  });

  test('a spool that may outgrow its disk: a warning, with how much it may', async () => {
    await using it = await setUp();
    const queue = '"$0" --use-openssl-ca "$1" send --queue --data x -o none';
    const { code, lines } = await checkOn('20m', queue, it.env);
    expect(about(lines, 'spool')).toMatch(
      /^warn\n.*: 1 waiting, 0 rejected; \d+ MiB free\n.* 256 MiB \(max_size/,
    );
    expect(code).toBe(0);
  });
});

describe('where port 5671 is shut', () => {
  test('AMQP goes inside of a WebSocket: a warning, and all else is checked on that way', async () => {
    await using it = await setUp();
    const { code, lines } = await check(movedTo(it.env, `localhost:${String(await closedPort(it))}`));
    expect(about(lines, 'tcp')).toMatch(/^warn\n.*ECONNREFUSED[^]*inside of a WebSocket, by port \d+/);
    expect([withResult(lines, 'warn'), withResult(lines, 'failed'), code]).toEqual([['tcp'], [], 0]);
    expect(it.hub.record.of('telemetry')).toEqual([]);
  });

  test('and a captive portal answers to HTTPS: that is what is named', async () => {
    await using it = await setUp();
    const certificate = { commonName: 'portal', hostNames: ['portal'], usage: 'server' } as const;
    const { certificate: cert, key } = await makeCertificate({ ...certificate, now: Date.now() });
    const portal = createHttpsServer({ cert, key }, (_request, response) => {
      response.setHeader('content-type', 'text/html').end('<h1>Welcome to the airport</h1>');
    });
    const env = {
      ...movedTo(it.env, `localhost:${String(await closedPort(it))}`),
      IOTHUB_DEVICE_HTTPS_PORT: String(await it.serve(portal)),
    };
    const { code, lines } = await check(env);
    expect(about(lines, 'https')).toMatch(/no hub: a web page \(HTTP 200, text\/html\)[^]*captive portal/);
    // Its clock is nobody's business.
    expect([withResult(lines, 'failed'), about(lines, 'clock')]).toEqual([['https', 'tls'], 'skipped']);
    expect(code).toBe(76);
  });

  test('a proxy that lets us through is named, and its password is not', async () => {
    await using it = await setUp();
    await using proxy = await HttpConnectProxy.start();
    const env = {
      ...it.env,
      IOTHUB_DEVICE_PROXY: `http://ada:s3cret-Passw0rd@127.0.0.1:${String(proxy.port)}`,
    };
    const { code, out, lines } = await check(env);
    expect([withResult(lines, 'ok'), code]).toEqual([names, 0]);
    expect(about(lines, 'proxy')).toMatch(/^ok\nhttp:\/\/127\.0\.0\.1:\d+ lets us through to port \d+$/);
    expect(out).not.toContain('s3cret');
  });

  test('a proxy that is not there', async () => {
    await using it = await setUp();
    const env = { ...it.env, IOTHUB_DEVICE_PROXY: `http://127.0.0.1:${String(await closedPort(it))}` };
    const { code, lines } = await check(env);
    expect(about(lines, 'proxy')).toMatch(/the proxy .* refused the connection[^]*HTTPS_PROXY/);
    expect([withResult(lines, 'failed')[0], code]).toEqual(['proxy', 69]);
  });
});

describe('beside a running agent', () => {
  const hubOptions = { httpsPort: 0 };
  const withHttps = ({ env, hub }: { env: Record<string, string>; hub: Emulator }) => ({
    ...env,
    IOTHUB_DEVICE_HTTPS_PORT: String(hub.httpsPort),
  });

  test('its connection stays; --force takes it', async () => {
    await using it = await startAgent({ hubOptions });
    const env = withHttps(it);
    const first = await check(env);
    expect(first.code).toBe(0);
    expect(about(first.lines, 'agent')).toContain(`ok\nprocess ${String(it.agent.pid)} is online since `);
    expect(withResult(first.lines, 'skipped')).toEqual(['token', 'telemetry', 'commands', 'message-size']);
    expect(about(first.lines, 'token')).toMatch(/a second login would put it offline\n--force/);
    expect(about(first.lines, 'spool')).toMatch(
      new RegExp(`in use by process ${String(it.agent.pid)}, .*: 0 waiting, 0 rejected; \\d+ .iB free$`),
    );
    expect(it.agent.err).not.toContain('offline');

    const forced = await check(env, '--force');
    expect([forced.code, withResult(forced.lines, 'ok')]).toEqual([0, names]);
    await it.agent.says(/offline .*used elsewhere/);
  });

  test('one that is not online: its own last error, and the exit code of that', async () => {
    await using it = await startAgent({ online: false, hubOptions });
    const { code, lines } = await check(withHttps(it));
    expect(withResult(lines, 'failed')).toEqual(['agent']);
    expect(about(lines, 'agent')).toMatch(
      /is not online: the hub refused the token .*disabled[^]*the next try is at/,
    );
    expect(code).toBe(77);
  });

  test('one that has no control socket is known by its store, whose lock is left alone', async () => {
    await using it = await startAgent({ hubOptions });
    await it.folder.write('agent.toml', '[control]\nsocket = ""\n');
    await it.restart();
    const { code, lines } = await check(withHttps(it));
    expect(about(lines, 'agent')).toMatch(new RegExp(`^warn\nprocess ${String(it.agent.pid)} has the store`));
    expect(withResult(lines, 'skipped')).toEqual(['token', 'telemetry', 'commands', 'message-size']);
    expect(code).toBe(0);
    expect(it.agent.err).not.toContain('offline');
  });
});

test('a configuration with a mistake: every problem of it, and nothing is tried', async () => {
  await using it = await setUp();
  const file = await it.folder.write('agent.toml', '[hub]\ntoken_tll = "1h"\n[log]\nlevel = "loud"\n');
  const { code, lines } = await check(it.env, '--config', file);
  expect(about(lines, 'config')).toMatch(
    /2 problems[^]*:2:1: hub\.token_tll: .*did you mean "token_ttl"[^]*:4:/,
  );
  expect(withResult(lines, 'skipped')).toEqual(names.slice(1));
  expect(code).toBe(78);
});

test('a handler that cannot be started is named, with why', async () => {
  await using it = await setUp();
  const handlers =
    '[[handlers]]\nname = "good"\nexec = ["/bin/true"]\n[[handlers]]\nname = "gone"\nexec = ["/no/such"]\n';
  const { code, lines } = await check(it.env, '--config', await it.folder.write('agent.toml', handlers));
  expect(about(lines, 'handlers')).toMatch(/1 of 2 cannot be run\ngone: .*\/no\/such/);
  expect([withResult(lines, 'failed'), code]).toEqual([['handlers'], 78]);
});

test('an authority that is not there: the file is named, exit 66', async () => {
  await using it = await setUp();
  const { code, lines } = await check({ ...it.env, IOTHUB_DEVICE_CA: '/no/such/ca.pem' });
  expect(about(lines, 'identity')).toMatch(/\/no\/such\/ca\.pem: there is no such file/);
  expect(code).toBe(66);
});

test('Ctrl-C ends it at once: exit 130', async () => {
  await using it = await setUp();
  const port = await it.serve(createServer((socket) => socket.on('error', () => undefined).resume()));
  const env = movedTo(it.env, `localhost:${String(port)}`);
  await using tool = new ToolProcess('iothub-device', ['check', '-o', 'text'], { env });
  await tool.says(/clock/);
  tool.kill('SIGINT');
  expect((await tool.ended()).code).toBe(130);
  expect(tool.out).not.toContain('amqp');
});

test('a ready-made token that has run out never gets to the hub', async () => {
  await using it = await setUp();
  const past = String(Math.floor(Date.now() / 1000) - 60);
  const token = `SharedAccessSignature sr=localhost%2Fdevices%2F${device}&sig=${encodeURIComponent('c2VjcmV0IHNpZ25hdHVyZQ==')}&se=${past}`;
  const text = `HostName=localhost:${String(it.hub.port)};DeviceId=${device};SharedAccessSignature=${token}`;
  const { code, out, lines } = await check({ ...it.env, IOTHUB_DEVICE_CONNECTION_STRING: text });
  expect(about(lines, 'identity')).toMatch(/the token expired at/);
  expect(code).toBe(77);
  expect(out).not.toContain('c2VjcmV0');
});

test('--timeout bounds the whole of it, and what was not tried says so', async () => {
  await using it = await setUp();
  const port = await it.serve(createServer((socket) => socket.on('error', () => undefined).resume()));
  const { code, lines } = await check(movedTo(it.env, `localhost:${String(port)}`), '--timeout', '2s');
  expect(about(lines, 'tls')).toMatch(/no answer within the time that --timeout gives/);
  expect(about(lines, 'handlers')).toMatch(/no time left/);
  expect(lines.map((line) => line.check)).toEqual(names);
  expect(code).toBe(69);
});

describe('--facts', () => {
  test('writes down what the hub answered, for its owner alone, without names and secrets', async () => {
    await using it = await setUp();
    const file = join(it.folder.path, 'facts.json');
    expect(await check(it.env, '--facts', file)).toMatchObject({ code: 0 });
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    const text = await readFile(file, 'utf8');
    const key = it.env['IOTHUB_DEVICE_CONNECTION_STRING']!.replace(/.*SharedAccessKey=/, '');
    for (const hidden of [device, 'localhost', key, 'SharedAccessSignature', it.folder.path]) {
      expect(text).not.toContain(hidden);
    }
    const facts = JSON.parse(text) as Record<string, unknown>;
    expect(facts).toMatchObject({
      v: 1,
      sasl: { offered: ['ANONYMOUS', 'MSSBCBS', 'PLAIN'] },
      open: {
        'container-id': expect.stringMatching(/^DeviceGateway_[0-9a-f]{32}$/) as unknown,
        'max-frame-size': 65_536,
        'channel-max': 8191,
        'idle-time-out': 240_000,
      },
      begin: { 'incoming-window': expect.any(Number) as unknown },
      links: {
        'telemetry link': {
          attach: {
            'max-message-size': 1_048_576,
            target: { is: 'target', address: '/devices/{device}/messages/events' },
          },
          firstCredit: 1000,
        },
        'command link': { attach: { source: { address: '/devices/{device}/messages/deviceBound' } } },
        '$cbs request link': { attach: { target: { address: '$cbs' } } },
      },
      redirect: null,
      putToken: { status: 200, description: 'OK' },
      tokenExpiry: { observed: false },
    });
    const frames = facts['frames'] as { from: string; frame: string }[];
    expect(frames.slice(0, 2).map(({ from, frame }) => `${from} ${frame}`)).toEqual([
      'device open',
      'hub open',
    ]);
  });

  test('--watch-expiry waits for what the hub does when the token runs out', async () => {
    await using it = await setUp();
    const file = join(it.folder.path, 'facts.json');
    const args = ['check', '-o', 'json', '--facts', file, '--watch-expiry', '1m'];
    await using tool = new ToolProcess('iothub-device', args, { env: it.env });
    await tool.says(/waiting for the hub to end the token/);
    it.hub.jumpClock(3_600_000);
    expect(await tool.finish()).toMatchObject({ code: 0 });
    const { tokenExpiry, errors } = JSON.parse(await readFile(file, 'utf8')) as Record<string, unknown>;
    expect(tokenExpiry).toMatchObject({
      observed: true,
      tokenLifeMs: 60_000,
      condition: 'amqp:unauthorized-access',
    });
    expect(errors).toMatchObject([{ condition: 'amqp:unauthorized-access' }]);
  });

  test('a file that cannot be written: exit 73', async () => {
    await using it = await setUp();
    const { code, err } = await check(it.env, '--facts', join(it.folder.path, 'no/such/place.json'));
    expect([code, err]).toEqual([73, expect.stringMatching(/^error: cannot write the facts/)]);
  });

  test('--watch-expiry without it: exit 64', async () => {
    await using it = await setUp();
    expect(await check(it.env, '--watch-expiry', '1m')).toMatchObject({ code: 64, out: '' });
  });
});

test('as text: a word, a name, what was found, and the cure below it; no colours but on a terminal', async () => {
  await using it = await setUp();
  it.hub.setDeviceStatus(device, 'disabled');
  const { out } = await runTool('iothub-device', ['check', '-o', 'text'], { env: it.env });
  expect(out).toMatch(/^ok {4}dns {11}localhost is .*127\.0\.0\.1/m);
  expect(out).toMatch(/^FAIL {2}token {9}the hub refused the token .*\n {20}enable the device at the hub$/m);
  expect(out).toMatch(/^- {5}commands {6}not tried: it needs token$/m);

  expect(out).not.toMatch(/\x1b/);
});

test('the page about operations shows and explains every check, in their order', async () => {
  const page = await readFile(join(import.meta.dirname, '../../docs/operations.md'), 'utf8');
  const [, shown = ''] = /```console\n\$ iothub-device check\n(.*?)```/s.exec(page) ?? [];
  expect([...shown.matchAll(/^(?:ok|warn|FAIL|-) +([a-z-]+) /gm)].map(([, name]) => name)).toEqual(names);
  const [, table = ''] = /^\| check .*\n\| -.*\n((?:\|.*\n)+)/m.exec(page) ?? [];
  expect([...table.matchAll(/^\| `([a-z-]+)`/gm)].map(([, name]) => name)).toEqual(names);
});

test('a device with a certificate: until when, and no token is needed', async () => {
  await using it = await setUp();
  const { certificate, key } = await it.hub.issueDeviceCertificate('dev-x509');
  it.hub.addDevice('dev-x509', { type: 'certificateAuthority' });
  const { code, lines } = await check({
    IOTHUB_DEVICE_CONNECTION_STRING: it.hub.deviceConnectionString('dev-x509'),
    IOTHUB_DEVICE_CERT: await it.folder.write('cert.pem', certificate),
    IOTHUB_DEVICE_KEY: await it.folder.write('key.pem', key),
    IOTHUB_DEVICE_CA: it.env['IOTHUB_DEVICE_CA']!,
    IOTHUB_DEVICE_HTTPS_PORT: it.env['IOTHUB_DEVICE_HTTPS_PORT']!,
    XDG_STATE_HOME: it.env['XDG_STATE_HOME']!,
  });
  expect(about(lines, 'identity')).toMatch(/with a certificate \(CN=dev-x509\) until \d{4}-\d\d-\d\d$/);
  expect(about(lines, 'token')).toMatch(/none is needed/);
  expect([withResult(lines, 'ok'), code]).toEqual([names, 0]);
});
