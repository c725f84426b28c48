import { readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { device } from '../amqp/hub.js';
import { startAgent } from '../daemon/agent-kit.js';

const control = '[control]\nsocket = "run/control.sock"\n';

test('SIGHUP puts handlers, log level and limits into force, and says what needs a restart', async () => {
  await using it = await startAgent({ config: '[[handlers]]\nname = "old"\nexec = ["/bin/false"]\n' });
  await it.folder.write(
    'agent.toml',
    `${control}[log]\nlevel = "debug"\n[spool]\nmax_size = "1MiB"\n[hub]\nidle_timeout = "20s"\n[[handlers]]\nname = "new"\nexec = ["/bin/true"]\n`,
  );
  it.agent.kill('SIGHUP');
  await it.agent.says(/info +configuration read again/);
  expect(it.agent.err).toMatch(/changed="?handlers, spool\.max_size, log\.level/);
  expect(it.agent.err).toMatch(/needsRestart="?hub\.idle_timeout/);
  it.hub.sendCommand({ deviceId: device, messageId: 'c1', body: 'go' });
  const outcome = await it.hub.waitFor((record) => record.of('outcome')[0]);
  expect(outcome).toMatchObject({ messageId: 'c1', outcome: { outcome: 'accepted' } });
  await it.agent.says(/debug +the handler answered/);
  expect((await it.curl('/v1/status')).json).toMatchObject({ handlers: [{ name: 'new' }] });
  expect(it.hub.record.of('connected')).toHaveLength(1);
});

test.each([
  [
    'that has a mistake',
    '[log]\nlevel = "debug"\n[spool]\nmax_szie = "1MiB"\n',
    /max_szie: unknown key; did you mean/,
  ],
  ['that is no TOML', '[log\n', /agent\.toml:\d+:\d+/],
  [
    'with a handler that cannot be run',
    '[log]\nlevel = "debug"\n[[handlers]]\nname = "m"\nmodule = "nowhere.mjs"\n',
    /m: .*nowhere\.mjs/,
  ],
])('a file %s is refused whole, and the former stays', async (_title, text, why) => {
  await using it = await startAgent({ config: '[[handlers]]\nname = "old"\nexec = ["/bin/true"]\n' });
  await it.folder.write('agent.toml', control + text);
  const { status, json } = await it.curl('/v1/reload', '-X', 'POST');
  expect([status, json]).toMatchObject([422, { code: 'config' }]);
  expect(Object.values(json as object).join(' ')).toMatch(why);
  await it.agent.says(/error +the configuration is refused/);
  it.hub.sendCommand({ deviceId: device, messageId: 'c1', body: 'go' });
  const outcome = await it.hub.waitFor((record) => record.of('outcome')[0]);
  expect(outcome.outcome.outcome).toBe('accepted');
  expect((await it.curl('/v1/status')).json).toMatchObject({ handlers: [{ name: 'old', state: 'ok' }] });
  expect(it.agent.err).not.toMatch(/ debug /);
});

test('a file that another program has just begun to write takes no handler away', async () => {
  const handler = '[[handlers]]\nname = "old"\nexec = ["/bin/true"]\n';
  const whole = `# The agent of this machine.\n${control}${handler}`;
  await using it = await startAgent({ config: handler });
  for (const begun of ['', whole.slice(0, whole.indexOf('\n') + 1), '[control]\n']) {
    await it.folder.write('agent.toml', begun);
    const { status, json } = await it.curl('/v1/reload', '-X', 'POST');
    expect([status, JSON.stringify(json)]).toEqual([
      422,
      expect.stringContaining('nothing is set in this file'),
    ]);
    expect((await it.curl('/v1/status')).json).toMatchObject({ handlers: [{ name: 'old' }] });
  }
  // The rest comes while the agent waits for it.
  await it.folder.write('agent.toml', control);
  const reloading = it.curl('/v1/reload', '-X', 'POST');
  await it.folder.write('agent.toml', whole.replace('old', 'new'));
  expect(await reloading).toMatchObject({ status: 200, json: { changed: ['handlers'] } });
  expect((await it.curl('/v1/status')).json).toMatchObject({ handlers: [{ name: 'new' }] });
});

test('POST /v1/reload answers with what changed; a second time with nothing', async () => {
  await using it = await startAgent();
  await it.folder.write('agent.toml', `${control}[log]\nlevel = "warn"\n[shutdown]\ndrain_timeout = "1s"\n`);
  expect(await it.curl('/v1/reload', '-X', 'POST')).toMatchObject({
    status: 200,
    json: { changed: ['log.level'], needsRestart: ['shutdown.drain_timeout'] },
  });
  expect((await it.curl('/v1/reload', '-X', 'POST')).json).toEqual({
    changed: [],
    needsRestart: ['shutdown.drain_timeout'],
  });
});

test('a handler that runs meanwhile ends as it would have', async () => {
  await using it = await startAgent();
  await it.folder.script('slow', 'cat >/dev/null; : > started; sleep 1; exit 0');
  const handlers = (exec: string) => `${control}[[handlers]]\nname = "h"\nexec = ["${exec}"]\n`;
  await it.folder.write('agent.toml', handlers('./slow'));
  await it.curl('/v1/reload', '-X', 'POST');
  it.hub.sendCommand({ deviceId: device, messageId: 'c1', body: 'go' });
  await expect.poll(() => readFile(join(it.folder.path, 'started')).catch(() => undefined)).toBeDefined();
  await it.folder.write('agent.toml', handlers('/bin/false'));
  await it.curl('/v1/reload', '-X', 'POST');
  it.hub.sendCommand({ deviceId: device, messageId: 'c2', body: 'go' });
  const outcomes = await it.hub.waitFor(
    (record) => record.of('outcome').length === 2 && record.of('outcome'),
  );
  expect(Object.fromEntries(outcomes.map(({ messageId, outcome }) => [messageId, outcome.outcome]))).toEqual({
    c1: 'accepted',
    c2: 'rejected',
  });
});

test('what waits for its turn keeps it over any number of reloads, and is delivered once', async () => {
  await using it = await startAgent();
  const handlers = `${control}[[handlers]]\nname = "h"\nexec = ["./slow"]\n`;
  await it.folder.script(
    'slow',
    'echo "$(cat)" >> commands; [ ! -e started ] && : > started && sleep 2; exit 0',
  );
  await it.folder.write('agent.toml', handlers);
  await it.curl('/v1/reload', '-X', 'POST');
  const wanted = ['c0', 'c1', 'c2', 'c3', 'c4', 'c5'];
  for (const messageId of wanted) it.hub.sendCommand({ deviceId: device, messageId, body: messageId });
  await expect.poll(() => readFile(join(it.folder.path, 'started')).catch(() => undefined)).toBeDefined();
  for (let n = 0; n < 20; n++) await it.curl('/v1/reload', '-X', 'POST');
  const outcomes = await it.hub.waitFor(
    (record) => record.of('outcome').length === wanted.length && record.of('outcome'),
  );
  expect(outcomes).toMatchObject(
    wanted.map((messageId) => ({ messageId, outcome: { outcome: 'accepted' } })),
  );
  expect((await readFile(join(it.folder.path, 'commands'), 'utf8')).split('\n').filter(Boolean)).toEqual(
    wanted,
  );
});

test('a hundred SIGHUPs under load lose nothing', async () => {
  await using it = await startAgent();
  await it.folder.script('count', 'echo "$(cat)" >> commands');
  const config = (level: string) =>
    `${control}[log]\nlevel = "${level}"\n[[handlers]]\nname = "count"\nexec = ["./count"]\n`;
  await it.folder.write('agent.toml', config('info'));
  await it.curl('/v1/reload', '-X', 'POST');
  const lines = Array.from({ length: 3_000 }, (_, n) => `${String(n)}\n`).join('');
  const sending = it.tool(['send', '--lines', '-o', 'none'], lines);
  for (let n = 0; n < 100; n++) {
    // As a careful editor does it: what is read while it is written is half a file.
    const written = await it.folder.write('agent.toml.new', config(n % 2 === 0 ? 'debug' : 'info'));
    await rename(written, join(it.folder.path, 'agent.toml'));
    it.agent.kill('SIGHUP');
    if (n % 5 === 0) {
      await it.hub.waitFor(() => it.hub.queueDepth(device) < 40);
      it.hub.sendCommand({ deviceId: device, messageId: `c${String(n)}`, body: `c${String(n)}` });
    }
    await new Promise((resolve) => setTimeout(resolve, (n * 7) % 20));
  }
  expect(await sending).toMatchObject({ code: 0 });
  expect(it.hub.record.of('telemetry').map(({ body }) => Number(body))).toEqual(
    Array.from({ length: 3_000 }, (_, n) => n),
  );
  const wanted = Array.from({ length: 20 }, (_, n) => `c${String(n * 5)}`);
  await it.hub.waitFor((record) => record.of('outcome').length === wanted.length, { timeoutMs: 30_000 });
  expect((await readFile(join(it.folder.path, 'commands'), 'utf8')).split('\n').filter(Boolean)).toEqual(
    wanted,
  );
  expect(it.hub.record.of('connected')).toHaveLength(1);
}, 60_000);
