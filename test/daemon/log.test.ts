import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, test, vi } from 'vitest';

import type { LogLook } from '../../src/daemon/log-format.js';
import { createLog } from '../../src/daemon/log-sink.js';
import { AgentError } from '../../src/errors.js';
import type { Log, LogLevel } from '../../src/log.js';
import { Secret } from '../../src/secret.js';

const plainLook: LogLook = { format: 'text', journal: false, terminal: false, colors: false, utc: false };

/** What the log prints while `say` runs. */
function printed(say: (log: Log) => void, look: Partial<LogLook> = {}, level: LogLevel = 'info'): string {
  const stream = new PassThrough();
  say(createLog({ level, look: { ...plainLook, ...look }, stream }));
  return String(stream.read() ?? '');
}

test('a line has its time, level, text and fields', () => {
  const line = printed((log) => {
    log
      .child({ device: 'dev1' })
      .info('online', { after_ms: 41, why: 'first try', none: '', list: [1, 'a b'] });
  });
  expect(line).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info {2}online device=dev1 /);
  expect(line).toContain('after_ms=41 why="first try" none="" list=[1,"a b"]\n');
});

test('for journald a line begins with its priority, and has no time of its own', () => {
  const lines = printed(
    (log) => {
      log.error('e');
      log.warn('w');
      log.info('i', { a: 1 });
      log.debug('d');
      log.trace('t');
    },
    { journal: true },
    'trace',
  );
  expect(lines).toBe('<3>e\n<4>w\n<6>i a=1\n<7>d\n<7>t\n');
  expect(
    printed(
      (log) => {
        log.warn('w');
      },
      { journal: true, format: 'json' },
    ),
  ).toMatch(/^<4>\{"time":/);
});

test('as JSON a line parses, and no field takes the place of the text or the level', () => {
  const line = printed(
    (log) => {
      log.warn('real', { msg: 'forged', level: 'x', a: { b: [1] } });
    },
    { format: 'json' },
  );
  expect(JSON.parse(line)).toEqual({
    time: expect.stringMatching(/Z$/),
    level: 'warn',
    msg: 'real',
    msg_: 'forged',
    level_: 'x',
    a: { b: [1] },
  });
});

test('on a terminal the time is short, and colours are only there when it shows them', () => {
  expect(
    printed(
      (log) => {
        log.info('x');
      },
      { terminal: true },
    ),
  ).toMatch(/^\d\d:\d\d:\d\d\.\d{3} info {2}x\n$/);
  expect(
    printed(
      (log) => {
        log.info('x');
      },
      { terminal: true, utc: true },
    ),
  ).toMatch(/^\d\d:\d\d:\d\d\.\d{3}Z info/);
});

test('only levels that were asked for are printed', () => {
  const all = (log: Log): void => {
    for (const level of ['error', 'warn', 'info', 'debug', 'trace'] as const) log[level](level);
  };
  expect(printed(all, { journal: true }, 'warn')).toBe('<3>error\n<4>warn\n');
  expect(printed(all, { journal: true }, 'error')).toBe('<3>error\n');
});

test('an error gives its text, its causes and its hint, and at debug its stack on the same line', () => {
  const error = new AgentError('refused', 'the hub refused', {
    cause: new Error('ECONNRESET'),
    hint: 'look at the key',
  });
  const say = (log: Log): void => {
    log.error('offline', { error });
  };
  expect(printed(say, { journal: true })).toBe(
    '<3>offline error="the hub refused: ECONNRESET" hint="look at the key"\n',
  );
  const line = printed(say, { journal: true }, 'debug');
  expect(line).toContain('log.test.ts');
  expect(line.split('\n')).toHaveLength(2);
});

const attack = '\n\u001b]0;x\u0007FAKE level=error \u009b31m \u202e \u2028';

test.each(['text', 'json'] as const)(
  'no text from outside breaks the line or drives the terminal, as %s',
  (format) => {
    const line = printed(
      (log) => {
        log.info(attack, { id: attack, [attack]: attack, deep: { [attack]: [attack] } });
      },
      { format },
    );
    expect(line.endsWith('\n')).toBe(true);
    expect(line.slice(0, -1)).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u2028\u202e]/);
  },
);

test.each(['text', 'json'] as const)('no secret is printed in any form, as %s', (format) => {
  const value = 'c2VjcmV0 "key" of a \\device';
  const secret = new Secret(value);
  const line = printed(
    (log) => {
      log.warn(`token ${value}`, {
        secret,
        error: new Error(`SharedAccessKey=hidden; ${value}`),
        encoded: encodeURIComponent(value),
        hex: Buffer.from(value).toString('hex'),
        base64: { of: [Buffer.from(value).toString('base64')] },
        sas: 'SharedAccessSignature sr=h&sig=abcdef%3D&se=1',
      });
    },
    { format },
    'debug',
  );
  for (const form of [
    value,
    encodeURIComponent(value),
    Buffer.from(value).toString('hex'),
    Buffer.from(value).toString('base64'),
  ]) {
    expect(line).not.toContain(form);
  }
  expect(line).not.toMatch(/abcdef|hidden|c2Vj|device/);
  expect(line).toContain('[secret]');
});

test.each(['text', 'json'] as const)('a line has an end, however much goes into it, as %s', (format) => {
  const huge = 'x'.repeat(1_000_000);
  const line = printed(
    (log) => {
      log.info(huge, { huge });
    },
    { format },
  );
  expect(line.length).toBeLessThan(10_000);
  if (format === 'json') expect(JSON.parse(line)).toMatchObject({ level: 'info', cut: expect.any(Number) });
});

test('a field of any shape is printed, and none throws', () => {
  const circle: Record<string, unknown> = {};
  circle['self'] = circle;
  const hostile = {
    circle,
    big: 10n,
    symbol: Symbol('s'),
    code: () => 1,
    missing: undefined,
    nothing: null,
    bytes: Buffer.from('ab'),
    never: new Date(NaN),
    thrower: {
      toJSON: () => {
        throw new Error('no');
      },
    },
    getter: {
      get x(): never {
        throw new Error('no');
      },
    },
    half: '\ud800',
  };
  for (const format of ['text', 'json'] as const) {
    const line = printed(
      (log) => {
        log.info('x', hostile);
      },
      { format },
    );
    expect(line.split('\n')).toHaveLength(2);
    expect(line).toContain('Circular');
  }
});

test('when the reader is slow, lines are dropped and counted, and the count is said first', async () => {
  const stream = new PassThrough({ highWaterMark: 16 });
  const log = createLog({ level: 'debug', look: { ...plainLook, journal: true }, stream });
  for (let n = 0; n < 2000; n++) log.debug('x'.repeat(1000), { n });
  expect(stream.writableLength).toBeLessThan(600_000);
  let text = '';
  stream.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  await log.flush();
  log.info('back');
  await expect.poll(() => text.includes('<6>back\n')).toBe(true);
  const lines = text.trimEnd().split('\n');
  const seen = lines.filter((line) => line.startsWith('<7>xxx')).length;
  const [, dropped] = /<4>log lines were dropped because nobody read them dropped=(\d+)\n/.exec(text) ?? [];
  expect(seen + Number(dropped)).toBe(2000);
  expect(seen).toBeGreaterThan(300);
});

test('of lines that repeat themselves twenty a minute are printed, and the others counted; debug shows all', () => {
  vi.useFakeTimers();
  try {
    const stream = new PassThrough();
    const log = createLog({ level: 'debug', look: { ...plainLook, journal: true }, stream });
    const flood = (count: number) => {
      for (let n = 0; n < count; n++) {
        log.child({ n }).warn('no handler for a command', { message: `m${n}` });
        log.debug('received', { n });
      }
    };
    const printedNow = () => String(stream.read() ?? '').split('\n');
    flood(300);
    log.info('another line');
    const first = printedNow();
    expect(first.filter((line) => line.startsWith('<4>no handler'))).toHaveLength(20);
    expect(first.filter((line) => line.startsWith('<7>received'))).toHaveLength(300);
    expect(first).toContain('<6>another line');
    vi.advanceTimersByTime(60_000);
    expect(printedNow()).toEqual(['<4>no handler for a command heldBack=280 seconds=60', '']);
    flood(1);
    expect(printedNow()).toEqual(['<4>no handler for a command n=0 message=m0', '<7>received n=0', '']);
    vi.advanceTimersByTime(120_000);
    expect(printedNow()).toEqual(['']);
  } finally {
    vi.useRealTimers();
  }
});

test('a stream that breaks ends the log and nothing else', async () => {
  const stream = new PassThrough();
  const log = createLog({ level: 'info', look: plainLook, stream });
  stream.destroy(Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }));
  await new Promise((resolve) => stream.once('close', resolve));
  log.info('x');
  await log.flush();
});

const program = `
  import { createLog } from '${join(import.meta.dirname, '../../dist/daemon/log-sink.js')}';
  const look = { format: 'text', journal: true, terminal: false, colors: false, utc: false };
  const log = createLog({ level: 'debug', look, stream: process.stderr });
  let worst = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    worst = Math.max(worst, performance.now() - last);
    last = performance.now();
    for (let n = 0; n < 200; n++) log.debug('x'.repeat(200), { n });
  }, 5);
  setTimeout(async () => {
    clearInterval(timer);
    process.stdout.write(JSON.stringify({ worst, queued: process.stderr.writableLength }));
    await log.flush();
    process.exit(7);
  }, 500);
`;

test('a reader that has stopped reading stops neither the process nor its end', async () => {
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  // Nobody reads child.stderr until it has ended.
  const chunks: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
  const [code] = (await Promise.race([
    once(child, 'exit'),
    delay(20_000, ['still running'], { ref: false }),
  ])) as unknown[];
  expect(code).toBe(7);
  const { worst, queued } = JSON.parse(Buffer.concat(chunks).toString()) as { worst: number; queued: number };
  // Blocked, it would not have come back at all; the bound only allows for a busy machine.
  expect(worst).toBeLessThan(2000);
  expect(queued).toBeGreaterThan(400_000);
  expect(queued).toBeLessThan(600_000);
  child.stderr.destroy();
});
