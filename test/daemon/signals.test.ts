import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { request } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';

import { describe, expect, test } from 'vitest';

import { device } from '../amqp/hub.js';
import { jsonLines, startAgent, type ControlledAgent } from './agent-kit.js';

/** `IOTHUB_FAULTS=long`: more of them, and for longer. */
const isLong = process.env['IOTHUB_FAULTS'] === 'long';
/** The promise is 5 s; a busy machine gets a little more. */
const endsWithinMs = 7_000;

/** A sensor that hands over so many messages a second, until the agent is gone; `queued`: what the agent says it has. */
function sensor(it: ControlledAgent, perSecond: number) {
  const stream = request({
    socketPath: it.socket,
    path: '/v1/telemetry',
    method: 'POST',
    headers: { 'content-type': 'application/x-ndjson' },
  });
  const over = new AbortController();
  stream.on('error', () => {
    over.abort();
  });
  let text = '';
  const answered = once(stream, 'response', { signal: over.signal })
    .then(async ([response]) => {
      for await (const chunk of response as NodeJS.ReadableStream) text += String(chunk);
    })
    .catch(() => undefined)
    .finally(() => {
      over.abort();
    });
  let count = 0;
  const startedAt = performance.now();
  const sent = (async () => {
    while (!over.signal.aborted) {
      const due = ((performance.now() - startedAt) / 1000) * perSecond;
      let lines = '';
      while (count < due) lines += `{"body":{"t":21.5},"messageId":"${String(count++)}"}\n`;
      stream.write(lines);
      await delay(10);
    }
    stream.destroy();
  })();
  return {
    async finished() {
      await sent;
      await answered;
      const whole = text.slice(0, text.lastIndexOf('\n') + 1);
      const queued = jsonLines(whole)
        .filter(({ outcome }) => outcome === 'queued')
        .map(({ messageId }) => String(messageId));
      return { queued };
    },
    /** Answered so far. */
    perSecond: () => Math.round((text.split('\n').length / (performance.now() - startedAt)) * 1_000),
  };
}

async function stop({ agent }: ControlledAgent): Promise<{ code: number | null; ms: number }> {
  const startedAt = performance.now();
  agent.kill('SIGTERM');
  const { code } = await agent.ended();
  return { code, ms: performance.now() - startedAt };
}

function missing({ hub }: ControlledAgent, queued: readonly string[]): string[] {
  const had = new Set(hub.record.of('telemetry').map(({ messageId }) => messageId));
  return queued.filter((id) => !had.has(id));
}

describe('SIGTERM', () => {
  test('at five thousand messages a second: ended within five seconds, and nothing is lost', async () => {
    await using it = await startAgent();
    const feed = sensor(it, 5_000);
    await delay(isLong ? 10_000 : 1_500);
    const rate = feed.perSecond();
    const { code, ms } = await stop(it);
    const { queued } = await feed.finished();
    expect(code).toBe(0);
    expect(ms).toBeLessThan(endsWithinMs);
    expect(queued.length).toBeGreaterThan(500);
    await it.restart();
    await it.hub.waitFor(() => missing(it, queued).length === 0, { timeoutMs: 20_000 });
    if (isLong)
      process.stdout.write(`${queued.length} messages, ${rate} a second, ended in ${Math.round(ms)} ms\n`);
  }, 90_000);

  test('while a dead hub owes answers: ended within five seconds, and nothing is lost', async () => {
    await using it = await startAgent({ distant: true });
    const feed = sensor(it, 1_000);
    await it.hub.waitFor((record) => record.of('telemetry').length > 100, { timeoutMs: 20_000 });
    it.network.stall();
    await delay(500);
    const { code, ms } = await stop(it);
    const { queued } = await feed.finished();
    expect(code).toBe(0);
    expect(ms).toBeLessThan(endsWithinMs);
    await it.network.heal();
    await it.restart();
    await it.hub.waitFor(() => missing(it, queued).length === 0, { timeoutMs: 20_000 });
  }, 90_000);

  test('while a stream and a client that waits for the hub are open', async () => {
    await using it = await startAgent({ distant: true });
    it.network.stall();
    const waiting = it.curl('/v1/telemetry?wait=hub&timeout=60s', '-d', 'x');
    const feed = sensor(it, 10);
    await expect
      .poll(async () => (await it.curl('/v1/spool')).json)
      .toMatchObject({
        waiting: { count: expect.any(Number) as number },
      });
    const { code, ms } = await stop(it);
    expect([code, ms < endsWithinMs]).toEqual([0, true]);
    expect((await waiting).json).toMatchObject({ outcome: 'queued' });
    await feed.finished();
  });
});

test('a second signal means now, whatever a handler does', async () => {
  await using it = await startAgent({ config: '[[handlers]]\nexec = ["./handler"]\n' });
  await it.folder.script('handler', `trap '' TERM; cat >/dev/null; : > started; while :; do sleep 1; done`);
  it.hub.sendCommand({ deviceId: device, messageId: 'c1', body: 'go' });
  await it.folder.has('started');
  it.agent.kill('SIGINT');
  await it.agent.says(/stopping/);
  expect((await it.curl('/v1/status')).json).toMatchObject({ state: 'draining' });
  const { ms } = await stop(it);
  expect(ms).toBeLessThan(5_000);
});

test('SIGUSR2 tells the status and debug messages, until it comes again', async () => {
  await using it = await startAgent();
  it.agent.kill('SIGUSR2');
  await it.agent.says(/info +debug messages for a minute/);
  await it.agent.says(/info +status .*state=online/);
  it.hub.sendCommand({ deviceId: device, messageId: 'c1', body: 'go' });
  await it.agent.says(/debug +command received message=c1/);
  it.agent.kill('SIGUSR2');
  await it.agent.says(/info +no more debug messages/);
  const before = it.agent.err.length;
  it.hub.sendCommand({ deviceId: device, messageId: 'c2', body: 'go' });
  await it.hub.waitFor((record) => record.of('outcome').length === 2);
  expect(it.agent.err.slice(before)).not.toMatch(/debug/);
});

test('SIGUSR1 opens no debugger, and SIGPIPE ends nothing', async () => {
  await using it = await startAgent();
  await it.curl('/v1/status');
  const threads = () => readdirSync(`/proc/${it.agent.pid}/task`).length;
  const before = threads();
  it.agent.kill('SIGUSR1');
  it.agent.kill('SIGPIPE');
  await delay(300);
  expect((await it.curl('/v1/status')).status).toBe(200);
  expect(it.agent.err).not.toMatch(/[Dd]ebugger/);
  // The debugger has one of its own.
  expect(threads()).toBeLessThanOrEqual(before);
});
