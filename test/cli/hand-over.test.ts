import { rm } from 'node:fs/promises';
import { join } from 'node:path';

import { describe, expect, test } from 'vitest';

import { jsonLines, startAgent } from '../daemon/agent-kit.js';
import { ToolProcess } from './tool.js';

const numbered = (count: number): string =>
  Array.from({ length: count }, (_, n) => `${String(n)}\n`).join('');

describe('send beside a running agent', () => {
  test('goes through it: the outcome is that of the hub, and the agent keeps its connection', async () => {
    await using it = await startAgent();
    const { code, out, err } = await it.tool(['send', '--data', '{"t":1}', '--prop', 'room=a', '-o', 'text']);
    expect([code, err]).toEqual([0, '']);
    expect(out).toMatch(/^accepted +[0-9A-Z]{26} +\d+ ms\n$/);
    expect(it.hub.record.of('telemetry')).toMatchObject([
      { contentType: 'application/json', contentEncoding: 'utf-8', properties: { room: 'a' } },
    ]);
    expect(it.hub.record.of('connected')).toHaveLength(1);
    expect(it.hub.record.of('disconnected')).toHaveLength(0);
  });

  test('a stream goes through it in order, and bad lines have their place', async () => {
    await using it = await startAgent();
    const lines = `${numbered(500)}${'x'.repeat(300 * 1024)}\n${numbered(500)}`;
    const { code, out } = await it.tool(['send', '--lines', '-o', 'json'], lines);
    expect(code).toBe(65);
    const outcomes = jsonLines(out);
    expect(outcomes.map(({ line }) => line)).toEqual(Array.from({ length: 1_001 }, (_, n) => n + 1));
    expect(outcomes.filter(({ outcome }) => outcome !== 'accepted')).toMatchObject([
      { line: 501, outcome: 'failed' },
    ]);
    const twice = [...numbered(500).split('\n').slice(0, -1), ...numbered(500).split('\n').slice(0, -1)];
    expect(it.hub.record.of('telemetry').map(({ body }) => body.toString())).toEqual(twice);
    expect(it.hub.record.of('connected')).toHaveLength(1);
  });

  test.each([
    ['amqp:link:message-size-exceeded', 65],
    ['com.microsoft:argument-error', 65],
  ])('what the hub rejects with %s exits as without an agent', async (condition, expected) => {
    await using it = await startAgent();
    const fault = {
      at: 'transfer',
      link: 'telemetry',
      do: { act: 'answer', outcome: 'rejected', condition },
    } as const;
    it.hub.faults.add(fault);
    const through = await it.tool(['send', '--data', 'x', '--message-id', 'm1', '-o', 'json']);
    it.agent.kill('SIGTERM');
    await it.agent.ended();
    it.hub.faults.add(fault);
    const direct = await it.tool(['send', '--data', 'x', '--message-id', 'm1', '-o', 'json']);
    const withoutTime = (text: string) => jsonLines(text).map((line) => ({ ...line, ms: 0 }));
    expect([through.code, through.err]).toEqual([expected, '']);
    expect(withoutTime(through.out)).toEqual(withoutTime(direct.out));
    expect(through.code).toBe(direct.code);
  });

  test('when the hub does not answer in time exits 69 and says that the agent has it', async () => {
    await using it = await startAgent({ online: false });
    const { code, out } = await it.tool(['send', '--data', 'x', '--timeout', '300ms', '-o', 'json']);
    expect(code).toBe(69);
    expect(jsonLines(out)).toMatchObject([
      {
        outcome: 'failed',
        error: expect.stringContaining('no answer') as unknown,
        hint: expect.stringContaining('on disk') as unknown,
      },
    ]);
  });

  test('--queue is done when the agent has it on disk, while the hub is away', async () => {
    await using it = await startAgent({ online: false });
    const { code, out } = await it.tool(['send', '--queue', '--lines', '-o', 'json'], numbered(100));
    expect(code).toBe(0);
    expect(new Set(jsonLines(out).map(({ outcome }) => outcome))).toEqual(new Set(['queued']));
    expect((await it.curl('/v1/spool')).json).toMatchObject({ waiting: { count: 100 } });
  });

  test('--queue keeps what comes while the agent is stopped, and the next start sends it, in order', async () => {
    await using it = await startAgent();
    const { code } = await it.tool(['send', '--queue', '--lines', '-o', 'json'], numbered(50));
    expect(code).toBe(0);
    it.agent.kill('SIGTERM');
    await it.agent.ended();
    const later = await it.tool(['send', '--queue', '--lines', '-o', 'json'], numbered(100));
    expect([later.code, jsonLines(later.out).length]).toEqual([0, 100]);
    expect(it.hub.record.of('connected')).toHaveLength(1);
    await it.restart();
    await it.hub.waitFor((record) => record.of('telemetry').length >= 150, { timeoutMs: 20_000 });
    const bodies = it.hub.record.of('telemetry').map(({ body }) => Number(body));
    expect(bodies).toEqual([...Array(50).keys(), ...Array(100).keys()]);
  });

  test('--direct makes a connection of its own, after a warning', async () => {
    await using it = await startAgent();
    const { code, err } = await it.tool(['send', '--direct', '--data', 'x']);
    expect([code, err]).toEqual([
      0,
      expect.stringMatching(/^warning: an agent runs for dev-01 \(process \d+\)/),
    ]);
    expect(it.hub.record.of('connected').length).toBeGreaterThan(1);
  });

  test('a sensor that goes on is told of each line at once; Ctrl-C ends it', async () => {
    await using it = await startAgent();
    await using send = new ToolProcess('iothub-device', ['send', '--lines', '-o', 'json'], { env: it.env });
    send.stdin.write('first\n');
    await send.says(/"line":1,.*"accepted"/);
    send.stdin.write('second\n');
    await send.says(/"line":2,.*"accepted"/);
    send.kill('SIGINT');
    expect(await send.ended()).toMatchObject({ code: 130 });
  });

  test('P7: when the agent dies meanwhile says how many have no answer', async () => {
    await using it = await startAgent();
    it.hub.faults.add({ at: 'disposition', link: 'telemetry', times: 'always', do: { act: 'say-nothing' } });
    await using send = new ToolProcess('iothub-device', ['send', '--lines', '-o', 'json'], { env: it.env });
    send.stdin.write('first\n');
    await it.hub.waitFor((record) => record.of('telemetry').length === 1);
    it.agent.kill('SIGKILL');
    const { code, err } = await send.finish();
    expect([code, err]).toEqual([69, expect.stringContaining('1 message has no answer')]);
  });

  test('an agent of another device is left alone', async () => {
    await using it = await startAgent({ hubOptions: { devices: ['dev-01', 'dev-02'] } });
    const env = { ...it.env, IOTHUB_DEVICE_CONNECTION_STRING: it.hub.deviceConnectionString('dev-02') };
    await using send = new ToolProcess('iothub-device', ['send', '--data', 'x'], { env });
    expect(await send.finish()).toMatchObject({ code: 0, err: '' });
    expect(it.hub.record.of('telemetry')).toMatchObject([{ deviceId: 'dev-02' }]);
  });

  test('P7: a socket on which nobody answers any more is no agent', async () => {
    await using it = await startAgent();
    it.agent.kill('SIGKILL');
    await it.agent.ended();
    expect(await it.tool(['send', '--data', 'x'])).toMatchObject({ code: 0, err: '' });
    await rm(join(it.folder.path, 'run'), { recursive: true });
    expect(await it.tool(['send', '--data', 'x'])).toMatchObject({ code: 0, err: '' });
  });
});
