import { execFile, spawnSync } from 'node:child_process';
import { chmod, mkdir, readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { describe, expect, test } from 'vitest';

import { device, startHub } from '../amqp/hub.js';
import { environmentOf, Folder, runTool, ToolProcess } from './tool.js';

/** A device that has no network: its hub does not exist. */
const offline = 'HostName=nowhere.invalid;DeviceId=dev-01;SharedAccessKey=c2VjcmV0c2VjcmV0c2VjcmV0';

async function setUp() {
  const folder = await Folder.make();
  const env = { IOTHUB_DEVICE_CONNECTION_STRING: offline, XDG_STATE_HOME: join(folder.path, 'state') };
  return {
    folder,
    env,
    tool: (args: readonly string[], input?: string | Buffer) =>
      runTool('iothub-device', args, { env, cwd: folder.path, ...(input === undefined ? {} : { input }) }),
    async [Symbol.asyncDispose]() {
      await folder[Symbol.asyncDispose]();
    },
  };
}

const jsonLines = (text: string): Record<string, unknown>[] =>
  text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);

const numbered = (count: number): string =>
  Array.from({ length: count }, (_, n) => `${String(n)}\n`).join('');

/** A disk of its own, as one may have it without being root. */
const inNamespace = ['--map-root-user', '--mount'];
const canMount = spawnSync('unshare', [...inNamespace, 'mount', '-t', 'tmpfs', 'none', '/mnt']).status === 0;

describe('send --queue', () => {
  test('needs no network: one message is on disk, and its line says queued', async () => {
    await using it = await setUp();
    const text = await it.tool(['send', '--queue', '--data', '{"t":1}', '--message-id', 'm1', '-o', 'text']);
    expect(text).toMatchObject({ code: 0, err: '' });
    expect(text.out).toMatch(/^queued {4}m1 +\d+ ms\n$/);
    const json = await it.tool(['send', '--queue', '--data', '{"t":2}', '--message-id', 'm2']);
    expect(jsonLines(json.out)).toMatchObject([{ messageId: 'm2', outcome: 'queued' }]);
    const { out } = await it.tool(['spool', 'export']);
    expect(jsonLines(out)).toMatchObject([
      { messageId: 'm1', body: { t: 1 }, contentType: 'application/json' },
      { messageId: 'm2', body: { t: 2 } },
    ]);
  });

  test('keeps a stream in order, says which lines it could not read, and exits by them', async () => {
    await using it = await setUp();
    const input = '{"bodyText":"a"}\nnonsense\n{"bodyText":"b"}\n';
    const { code, out } = await it.tool(['send', '--queue', '--ndjson', '-o', 'json'], input);
    expect(code).toBe(65);
    expect(jsonLines(out)).toMatchObject([
      { line: 1, outcome: 'queued' },
      { line: 2, outcome: 'failed', error: 'it is not JSON' },
      { line: 3, outcome: 'queued' },
    ]);
    const exported = jsonLines((await it.tool(['spool', 'export'])).out);
    expect(exported.map(({ bodyText }) => bodyText)).toEqual(['a', 'b']);
  });

  test('with --on-error stop leaves nothing on disk that came after the failure', async () => {
    await using it = await setUp();
    const input = '{"bodyText":"a"}\nnonsense\n{"bodyText":"b"}\n';
    const { code } = await it.tool(['send', '--queue', '--ndjson', '--on-error', 'stop'], input);
    expect(code).toBe(65);
    expect(jsonLines((await it.tool(['spool', 'list'])).out)).toHaveLength(1);
  });

  test('says each line while the input goes on', async () => {
    await using it = await setUp();
    await using process = new ToolProcess('iothub-device', ['send', '--queue', '--lines', '-o', 'json'], {
      env: it.env,
    });
    process.stdin.write('first\n');
    await process.says(/"line":1,.*"queued"/);
    process.stdin.write('second\n');
    await process.says(/"line":2,.*"queued"/);
    process.kill('SIGTERM');
    expect(await process.ended()).toMatchObject({ code: 143 });
    expect(jsonLines((await it.tool(['spool', 'list'])).out)).toHaveLength(2);
  });

  test('exits 75 when the spool is full, and what it could not take is not there', async () => {
    await using it = await setUp();
    await it.folder.write('agent.toml', '[spool]\nmax_size = "1MiB"\n');
    const lines = Array.from({ length: 30 }, (_, n) => `${String(n)} ${'x'.repeat(60_000)}\n`).join('');
    const args = ['-c', 'agent.toml'];
    const { code, out } = await it.tool(['send', ...args, '--queue', '--lines', '-o', 'json'], lines);
    expect(code).toBe(75);
    const outcomes = jsonLines(out).map(({ outcome }) => outcome);
    const fitting = outcomes.indexOf('failed');
    expect(fitting).toBeGreaterThan(10);
    expect(outcomes).toEqual([
      ...Array<string>(fitting).fill('queued'),
      ...Array<string>(30 - fitting).fill('failed'),
    ]);
    expect(jsonLines(out).at(-1)).toMatchObject({
      error: expect.stringContaining('full') as unknown,
      retryable: true,
    });
    const stored = jsonLines((await it.tool(['spool', 'list', ...args])).out);
    expect(stored).toHaveLength(fitting);
  });

  test('exits 75 too when the policy is to drop the newest: exit 0 means on disk', async () => {
    await using it = await setUp();
    await it.folder.write('agent.toml', '[spool]\nmax_size = "1MiB"\nwhen_full = "drop_newest"\n');
    const lines = Array.from({ length: 30 }, () => `${'x'.repeat(60_000)}\n`).join('');
    const { code, out } = await it.tool(['send', '-c', 'agent.toml', '--queue', '--lines'], lines);
    expect(code).toBe(75);
    const dropped = jsonLines(out).filter(({ outcome }) => outcome === 'failed').length;
    const stats = jsonLines((await it.tool(['spool', 'stats'])).out);
    expect(stats).toMatchObject([
      { dropped: { newest: { count: dropped } }, pending: { count: 30 - dropped } },
    ]);
  });

  test.skipIf(!canMount)('exits 75 when the disk is full; what it said is queued is there', async () => {
    await using it = await setUp();
    const script = `
      mount -t tmpfs -o size=14m,mode=700 none /mnt
      yes "$(head -c 6000 /dev/zero | tr '\\0' x)" | head -4000 |
        "$0" --use-openssl-ca "$1" send --queue --lines --directory /mnt/spool -o json > "$2"
      echo "exit $?"
      "$0" --use-openssl-ca "$1" spool list --directory /mnt/spool -o json | wc -l`;
    const out = join(it.folder.path, 'out');
    const tool = join(import.meta.dirname, '../../bin/iothub-device.js');
    const { stdout } = await promisify(execFile)(
      'unshare',
      [...inNamespace, 'sh', '-c', script, process.execPath, tool, out],
      { env: { ...process.env, ...it.env } },
    );
    const lines = jsonLines(await readFile(out, 'utf8'));
    const queued = lines.filter(({ outcome }) => outcome === 'queued').length;
    expect(queued).toBeGreaterThan(100);
    expect(stdout).toBe(`exit 75\n${String(queued)}\n`);
    expect(lines.find(({ outcome }) => outcome === 'failed')).toMatchObject({
      error: expect.stringMatching(/^the disk is full/) as unknown,
    });
  });

  test('a directory that cannot be made exits 73', async () => {
    await using it = await setUp();
    const file = await it.folder.write('file', '');
    const { code, err } = await it.tool([
      'send',
      '--queue',
      '--data',
      'x',
      '--directory',
      join(file, 'spool'),
    ]);
    expect([code, err]).toEqual([73, expect.stringContaining(file)]);
  });

  test('never closes a directory to others that holds other things', async () => {
    await using it = await setUp();
    const directory = join(it.folder.path, 'shared');
    await mkdir(directory);
    await it.folder.write('shared/letter.txt', 'mine');
    await chmod(directory, 0o755);
    const { code, err } = await it.tool(['send', '--queue', '--data', 'x', '--directory', directory]);
    expect([code, err]).toEqual([78, expect.stringContaining('holds other things')]);
    expect((await stat(directory)).mode & 0o777).toBe(0o755);
    expect(await readdir(directory)).toEqual(['letter.txt']);
  });

  test('--directory without --queue is a usage error', async () => {
    await using it = await setUp();
    expect(await it.tool(['send', '--data', 'x', '--directory', '/tmp/x'])).toMatchObject({ code: 64 });
  });
});

describe('one spool, several processes', () => {
  test('while an agent runs it is the agent, by its pid, who has it', async () => {
    await using it = await setUp();
    const handler = await it.folder.script('handler', 'cat >/dev/null');
    await using agent = new ToolProcess('iothub-device', ['run', '--exec', handler], { env: it.env });
    await agent.says(/offline/);
    for (const args of [
      ['send', '--queue', '--data', 'x'],
      ['spool', 'stats'],
    ]) {
      const { code, err } = await it.tool(args);
      expect([args, code]).toEqual([args, 75]);
      expect(err).toContain(`in use by process ${String(agent.pid)}`);
    }
    agent.kill('SIGTERM');
    expect(await agent.ended()).toMatchObject({ code: 0 });
    expect(await it.tool(['send', '--queue', '--data', 'x'])).toMatchObject({ code: 0 });
  });

  test('an agent that finds it taken says by whom, and ends with 75', async () => {
    await using it = await setUp();
    const handler = await it.folder.script('handler', 'cat >/dev/null');
    await using queue = new ToolProcess('iothub-device', ['send', '--queue', '--lines'], { env: it.env });
    queue.stdin.write('x\n');
    await queue.says(/queued/);
    const { code, err } = await it.tool(['run', '--exec', handler]);
    expect([code, err]).toEqual([75, expect.stringContaining(`process ${String(queue.pid)}`)]);
  });

  test('those who queue one message each take turns', async () => {
    await using it = await setUp();
    const sent = await Promise.all(
      Array.from({ length: 6 }, (_, n) => it.tool(['send', '--queue', '--data', String(n)])),
    );
    expect(sent.map(({ code }) => code)).toEqual(Array<number>(6).fill(0));
    expect(jsonLines((await it.tool(['spool', 'list'])).out)).toHaveLength(6);
  });

  test('two devices never share one', async () => {
    await using it = await setUp();
    await it.tool(['send', '--queue', '--data', 'x']);
    const other = { ...it.env, IOTHUB_DEVICE_CONNECTION_STRING: offline.replace('dev-01', 'dev-02') };
    expect((await runTool('iothub-device', ['spool', 'list'], { env: other })).out).toBe('');
  });
});

describe('what was queued offline', () => {
  test('is sent by run: a thousand lines, each once and in order', async () => {
    await using it = await setUp();
    await using hub = await startHub();
    const env = await environmentOf(hub, device, it.folder);
    const queued = await runTool('iothub-device', ['send', '--queue', '--lines', '-o', 'none'], {
      env,
      input: numbered(1_000),
    });
    expect(queued).toMatchObject({ code: 0, err: '' });
    const handler = await it.folder.script('handler', 'cat >/dev/null');
    await using agent = new ToolProcess('iothub-device', ['run', '--exec', handler], { env });
    await hub.waitFor((record) => record.of('telemetry').length >= 1_000, { timeoutMs: 20_000 });
    agent.kill('SIGTERM');
    await agent.ended();
    const arrived = hub.record.of('telemetry').map(({ body }) => Number(body));
    expect(arrived).toEqual(Array.from({ length: 1_000 }, (_, n) => n));
    expect((await runTool('iothub-device', ['spool', 'list'], { env })).out).toBe('');
  });
});
