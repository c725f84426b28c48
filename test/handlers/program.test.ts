import { spawnSync } from 'node:child_process';
import {
  closeSync,
  copyFileSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';

import { programHandler } from '../../src/handlers/program.js';
import { commandEvent, hastyClock, recordingLog, runOnce, script, sh, tempDir, testPython } from './kit.js';

const answerOf = (text: string, options: object = {}): ReturnType<typeof runOnce> =>
  runOnce(programHandler({ name: 'h', file: sh(text), ...options }));

describe('the exit code decides', () => {
  test.each([
    [0, 'accept', 200, 'handler'],
    [1, 'reject', 500, 'handler'],
    [2, 'reject', 500, 'handler'],
    [64, 'reject', 400, 'handler'],
    [65, 'reject', 400, 'handler'],
    [66, 'reject', 400, 'handler'],
    [67, 'reject', 400, 'handler'],
    [68, 'reject', 500, 'handler'],
    [69, 'release', 503, 'handler'],
    [70, 'reject', 500, 'handler'],
    [71, 'release', 503, 'handler'],
    [72, 'reject', 500, 'handler'],
    [73, 'reject', 500, 'handler'],
    [74, 'release', 503, 'handler'],
    [75, 'release', 503, 'handler'],
    [76, 'reject', 400, 'handler'],
    [77, 'reject', 403, 'handler'],
    [78, 'reject', 500, 'handler'],
    [126, 'release', 501, 'installation'],
    [127, 'release', 501, 'installation'],
    [128, 'reject', 500, 'handler'],
    [143, 'reject', 500, 'handler'],
    [255, 'reject', 500, 'handler'],
  ])('%i: %s, status %i', async (code, outcome, status, decidedBy) => {
    expect(await answerOf(`exit ${code}`)).toMatchObject({ outcome, status, decidedBy });
  });

  test('an override by code or by range goes before the table', async () => {
    const exit = { '4': 'release', '10-19': 'accept', '0': 202, '75': 'reject', '20-29': 409 } as const;
    expect(await answerOf('exit 4', { exit })).toMatchObject({ outcome: 'release', status: 503 });
    expect(await answerOf('exit 10', { exit })).toMatchObject({ outcome: 'accept', status: 200 });
    expect(await answerOf('exit 19', { exit })).toMatchObject({ outcome: 'accept', status: 200 });
    expect(await answerOf('exit 0', { exit })).toMatchObject({ outcome: 'accept', status: 202 });
    expect(await answerOf('exit 75', { exit })).toMatchObject({ outcome: 'reject', status: 500 });
    expect(await answerOf('exit 25', { exit })).toMatchObject({ outcome: 'reject', status: 409 });
    expect(await answerOf('exit 9', { exit })).toMatchObject({ outcome: 'reject', status: 500 });
  });

  test.each(['SEGV', 'KILL', 'ABRT', 'TERM'])('killed by SIG%s is a fault, and later', async (signal) => {
    expect(await answerOf(`kill -${signal} $$`)).toEqual({
      outcome: 'release',
      status: 500,
      reason: `killed by SIG${signal}`,
      decidedBy: 'fault',
      reply: undefined,
    });
  });

  test('past its deadline it is later, or no where so configured', async () => {
    expect(await answerOf('sleep 60', { timeoutMs: 100 })).toMatchObject({
      outcome: 'release',
      status: 504,
      reason: 'no end after 0.1 s',
      decidedBy: 'fault',
    });
    expect(await answerOf('sleep 60', { timeoutMs: 100, onTimeout: 'reject' })).toMatchObject({
      outcome: 'reject',
      status: 504,
    });
  });

  test('a program that ends well when it is told that its time is over was too late all the same', async () => {
    const answer = await answerOf(`trap 'exit 0' TERM; sleep 60 & wait`, { timeoutMs: 300 });
    expect(answer).toMatchObject({ outcome: 'release', status: 504, decidedBy: 'fault' });
  });
});

describe('what cannot be started is later, and the fault of the installation', () => {
  const cannotStart = { outcome: 'release', status: 501, decidedBy: 'installation' };

  test.each([
    ['a missing file', () => join(tempDir(), 'none'), /none is missing/],
    ['a missing name', () => 'iothub-no-such-program', /is missing from PATH/],
    ['a file without execute permission', () => script('#!/bin/sh\n', { mode: 0o644 }), /not executable/],
    ['a directory', () => tempDir(), /is not a file/],
    ['a missing interpreter', () => script('#!/no/such/interpreter\n'), /interpreter/],
    ['an interpreter that is not executable', () => script('#!/etc/passwd\n'), /not executable/],
    ['a name with a NUL', () => '/a\0b', /null bytes/],
  ])('%s', async (_, file, reason) => {
    const answer = await runOnce(programHandler({ name: 'h', file: file() }));
    expect(answer).toMatchObject(cannotStart);
    expect(answer.reason).toMatch(reason);
  });

  test('a missing working directory is named as such', async () => {
    const cwd = join(tempDir(), 'gone');
    expect(await answerOf('exit 0', { cwd })).toMatchObject({
      ...cannotStart,
      reason: `its working directory ${cwd} is missing`,
    });
  });
});

describe('what a program gets', () => {
  test('the body on standard input, byte for byte', async () => {
    const body = Buffer.from(Array.from({ length: 65_536 }, (_, index) => index % 256));
    const answer = await runOnce(programHandler({ name: 'h', file: sh('cat') }), { body });
    expect(answer.reply?.equals(body)).toBe(true);
  });

  test.each([
    ['never read', 'exit 0'],
    ['closed at once', 'exec <&-; sleep 0.05; exit 0'],
    ['read in part', 'head -c 10 >/dev/null; exit 0'],
  ])('standard input that is %s does no harm', async (_, text) => {
    const body = Buffer.alloc(4 * 1024 * 1024, 'x');
    expect(await runOnce(programHandler({ name: 'h', file: sh(text) }), { body })).toMatchObject({
      outcome: 'accept',
    });
  });

  test('an environment of four variables and the event, and nothing of the agent', async () => {
    vi.stubEnv('IOTHUB_DEVICE_CONNECTION_STRING', 'HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0');
    vi.stubEnv('NOTIFY_SOCKET', '/run/notify');
    vi.stubEnv('NODE_OPTIONS', '--no-warnings');
    const handler = programHandler({ name: 'restart', file: sh('env -0'), environment: { COLOUR: 'red' } });
    const answer = await runOnce(
      handler,
      {
        messageId: 'm1',
        correlationId: 'c1',
        userId: 'u1',
        contentType: 'application/json',
        contentEncoding: 'utf-8',
        moduleId: 'mod',
        ack: 'full',
        deliveryCount: 2,
        sequenceNumber: 7,
        enqueuedAt: Date.UTC(2026, 0, 1),
        expiresAt: Date.UTC(2026, 0, 2),
        properties: { 'fan-speed': '3', 'fan.speed': '4', room: 'a\nIOTHUB_PROP_ADMIN=1' },
      },
      { attempt: 3 },
    );
    vi.unstubAllEnvs();
    const lines = String(answer.reply)
      .split('\0')
      .filter((line) => line !== '');
    const environment = Object.fromEntries(
      lines.map((line): [string, string] => [
        line.slice(0, line.indexOf('=')),
        line.slice(line.indexOf('=') + 1),
      ]),
    );
    const { IOTHUB_RUN_ID: mark, IOTHUB_DEADLINE: deadline, ...rest } = environment;
    // PWD is the shell's own doing.
    for (const name of ['PATH', 'HOME', 'LANG', 'TZ', 'PWD']) Reflect.deleteProperty(rest, name);
    expect(mark).toMatch(/^[0-9a-f]{32}$/);
    expect(Date.parse(deadline!)).toBeGreaterThan(Date.now());
    expect(rest).toEqual({
      COLOUR: 'red',
      IOTHUB_EVENT: 'command',
      IOTHUB_HANDLER: 'restart',
      IOTHUB_ATTEMPT: '3',
      IOTHUB_DEVICE_ID: 'dev1',
      IOTHUB_MODULE_ID: 'mod',
      IOTHUB_MESSAGE_ID: 'm1',
      IOTHUB_CORRELATION_ID: 'c1',
      IOTHUB_USER_ID: 'u1',
      IOTHUB_ACK: 'full',
      IOTHUB_CONTENT_TYPE: 'application/json',
      IOTHUB_CONTENT_ENCODING: 'utf-8',
      IOTHUB_DELIVERY_COUNT: '2',
      IOTHUB_SEQUENCE_NUMBER: '7',
      IOTHUB_ENQUEUED_TIME: '2026-01-01T00:00:00.000Z',
      IOTHUB_EXPIRES: '2026-01-02T00:00:00.000Z',
      IOTHUB_PROP_FAN_SPEED: '3',
      IOTHUB_PROP_ROOM: 'a IOTHUB_PROP_ADMIN=1',
      IOTHUB_PROPERTIES: '{"fan-speed":"3","fan.speed":"4","room":"a\\nIOTHUB_PROP_ADMIN=1"}',
    });
  });

  testPython('descriptors 0, 1 and 2 and no other', async () => {
    const text = `import os
print([fd for fd in range(3, 1024) if os.path.exists(f'/proc/self/fd/{fd}') and os.readlink(f'/proc/self/fd/{fd}') != '/dev/null'])`;
    const file = script(`#!/usr/bin/env python3\n${text}\n`);
    expect(readdirSync('/proc/self/fd').length).toBeGreaterThan(4);
    const answer = await runOnce(programHandler({ name: 'h', file }));
    expect(String(answer.reply)).toBe('[]\n');
  });

  test('its working directory, its arguments as they are, and a umask that keeps its files private', async () => {
    const cwd = tempDir();
    const before = process.umask(0o022);
    const handler = programHandler({
      name: 'h',
      file: sh('umask; pwd; for a; do echo "[$a]"; done'),
      args: ['$(id)', '; ls', '*', 'a b'],
      cwd,
    });
    const answer = await runOnce(handler);
    expect(String(answer.reply)).toBe(`0077\n${cwd}\n[$(id)]\n[; ls]\n[*]\n[a b]\n`);
    expect(process.umask(before)).toBe(0o022);
  });

  test('standard streams that can be opened by their names, as scripts do', async () => {
    const text = 'cat /dev/stdin > /dev/stdout; echo seen > /dev/stderr; exit 65';
    const answer = await runOnce(programHandler({ name: 'h', file: sh(text) }), {
      body: Buffer.from('hello'),
    });
    expect(answer).toMatchObject({ outcome: 'reject', reason: 'seen', reply: Buffer.from('hello') });
  });

  test('a session and process group of its own', async () => {
    const answer = await answerOf('cut -d" " -f1,5,6 /proc/self/stat; cut -d" " -f1,5,6 /proc/$$/stat');
    const [, own] = String(answer.reply).trim().split('\n');
    const [pid, group, session] = own!.split(' ');
    expect([group, session]).toEqual([pid, pid]);
  });
});

describe('what a program prints', () => {
  test('standard output is the reply', async () => {
    expect(String((await answerOf('echo \'{"ok":true}\'')).reply)).toBe('{"ok":true}\n');
  });

  test('the last line of standard error that says something is the reason', async () => {
    expect(
      await answerOf('echo first >&2; echo "<3>no such service" >&2; echo "  " >&2; exit 1'),
    ).toMatchObject({
      reason: 'no such service',
    });
    expect(await answerOf('printf "no newline" >&2; exit 65')).toMatchObject({ reason: 'no newline' });
    expect(await answerOf('exit 65')).toMatchObject({ reason: 'exit 65' });
  });

  test('a reason has no control characters, is valid text and at most 256 long', async () => {
    const answer = await answerOf(String.raw`printf 'a\033]0;x\007b\377\302\205c\342\200\256d' >&2; exit 1`);
    expect(answer.reason).toBe('a ]0;x b\ufffd c d');
    const long = await answerOf('head -c 5000 /dev/zero | tr "\\0" x >&2; exit 1');
    expect(long.reason).toHaveLength(256);
  });

  test('standard error goes to the log line by line, at the level of its prefix', async () => {
    const log = recordingLog();
    const file = sh(`cat >&2 <<'END'
<2>two
<3>three
<4>four
<5>five
<6>six
<7>seven
E! ee
W! ww
I! ii
D! dd
plain
END`);
    await runOnce(programHandler({ name: 'h', file }), {}, { log });
    expect(log.entries.map(({ level, message }) => `${level} ${message}`)).toEqual([
      'error two',
      'error three',
      'warn four',
      'info five',
      'info six',
      'debug seven',
      'error ee',
      'warn ww',
      'info ii',
      'debug dd',
      'info plain',
    ]);
  });

  test('of endless output 64 KiB are kept, with one warning for each stream, in flat memory', async () => {
    const log = recordingLog();
    const before = process.memoryUsage.rss();
    const text = 'yes | head -c 1000000000; yes error | head -c 300000000 >&2; echo "the end" >&2; exit 1';
    const answer = await runOnce(programHandler({ name: 'h', file: sh(text) }), {}, { log });
    expect(answer).toMatchObject({ outcome: 'reject', reason: 'the end' });
    expect(answer.reply).toHaveLength(64 * 1024);
    expect(log.entries.filter(({ level }) => level === 'warn').map(({ message }) => message)).toEqual([
      'more than 64 KiB on standard output; the rest is discarded',
      'too much on standard error; only its end is looked at',
    ]);
    expect(log.entries.length).toBeLessThanOrEqual(1_002);
    expect(process.memoryUsage.rss() - before).toBeLessThan(150 * 1024 * 1024);
  });

  test('output without a newline and of no encoding is one cut line', async () => {
    const log = recordingLog();
    const text = 'head -c 50000000 /dev/urandom | tr -d "\\n" >&2; exit 1';
    const answer = await runOnce(programHandler({ name: 'h', file: sh(text) }), {}, { log });
    expect(answer.outcome).toBe('reject');
    expect(answer.reason!.length).toBeLessThanOrEqual(256);
    const lines = log.entries.filter(({ level }) => level !== 'warn');
    expect(lines).toHaveLength(1);
    expect(lines[0]!.message.length).toBeLessThanOrEqual(2_000);
    expect(lines[0]!.message).not.toMatch(/[\u0000-\u001f\u007f-\u009f]/);
  });
});

/** Processes whose environment or command line has this text, zombies included. */
function processesWith(text: string): string[] {
  return readdirSync('/proc').filter((entry) => {
    if (!/^\d+$/.test(entry) || Number(entry) === process.pid) return false;
    try {
      return ['environ', 'cmdline'].some((file) => readFileSync(`/proc/${entry}/${file}`).includes(text));
    } catch {
      return false;
    }
  });
}

/** Children of this process that are dead and not collected. */
function zombies(): string[] {
  return readdirSync('/proc').filter((entry) => {
    try {
      const stat = readFileSync(`/proc/${entry}/stat`, 'utf8');
      const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return state === 'Z' && Number(parent) === process.pid;
    } catch {
      return false;
    }
  });
}

describe('nothing is left behind', () => {
  const marker = (): { name: string; environment: Record<string, string> } => {
    const name = `trace-${crypto.randomUUID()}`;
    return { name, environment: { TRACE: name } };
  };

  test.each([
    ['a child in the background', 'sleep 60 & exit 0'],
    ['a grandchild that holds standard output', '(sleep 60 &) ; echo done; exit 0'],
    ['a grandchild in its own session that holds standard output', 'setsid sleep 60 & sleep 0.2; exit 0'],
    [
      'a double fork that closed its descriptors',
      '(setsid sh -c "sleep 60 & sleep 60" <&- >&- 2>&- &) ; sleep 0.2; exit 0',
    ],
    [
      'one that ignores SIGTERM',
      'setsid sh -c \'trap "" TERM; while :; do sleep 1; done\' & sleep 0.2; exit 0',
    ],
  ])('%s', async (_, text) => {
    const { name, environment } = marker();
    const answer = await answerOf(text, { environment });
    expect(answer.outcome).toBe('accept');
    expect(processesWith(name)).toEqual([]);
    expect(zombies()).toEqual([]);
  });

  test('a hundred grandchildren in sessions of their own, of a program that hangs', async () => {
    const { name, environment } = marker();
    const text = 'for i in $(seq 100); do setsid sleep 60 & done; sleep 60';
    const answer = await answerOf(text, { environment, timeoutMs: 2_000 });
    expect(answer).toMatchObject({ outcome: 'release', decidedBy: 'fault' });
    expect(processesWith(name)).toEqual([]);
    expect(zombies()).toEqual([]);
  });

  test('a program that hands itself on from session to session', async () => {
    const { name, environment } = marker();
    const cwd = tempDir();
    const text = `echo x >> hops
[ "$(wc -l < hops)" -lt 3000 ] && setsid "$0" &
[ "\$1" = first ] || exit 0
while [ "$(wc -l < hops)" -lt 20 ]; do sleep 0.02; done`;
    const handler = programHandler({ name: 'h', file: sh(text), args: ['first'], cwd, environment });
    const answer = await runOnce(handler);
    expect(answer.outcome).toBe('accept');
    expect(processesWith(name)).toEqual([]);
    const hops = readFileSync(join(cwd, 'hops')).length;
    expect(hops).toBeGreaterThanOrEqual(20);
    await new Promise((done) => setTimeout(done, 200));
    expect(readFileSync(join(cwd, 'hops')).length).toBe(hops);
  });

  test('a program that ignores SIGTERM is killed after the grace', async () => {
    const { name, environment } = marker();
    const answer = await answerOf('trap "" TERM; while :; do sleep 1; done', {
      environment,
      timeoutMs: 1_000,
      clock: hastyClock,
    });
    expect(answer).toMatchObject({ outcome: 'release', status: 504 });
    expect(processesWith(name)).toEqual([]);
    expect(zombies()).toEqual([]);
  });

  test('two hundred runs leave no zombie and no descriptor', async () => {
    const handler = programHandler({ name: 'h', file: '/bin/true' });
    await runOnce(handler);
    const before = readdirSync('/proc/self/fd').length;
    for (let round = 0; round < 50; round++) {
      await Promise.all(Array.from({ length: 4 }, () => runOnce(handler)));
    }
    expect(zombies()).toEqual([]);
    // A stock of pipes is kept ready.
    expect(readdirSync('/proc/self/fd').length).toBeLessThanOrEqual(before + 24);
  });
});

test('without descriptors it is later, and nothing stays behind when there are some again', () => {
  const root = join(import.meta.dirname, '../..');
  const temporary = tempDir();
  const agent = script(
    `import { openSync, closeSync, readdirSync } from 'node:fs';
import { programHandler } from '${root}/dist/handlers/program.js';
import { silentLog as log } from '${root}/dist/log.js';
const handler = programHandler({ name: 'h', file: '/bin/cat' });
const { signal } = new AbortController();
const event = { event: 'command', deviceId: 'd', deliveryCount: 0, properties: {}, body: Buffer.from('{}') };
const run = () => handler.run(event, { attempt: 1, timeoutMs: 10000, log, stopping: signal, killing: signal });
const files = () => ['/dev/shm', '${temporary}'].flatMap((dir) => readdirSync(dir)).filter((name) => name.startsWith('iothub-'));
const shown = [];
for (let left = 0; left < 12; left++) {
  const held = [];
  try { for (;;) held.push(openSync('/dev/null')); } catch {}
  for (let n = 0; n < left; n++) closeSync(held.pop());
  shown.push((await run()).outcome);
  held.forEach((descriptor) => closeSync(descriptor));
}
console.log(JSON.stringify([shown[0], (await run()).outcome, files()]));
`,
    { name: 'agent.mjs' },
  );
  const { stdout } = spawnSync('sh', ['-c', 'ulimit -n 100; exec "$@"', 'sh', process.execPath, agent], {
    encoding: 'utf8',
    env: { ...process.env, TMPDIR: temporary },
  });
  expect(JSON.parse(stdout)).toEqual(['release', 'accept', []]);
});

describe('told to stop', () => {
  test.each([
    ['that finishes', `trap 'exit 0' TERM; : > ready; sleep 60 & wait`, 'accept', 'handler'],
    ['that says later', `trap 'exit 75' TERM; : > ready; sleep 60 & wait`, 'release', 'handler'],
    ['that says no', `trap 'exit 65' TERM; : > ready; sleep 60 & wait`, 'reject', 'handler'],
    ['that just dies', `: > ready; exec sleep 60`, 'release', 'stopping'],
    ['that fails of it', `trap 'exit 143' TERM; : > ready; sleep 60 & wait`, 'release', 'stopping'],
  ])('a program %s', async (_, text, outcome, decidedBy) => {
    const cwd = tempDir();
    const stop = new AbortController();
    const handler = programHandler({ name: 'h', file: sh(text), cwd });
    const answer = runOnce(handler, {}, { stopping: stop.signal });
    await vi.waitUntil(() => existsSync(join(cwd, 'ready')), { timeout: 10_000 });
    stop.abort();
    expect(await answer).toMatchObject({ outcome, decidedBy });
  });

  test('a program that does not listen is killed when patience ends', async () => {
    const cwd = tempDir();
    const stop = new AbortController();
    const kill = new AbortController();
    const handler = programHandler({
      name: 'h',
      file: sh('trap "" TERM; : > ready; while :; do sleep 1; done'),
      cwd,
    });
    const answer = runOnce(handler, {}, { stopping: stop.signal, killing: kill.signal });
    await vi.waitUntil(() => existsSync(join(cwd, 'ready')), { timeout: 10_000 });
    stop.abort();
    kill.abort();
    expect(await answer).toMatchObject({ outcome: 'release', decidedBy: 'stopping' });
  });
});

describe('a hostile message', () => {
  test('two hundred names, values and bodies: nothing is executed, no argument changes', async () => {
    const dir = tempDir();
    const canary = join(dir, 'canary');
    const file = script(`#!/bin/sh\nprintf '%s,' "$#" "$@"\nexit 0\n`);
    // A shell, were there one, would put what the message says in place of the second.
    const args = ['one', '$IOTHUB_PROP_COMMAND'];
    const handler = programHandler({ name: 'h', file, args, cwd: dir });
    const poisons = [
      `; touch ${canary}`,
      `$(touch ${canary})`,
      `\`touch ${canary}\``,
      `| touch ${canary}`,
      `&& touch ${canary}`,
      `\ntouch ${canary}\n`,
      `() { :;}; touch ${canary}`,
      '-rf',
      '--help',
      '../../../../bin/sh',
      '/bin/sh',
      '..%2f..%2fbin%2fsh',
      "'",
      '"',
      '\\',
      '%s%n%x',
      '=',
      'LD_PRELOAD',
      'PATH',
      '__proto__',
      'constructor',
      '\u202e\u0007\u001b[2J',
      '\ud800',
      'x'.repeat(20_000),
      '💥',
    ];
    const messages = Array.from({ length: 200 }, (_, index) => {
      const name = poisons[index % poisons.length]!;
      const value = poisons[(index * 7 + Math.floor(index / poisons.length)) % poisons.length]!;
      const properties = Object.fromEntries([
        [name, value],
        ['command', name],
      ]);
      return {
        messageId: value,
        correlationId: name,
        userId: value,
        contentType: name,
        properties,
        body: Buffer.from(value),
      };
    });
    for (let index = 0; index < messages.length; index += 8) {
      const answers = await Promise.all(
        messages.slice(index, index + 8).map((message) => runOnce(handler, message)),
      );
      for (const answer of answers) {
        expect(answer.outcome).toBe('accept');
        expect(String(answer.reply)).toBe('2,one,$IOTHUB_PROP_COMMAND,');
      }
    }
    expect(existsSync(canary)).toBe(false);
    expect(readdirSync(dir)).toEqual([]);
  });

  test('a property cannot become a variable of another name', async () => {
    const properties = { PATH: '/evil', 'X=Y\nLD_PRELOAD': '/evil.so', HOME: '/evil' };
    const answer = await runOnce(programHandler({ name: 'h', file: sh('env') }), { properties });
    const names = String(answer.reply)
      .split('\n')
      .filter((line) => line.includes('/evil') && !line.startsWith('IOTHUB_PROPERTIES'));
    expect(names.sort()).toEqual([
      'IOTHUB_PROP_HOME=/evil',
      'IOTHUB_PROP_PATH=/evil',
      'IOTHUB_PROP_X_Y_LD_PRELOAD=/evil.so',
    ]);
  });

  test.each([
    ['a NUL in a property', { properties: { a: 'x\0y' } }, 'a property contains a NUL character'],
    [
      'a NUL in the name of one',
      { properties: { 'a\0': 'x' } },
      'the name of a property contains a NUL character',
    ],
    ['a NUL in its message id', { messageId: 'm\0' }, 'messageId contains a NUL character'],
    [
      'a property too large for an environment',
      { properties: { a: 'x'.repeat(200_000) } },
      /too large .*IOTHUB_PROP_A/,
    ],
    [
      'too much of everything',
      { properties: Object.fromEntries(Array.from({ length: 3_000 }, (_, i) => [`p${i}`, 'x'.repeat(50)])) },
      /too large .*IOTHUB_PROPERTIES/,
    ],
  ])('%s is rejected before anything runs', async (_, message, reason) => {
    const dir = tempDir();
    const answer = await runOnce(programHandler({ name: 'h', file: sh(`: > ran`), cwd: dir }), message);
    expect(answer).toMatchObject({ outcome: 'reject', status: 400 });
    expect(answer.reason).toMatch(reason);
    expect(readdirSync(dir)).toEqual([]);
  });
});

testPython('handlers may be written in Python and in JavaScript', async () => {
  const python = script(`#!/usr/bin/env python3
import json, os, sys
body = json.load(sys.stdin)
print(json.dumps({"twice": body["n"] * 2, "id": os.environ["IOTHUB_MESSAGE_ID"]}))
`);
  const node = script(
    `#!/usr/bin/env node
let text = '';
for await (const chunk of process.stdin) text += chunk;
console.error('<3>no ' + JSON.parse(text).n);
process.exitCode = 65;
`,
    { name: 'handler.mjs' },
  );
  const event = commandEvent({ messageId: 'm9', body: Buffer.from('{"n":21}') });
  const first = await runOnce(programHandler({ name: 'py', file: python }), event);
  expect(JSON.parse(String(first.reply))).toEqual({ twice: 42, id: 'm9' });
  expect(await runOnce(programHandler({ name: 'js', file: node }), event)).toMatchObject({
    outcome: 'reject',
    reason: 'no 21',
  });
});

test('a file that was replaced by something broken, or is being written, is later', async () => {
  const file = sh('exit 0');
  const handler = programHandler({ name: 'h', file });
  expect(await runOnce(handler)).toMatchObject({ outcome: 'accept' });
  writeFileSync(file, '#!/gone/interpreter\n');
  expect(await runOnce(handler)).toMatchObject({ outcome: 'release', decidedBy: 'installation' });
  copyFileSync('/bin/true', file);
  expect(await runOnce(handler)).toMatchObject({ outcome: 'accept' });
  const descriptor = openSync(file, 'r+');
  const answer = await runOnce(handler);
  closeSync(descriptor);
  expect(answer).toMatchObject({ outcome: 'release', reason: `${file} is being written` });
});
