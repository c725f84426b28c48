import { describe, expect, test } from 'vitest';

import { parseProxy, proxyFromEnvironment } from '../../src/cli/proxy.js';
import { HttpConnectProxy } from '../amqp/http-proxy.js';
import { device, startHub } from '../amqp/hub.js';
import { environmentOf, Folder, runTool } from './tool.js';

describe('the URL of a proxy', () => {
  test.each([
    ['http://proxy.example:3128', { host: 'proxy.example', port: 3128, tls: false }],
    ['proxy.example:3128', { host: 'proxy.example', port: 3128, tls: false }],
    ['proxy.example', { host: 'proxy.example', port: 80, tls: false }],
    ['https://proxy.example', { host: 'proxy.example', port: 443, tls: true }],
    ['http://[::1]:8080/', { host: '::1', port: 8080, tls: false }],
  ])('%s', (text, expected) => {
    expect(parseProxy(text, '--proxy')).toEqual(expected);
  });

  test('may have a user name and a password, which are told to nobody', () => {
    const proxy = parseProxy('http://plant%207:p%40ss@proxy.example:3128', 'HTTPS_PROXY');
    expect(proxy.authorization!.reveal()).toBe(`Basic ${Buffer.from('plant 7:p@ss').toString('base64')}`);
    expect(JSON.stringify(proxy)).not.toContain('p@ss');
  });

  test.each([
    ['socks5://proxy.example:1080', 'HTTPS_PROXY names a socks5 proxy, and only http and https are known'],
    ['http://user:pa:ss/word@proxy', 'HTTPS_PROXY is not the URL of a proxy'],
    ['http://user:%zz@proxy:3128', 'HTTPS_PROXY is not the URL of a proxy'],
  ])('%s is refused, without its password', (text, message) => {
    expect(() => parseProxy(text, 'HTTPS_PROXY')).toThrow(
      expect.objectContaining({ code: 'config', message }) as Error,
    );
  });
});

describe('the proxy of the environment', () => {
  const found = (env: Record<string, string>, host = 'hub.azure-devices.net', port = 443) =>
    proxyFromEnvironment(env, host, port)?.host;

  test('is https_proxy, then all_proxy, in capitals too; http_proxy is for something else', () => {
    expect(found({ HTTPS_PROXY: 'http://a' })).toBe('a');
    expect(found({ https_proxy: 'http://b', HTTPS_PROXY: 'http://a' })).toBe('b');
    expect(found({ ALL_PROXY: 'http://c' })).toBe('c');
    expect(found({ http_proxy: 'http://d' })).toBeUndefined();
    expect(found({ HTTPS_PROXY: '' })).toBeUndefined();
  });

  test('is not for this machine', () => {
    for (const host of ['localhost', 'x.localhost', '127.0.0.1', '127.3.2.1', '[::1]']) {
      expect(found({ HTTPS_PROXY: 'http://a' }, host), host).toBeUndefined();
    }
  });

  test.each([
    ['azure-devices.net', true],
    ['.azure-devices.net', true],
    ['*.azure-devices.net', true],
    ['devices.net', false],
    ['HUB.azure-devices.net.', true],
    ['hub.azure-devices.net:443', true],
    ['hub.azure-devices.net:5671', false],
    ['example.com, azure-devices.net', true],
    ['example.com azure-devices.net', true],
    ['*', true],
    ['', false],
    [',', false],
  ])('NO_PROXY=%s', (list, excluded) => {
    expect(found({ HTTPS_PROXY: 'http://a', NO_PROXY: list })).toBe(excluded ? undefined : 'a');
    expect(found({ HTTPS_PROXY: 'http://a', no_proxy: list })).toBe(excluded ? undefined : 'a');
  });

  test.each([
    ['10.1.2.3', '10.1.2.3', true],
    ['10.1.2.3', '10.0.0.0/8', true],
    ['10.1.2.3', '10.2.0.0/16', false],
    ['10.1.2.3', '10.1.2.3:443', true],
    ['10.1.2.3', '1.2.3', false],
    ['10.1.2.3', '10.1.2.3/99', false],
    ['[fd00::1]', 'fd00::/8', true],
    ['[fd00::1]', '[fd00::1]:443', true],
    ['[fd00::1]', '10.0.0.0/8', false],
  ])('the address %s and NO_PROXY=%s', (host, list, excluded) => {
    expect(found({ HTTPS_PROXY: 'http://a', NO_PROXY: list }, host)).toBe(excluded ? undefined : 'a');
  });
});

/** A hub with a WebSocket, and tools that know its port. */
async function setUp() {
  const hub = await startHub({ httpsPort: 0 });
  const folder = await Folder.make();
  const env = {
    ...(await environmentOf(hub, device, folder)),
    IOTHUB_DEVICE_HTTPS_PORT: String(hub.httpsPort),
    IOTHUB_SERVICE_HTTPS_PORT: String(hub.httpsPort),
  };
  return {
    ...{ hub, folder, env },
    send: (args: readonly string[], more: Record<string, string> = {}) =>
      runTool('iothub-device', ['send', '--data', 'x', ...args], { env: { ...env, ...more } }),
    service: (args: readonly string[], more: Record<string, string> = {}) =>
      runTool('iothub-service', args, { env: { ...env, ...more } }),
    transports: () => hub.record.of('connected').map(({ transport }) => transport),
    async [Symbol.asyncDispose]() {
      await hub[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

test('--transport says the way; where nothing is said and 5671 is closed, it is found, and said', async () => {
  await using it = await setUp();
  for (const transport of ['amqp', 'amqp-ws', 'auto']) {
    expect(await it.send(['--transport', transport])).toMatchObject({ code: 0, err: '' });
  }
  expect(it.transports()).toEqual(['tls', 'websocket', 'tls']);

  const closed = it.hub.deviceConnectionString(device).replace(`:${String(it.hub.port)}`, ':1');
  const moved = { IOTHUB_DEVICE_CONNECTION_STRING: closed };
  const { code, err } = await it.send([], moved);
  expect(code, err).toBe(0);
  expect(err).toMatch(
    /^\S+ warn {2}AMQP does not get through on its own port; it goes inside of a WebSocket /,
  );
  expect(err.match(/\n/g)).toHaveLength(1);
  expect(it.transports().at(-1)).toBe('websocket');
  expect((await it.send(['--transport', 'amqp'], moved)).code).toBe(69);
});

test('a proxy that is named carries AMQP and REST, for both tools', async () => {
  await using it = await setUp();
  await using proxy = await HttpConnectProxy.start({ user: 'plant', password: 'secret-of-the-plant' });
  const url = `http://plant:secret-of-the-plant@localhost:${String(proxy.port)}`;
  const config = await it.folder.write('agent.toml', `[hub]\nproxy = { file = "proxy-url" }\n`);
  await it.folder.write('proxy-url', `${url}\n`);
  const through = `localhost:${String(it.hub.httpsPort)}`;

  expect(await it.send([], { IOTHUB_DEVICE_PROXY: url })).toMatchObject({ code: 0, err: '' });
  expect(await it.send(['--config', config])).toMatchObject({ code: 0, err: '' });
  expect(proxy.asked).toEqual([through, through]);

  const service = { IOTHUB_SERVICE_PROXY: url };
  expect(await it.service(['device', 'list', '-o', 'json'], service)).toMatchObject({ code: 0 });
  expect(await it.service(['send', device, '--data', 'x'], service)).toMatchObject({ code: 0, err: '' });
  expect(proxy.asked).toHaveLength(4);
  expect(new Set(it.transports())).toEqual(new Set(['websocket']));

  const refused = await it.send(['--proxy', `localhost:${String(proxy.port)}`, '-vv']);
  expect(refused.code).toBe(77);
  expect(refused.err).toContain('wants a user name and a password (407 Proxy Authentication Required)');
  expect(refused.out + refused.err).not.toContain('secret-of-the-plant');
});

test('the service tool checks the way that it takes', async () => {
  await using it = await setUp();
  await using proxy = await HttpConnectProxy.start();
  const through = await it.service(['check', '-o', 'json', '--proxy', `localhost:${String(proxy.port)}`]);
  expect(through.code, through.out).toBe(0);
  expect(through.out).toContain('that is the proxy, which looks up the hub');
  expect(new Set(it.transports())).toEqual(new Set(['websocket']));
  const closed = it.hub.serviceConnectionString().replace(`:${String(it.hub.port)}`, ':1');
  const moved = await it.service(['check', '-o', 'json'], { IOTHUB_SERVICE_CONNECTION_STRING: closed });
  expect(moved.code, moved.out).toBe(0);
  expect(moved.out).toMatch(
    /"warn","detail":"localhost:1 refused the connection \(ECONNREFUSED\)","hint":"so AMQP has to go inside of a WebSocket/,
  );
});

test('telemetry is read over WebSocket too', async () => {
  await using it = await setUp();
  await it.send([]);
  const { code, out, err } = await it.service([
    'monitor',
    '-t',
    'amqp-ws',
    '--from',
    'start',
    '-n',
    '1',
    '-o',
    'json',
  ]);
  expect(code, err).toBe(0);
  expect(JSON.parse(out)).toMatchObject({ hub: { deviceId: device } });
  expect(
    it
      .transports()
      .slice(1)
      .every((transport) => transport === 'websocket'),
  ).toBe(true);
});

test('what cannot be is refused: a proxy for plain AMQP, a password that others can see', async () => {
  await using it = await setUp();
  const plain = await it.send(['--transport', 'amqp', '--proxy', 'http://proxy.example:3128']);
  expect(plain.code).toBe(64);
  expect(plain.err).toMatch(
    /a proxy is named, and the transport is amqp\n[^]*port 5671[^]*--transport amqp-ws/,
  );
  const config = await it.folder.write(
    'agent.toml',
    '[hub]\ntransport = "amqp"\nproxy = "http://p:1"\n',
    0o600,
  );
  const configured = await it.send(['--config', config]);
  expect(configured.code).toBe(78);
  expect(configured.err).toContain('agent.toml:3:1: hub.proxy: it is for WebSocket, and transport is "amqp"');
  const seen = await it.send(['--proxy', 'http://me:hidden-word@proxy.example:3128']);
  expect(seen.code).toBe(64);
  expect(seen.err).toContain('a password on the command line can be seen by others');
  expect(seen.err).not.toContain('hidden-word');
  // The environment names it for whoever can use it.
  expect(await it.send(['-t', 'amqp'], { HTTPS_PROXY: 'http://proxy.example:3128' })).toMatchObject({
    code: 0,
  });
});
