import { expect, test, vi } from 'vitest';

import { device } from '../amqp/hub.js';
import { jsonLines, startAgent } from '../daemon/agent-kit.js';

/** An agent with two messages that the hub has rejected and two that it does not take yet. */
async function agentWithTelemetry() {
  const it = await startAgent();
  it.hub.faults.add({
    ...{ at: 'transfer', link: 'telemetry', times: 2 },
    do: { act: 'answer', outcome: 'rejected', condition: 'amqp:not-allowed', description: 'no, sorry' },
  });
  const queue = async (...bodies: string[]) => {
    const args = ['send', '--queue', '--lines', '--message-id', bodies[0]!, '-o', 'none'];
    expect(await it.tool(args, bodies.map((body) => `"${body}"\n`).join(''))).toMatchObject({ code: 0 });
  };
  await queue('first');
  await queue('second');
  await vi.waitUntil(async () => (await list(it)).join() === 'first-1 rejected,second-1 rejected', {
    timeout: 20_000,
  });
  it.hub.faults.add({
    ...{ at: 'transfer', link: 'telemetry', times: 'always' },
    do: { act: 'answer', outcome: 'rejected', condition: 'com.microsoft:device-container-throttled' },
  });
  await queue('third', 'fourth');
  return it;
}

async function list(it: Awaited<ReturnType<typeof startAgent>>, ...args: string[]): Promise<string[]> {
  const { code, out } = await it.tool(['spool', 'list', '-o', 'json', ...args]);
  expect(code).toBe(0);
  return jsonLines(out).map(({ messageId, state }) => `${String(messageId)} ${String(state)}`);
}

test('beside a running agent, stats, list, show, export, requeue and drop go through it', async () => {
  await using it = await agentWithTelemetry();
  expect(jsonLines((await it.tool(['spool', 'stats', '-o', 'json'])).out)).toMatchObject([
    { pending: { count: 2 }, rejected: { count: 2 }, directory: expect.stringContaining(device) as unknown },
  ]);
  expect(await list(it)).toEqual([
    ...['third-1 pending', 'third-2 pending'],
    ...['first-1 rejected', 'second-1 rejected'],
  ]);
  expect(await list(it, '--state', 'rejected')).toHaveLength(2);
  expect(await list(it, '--older-than', '1h')).toEqual([]);

  const [third, fourth, first, second] = jsonLines((await it.tool(['spool', 'list'])).out).map(({ id }) =>
    String(id),
  );
  const shown = await it.tool(['spool', 'show', first!, '-o', 'json']);
  expect(jsonLines(shown.out)).toMatchObject([
    { id: Number(first), condition: 'amqp:not-allowed', error: 'no, sorry', message: { body: 'first' } },
  ]);
  const exported = await it.tool(['spool', 'export', third!, fourth!]);
  expect(jsonLines(exported.out)).toMatchObject([{ body: 'third' }, { body: 'fourth' }]);
  expect(await it.tool(['spool', 'show', first!, '9999'])).toMatchObject({
    ...{ code: 66, out: '' },
    err: expect.stringContaining('the spool has no message 9999') as unknown,
  });

  // What waits may be on its way.
  expect(await it.tool(['spool', 'drop', first!, third!])).toMatchObject({
    code: 75,
    err: expect.stringContaining(`message ${third} waits to be sent`) as unknown,
  });
  expect(await list(it)).toHaveLength(4);
  expect(await it.tool(['spool', 'drop', first!])).toMatchObject({ code: 0, out: '{"dropped":1}\n' });
  expect(await it.tool(['spool', 'requeue', second!])).toMatchObject({ code: 0, out: '{"requeued":1}\n' });
  expect(await list(it)).toEqual(['third-1 pending', 'third-2 pending', 'second-1 pending']);

  it.hub.faults.clear();
  await vi.waitUntil(async () => (await list(it)).length === 0, { timeout: 30_000 });
  const taken = it.hub.record
    .of('telemetry')
    .filter(({ outcome }) => outcome.outcome === 'accepted')
    .map(({ messageId }) => messageId);
  expect(taken).toEqual(['third-1', 'third-2', 'second-1']);
});

test('a large spool comes through the socket whole, and a request that makes no sense is refused', async () => {
  await using it = await startAgent({ online: false });
  const lines = Array.from({ length: 3_000 }, (_, n) => `{"n":${n},"filler":"${'x'.repeat(300)}"}`);
  expect(await it.tool(['send', '--queue', '--lines', '-o', 'none'], lines.join('\n'))).toMatchObject({
    code: 0,
  });
  const { out } = await it.tool(['spool', 'export']);
  expect(jsonLines(out).map(({ body }) => JSON.stringify(body))).toEqual(lines);
  for (const path of [
    '/v1/spool/messages?state=lost',
    '/v1/spool/messages?id=one',
    '/v1/spool/messages?olderThan=3',
  ])
    expect((await it.curl(path)).status).toBe(400);
  expect((await it.curl('/v1/spool/drop', '-X', 'POST')).status).toBe(400);
  expect((await it.curl('/v1/spool/requeue?id=99999', '-X', 'POST')).json).toMatchObject({
    code: 'no-input',
  });
});
