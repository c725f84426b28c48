import { createServer, type AddressInfo } from 'node:net';
import { once } from 'node:events';

import { describe, expect, test } from 'vitest';

import { device, startHub } from '../amqp/hub.js';
import { environmentOf, Folder, runTool, ToolProcess } from './tool.js';

/** A hub, a folder, and the environment that points at them. */
async function setUp(options: Parameters<typeof startHub>[0] = {}) {
  const hub = await startHub(options);
  const folder = await Folder.make();
  const env = await environmentOf(hub, device, folder);
  return {
    hub,
    folder,
    env,
    send: (args: readonly string[], input?: string | Buffer) =>
      runTool('iothub-device', ['send', ...args], { env, ...(input === undefined ? {} : { input }) }),
    async [Symbol.asyncDispose]() {
      await hub[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

const jsonLines = (text: string): Record<string, unknown>[] =>
  text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);

describe('one message', () => {
  test('is accepted: exit 0, the outcome on stdout, and the hub has it as it was given', async () => {
    await using it = await setUp();
    const { code, out, err } = await it.send(['--data', '{"t":21.5}', '--prop', 'room=a', '-o', 'text']);
    expect([code, err]).toEqual([0, '']);
    expect(out).toMatch(/^accepted +[0-9A-Z]{26} +\d+ ms\n$/);
    expect(it.hub.record.of('telemetry')).toMatchObject([
      {
        deviceId: device,
        contentType: 'application/json',
        contentEncoding: 'utf-8',
        properties: { room: 'a' },
        body: Buffer.from('{"t":21.5}'),
      },
    ]);
  });

  test('comes from a file or from standard input byte for byte', async () => {
    await using it = await setUp();
    const bytes = Buffer.from([0, 1, 2, 0xff, 0x0a, 0x0d, 0x0a]);
    const file = await it.folder.write('body.bin', bytes);
    expect((await it.send(['--data-file', file])).code).toBe(0);
    expect((await it.send(['--stdin'], bytes)).code).toBe(0);
    expect(it.hub.record.of('telemetry').map(({ body }) => body)).toEqual([bytes, bytes]);
  });

  test('that the hub rejects exits by the condition, and says it', async () => {
    await using it = await setUp();
    for (const [condition, expected] of [
      ['amqp:link:message-size-exceeded', 65],
      ['com.microsoft:device-container-throttled', 75],
      ['amqp:unauthorized-access', 77],
      ['amqp:not-found', 67],
      ['acme:unheard-of', 75],
    ] as const) {
      it.hub.faults.add({
        at: 'transfer',
        link: 'telemetry',
        do: { act: 'answer', outcome: 'rejected', condition },
      });
      const { code, out } = await it.send(['--data', 'x', '-o', 'json']);
      expect([condition, code]).toEqual([condition, expected]);
      expect(jsonLines(out)).toMatchObject([{ outcome: 'rejected', condition }]);
    }
  });

  test('that the hub gives back exits 75', async () => {
    await using it = await setUp();
    it.hub.faults.add({ at: 'transfer', link: 'telemetry', do: { act: 'answer', outcome: 'released' } });
    expect(await it.send(['--data', 'x', '-o', 'json'])).toMatchObject({ code: 75 });
  });

  test('without an answer within the time-out exits 69 and says that the hub may have it', async () => {
    await using it = await setUp();
    it.hub.faults.add({ at: 'transfer', link: 'telemetry', do: { act: 'say-nothing' } });
    const { code, err } = await it.send(['--data', 'x', '--timeout', '500ms']);
    expect(code).toBe(69);
    expect(err).toMatch(/no answer to one message within 0\.5 s/);
  });
});

describe('what goes wrong before a message leaves', () => {
  test('a wrong key: 77, with the cause and what to do', async () => {
    await using it = await setUp();
    const wrong = it.env['IOTHUB_DEVICE_CONNECTION_STRING']!.replace(
      /SharedAccessKey=.*/,
      'SharedAccessKey=d3Jvbmcga2V5IQ==',
    );
    const { code, out, err } = await runTool('iothub-device', ['send', '--data', 'x'], {
      env: { ...it.env, IOTHUB_DEVICE_CONNECTION_STRING: wrong },
    });
    expect([code, out]).toEqual([77, '']);
    expect(err).toMatch(/^error: the hub refused the token \(status 401\)/);
    expect(err).toMatch(/the key is wrong, or was renewed at the hub/);
    expect(it.hub.record.of('telemetry')).toEqual([]);
  });

  test('an unknown host: 68', async () => {
    await using it = await setUp();
    const env = {
      ...it.env,
      IOTHUB_DEVICE_CONNECTION_STRING: `HostName=no-such-hub.invalid;DeviceId=${device};SharedAccessKey=AAAA`,
    };
    const { code, err } = await runTool('iothub-device', ['send', '--data', 'x'], { env });
    expect(code).toBe(68);
    expect(err).toMatch(/no-such-hub\.invalid/);
  });

  test('nothing listening: 69', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    server.close();
    await once(server, 'close');
    const env = {
      IOTHUB_DEVICE_CONNECTION_STRING: `HostName=127.0.0.1:${String(port)};DeviceId=${device};SharedAccessKey=AAAA`,
    };
    const { code, err } = await runTool('iothub-device', ['send', '--data', 'x'], { env });
    expect(code).toBe(69);
    expect(err).toMatch(/refused the connection \(ECONNREFUSED\)/);
  });

  test('a certificate that nobody vouches for: 76', async () => {
    await using it = await setUp();
    const { IOTHUB_DEVICE_CA: _dropped, ...env } = it.env;
    const { code, err } = await runTool('iothub-device', ['send', '--data', 'x'], { env });
    expect(code).toBe(76);
    expect(err).toMatch(/certificate/);
    expect(err).toMatch(/--ca FILE/);
  });

  test('a broken connection string: 78 from the environment, with the part named', async () => {
    const env = { IOTHUB_DEVICE_CONNECTION_STRING: 'HostName=h;SharedAccessKey=AAAA' };
    const { code, err } = await runTool('iothub-device', ['send', '--data', 'x'], { env });
    expect(code).toBe(78);
    expect(err).toMatch(/IOTHUB_DEVICE_CONNECTION_STRING: .*DeviceId is missing/);
  });

  test('a broken connection string: 64 when a flag brought it', async () => {
    const { code, err } = await runTool(
      'iothub-device',
      ['send', '--data', 'x', '--connection-string', '-'],
      {
        input: 'HostName=h;SharedAccessKey=AAAA\n',
      },
    );
    expect(code).toBe(64);
    expect(err).toMatch(/DeviceId is missing/);
  });

  test('a body over 256 KB: 65, and nobody is connected to', async () => {
    await using it = await setUp();
    const { code, err } = await it.send(['--stdin'], Buffer.alloc(256 * 1024 + 1, 'x'));
    expect(code).toBe(65);
    expect(err).toMatch(/larger than the 256 KiB/);
    expect(it.hub.record.of('connected')).toEqual([]);
  });
});

describe('a stream', () => {
  test('of ten thousand lines arrives once each and in order', async () => {
    await using it = await setUp();
    const lines = Array.from({ length: 10_000 }, (_, n) => `line ${String(n)}`);
    const { code, out, err } = await it.send(['--lines', '-o', 'json'], `${lines.join('\n')}\n`);
    expect([code, err]).toEqual([0, '']);
    expect(it.hub.record.of('telemetry').map(({ body }) => body.toString())).toEqual(lines);
    expect(jsonLines(out).map(({ line, outcome }) => [line, outcome])).toEqual(
      lines.map((_, n) => [n + 1, 'accepted']),
    );
  });

  test('in batches arrives once each and in order, and a batch that is refused goes out in halves', async () => {
    await using it = await setUp();
    const lines = Array.from({ length: 2_000 }, (_, n) => `line ${String(n)}`);
    const { code } = await it.send(
      ['--lines', '--batch', '--inflight', '500', '-o', 'json'],
      lines.join('\n'),
    );
    expect(code).toBe(0);
    expect(it.hub.record.of('telemetry').map(({ body }) => body.toString())).toEqual(lines);
    it.hub.faults.add({
      at: 'transfer',
      link: 'telemetry',
      times: 3,
      do: { act: 'answer', outcome: 'rejected', condition: 'com.microsoft:argument-error' },
    });
    // Refused as four, as two and as two again; alone each is good.
    const four = await it.send(['--lines', '--batch', '-o', 'json'], 'a\nb\nc\nd\n');
    expect(four.code).toBe(0);
    expect(jsonLines(four.out).map(({ outcome }) => outcome)).toEqual(Array(4).fill('accepted'));
    const ends = it.hub.record.of('telemetry').slice(2_000);
    expect(ends.filter(({ outcome }) => outcome.outcome === 'rejected')).toHaveLength(8);
    expect(ends.slice(-4).map(({ body }) => body.toString())).toEqual(['a', 'b', 'c', 'd']);
  });

  test('of envelopes reports each line in order, the bad ones too', async () => {
    await using it = await setUp();
    it.hub.faults.add({
      at: 'transfer',
      link: 'telemetry',
      after: 1,
      do: { act: 'answer', outcome: 'rejected', condition: 'com.microsoft:argument-error' },
    });
    const { code, out } = await it.send(
      ['--ndjson', '-o', 'json'],
      [
        '{"body":{"t":1},"messageId":"m1","properties":{"room":"a"}}',
        '{"boddy":1}',
        '{"bodyText":"two","messageId":"m2"}',
        '{"bodyBase64":"AP8=","messageId":"m3"}',
      ].join('\n'),
    );
    expect(jsonLines(out).map(({ line, messageId, outcome }) => [line, messageId, outcome])).toEqual([
      [1, 'm1', 'accepted'],
      [2, undefined, 'failed'],
      [3, 'm2', 'rejected'],
      [4, 'm3', 'accepted'],
    ]);
    expect(code).toBe(65);
    expect(it.hub.record.of('telemetry').map(({ body }) => body.toString('latin1'))).toEqual([
      '{"t":1}',
      'two',
      '\0ÿ',
    ]);
  });

  test('stops at the first failure when it is told to', async () => {
    await using it = await setUp();
    const { code, out } = await it.send(
      ['--ndjson', '--on-error', 'stop', '-o', 'json'],
      '{"body":1}\n{"x":1}\n{"body":2}\n',
    );
    expect(code).toBe(65);
    expect(jsonLines(out)).toHaveLength(2);
    expect(it.hub.record.of('telemetry')).toHaveLength(1);
  });

  test('goes on after a lost connection, and what had no answer is sent again with its message id', async () => {
    await using it = await setUp();
    it.hub.faults.add({ at: 'transfer', link: 'telemetry', after: 20, do: { act: 'drop' } });
    const lines = Array.from({ length: 50 }, (_, n) => String(n));
    const { code, err } = await it.send(
      ['--lines', '--message-id', 'm', '--inflight', '5', '-o', 'json'],
      lines.join('\n'),
    );
    expect([code, err]).toEqual([0, '']);
    const ids = it.hub.record.of('telemetry').filter(({ outcome }) => outcome.outcome === 'accepted');
    expect(new Set(ids.map(({ messageId }) => messageId)).size).toBe(50);
    expect(it.hub.record.of('connected')).toHaveLength(2);
  });

  test('is not read faster than the hub answers', async () => {
    await using it = await setUp();
    const fault = it.hub.faults.add({
      at: 'transfer',
      link: 'telemetry',
      do: { act: 'say-nothing' },
      times: 'always',
    });
    await using sending = new ToolProcess(
      'iothub-device',
      ['send', '--lines', '--inflight', '3', '--timeout', '1s'],
      { env: it.env },
    );
    const result = await sending.finish('a\nb\nc\nd\ne\n');
    expect(fault.hits).toBe(3);
    expect(result.code).toBe(69);
    expect(result.err).toMatch(/no answer to 3 messages/);
  });

  test('whose reader leaves ends well', async () => {
    await using it = await setUp();
    await using sending = new ToolProcess('iothub-device', ['send', '--lines'], { env: it.env });
    sending.stdin.write('a\n');
    await sending.says(/accepted/);
    sending.stdout.destroy();
    sending.stdin.write('b\n');
    await it.hub.waitFor((record) => record.of('telemetry').length === 2);
    const timer = setInterval(() => sending.stdin.write('c\n'), 50);
    await it.hub.waitFor((record) => record.of('disconnected').length === 1);
    clearInterval(timer);
    expect((await sending.ended()).code).toBe(0);
  });

  test('stopped by SIGTERM finishes what it has read and exits 143', async () => {
    await using it = await setUp();
    await using sending = new ToolProcess('iothub-device', ['send', '--lines'], { env: it.env });
    sending.stdin.write('a\nb\n');
    await it.hub.waitFor((record) => record.of('telemetry').length === 2);
    sending.kill('SIGTERM');
    const { code, out } = await sending.ended();
    expect(code).toBe(143);
    expect(jsonLines(out)).toHaveLength(2);
  });
});

test('no key and no token is in any output, at -vv and with DEBUG', async () => {
  await using it = await setUp();
  const key = /SharedAccessKey=(.*)$/.exec(it.env['IOTHUB_DEVICE_CONNECTION_STRING']!)![1]!;
  const env = { ...it.env, DEBUG: '*' };
  const accepted = await runTool('iothub-device', ['send', '--data', 'x', '-vv'], { env });
  it.hub.faults.add({
    at: 'put-token',
    do: { act: 'refuse', status: 401, description: `key ${key} is wrong` },
  });
  const refused = await runTool('iothub-device', ['send', '--data', 'x', '-vv'], { env });
  expect([accepted.code, refused.code]).toEqual([0, 77]);
  const printed = [accepted, refused].map(({ out, err }) => out + err).join('\n');
  expect(printed).toMatch(/-> attach/);
  const bytes = Buffer.from(key, 'base64');
  for (const secret of [
    key,
    encodeURIComponent(key),
    bytes.toString('hex'),
    Buffer.from(key).toString('hex'),
  ]) {
    expect(printed).not.toContain(secret);
  }
  expect(printed).not.toMatch(/sig=(?!\[secret\])/);
  expect(printed).not.toMatch(/rhea:/);
});

test('a key on the command line is refused, and not repeated', async () => {
  const secret = 'bm90IGZvciB0aGUgY29tbWFuZCBsaW5l';
  const text = `HostName=h;DeviceId=d;SharedAccessKey=${secret}`;
  const { code, out, err } = await runTool('iothub-device', [
    'send',
    '--data',
    'x',
    '--connection-string',
    text,
  ]);
  expect(code).toBe(64);
  expect(out + err).not.toContain(secret);
});
