import { chmod, mkdir, readFile, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';

import type { Emulator, EmulatorOptions } from '../../src/emulator/emulator.js';
import { device, startHub } from '../amqp/hub.js';
import { environmentOf, Folder, ToolProcess } from './tool.js';

/** A hub, a folder for handlers, and an agent over them when `start` is called. */
async function setUp(options: EmulatorOptions = {}) {
  const hub = await startHub(options);
  const folder = await Folder.make();
  const env = await environmentOf(hub, device, folder);
  return {
    hub,
    folder,
    start: async (config: string) => {
      const file = await folder.write('agent.toml', config);
      const agent = new ToolProcess('iothub-device', ['run', '--config', file], { env, cwd: folder.path });
      await agent.says(/online/);
      return agent;
    },
    lines: async (name: string) =>
      (await readFile(`${folder.path}/${name}`, 'utf8').catch(() => ''))
        .split('\n')
        .filter((line) => line !== ''),
    async [Symbol.asyncDispose]() {
      await hub[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

/** What the hub was told about a command, each time that it was told, and then what it told the sender. */
function heardOf({ record }: Emulator, messageId: string): { outcomes: string[]; feedback: string[] } {
  return {
    outcomes: record
      .of('outcome')
      .filter((one) => one.messageId === messageId)
      .map(({ outcome }) => outcome.outcome),
    feedback: record
      .of('feedback')
      .flatMap(({ records }) => records)
      .filter(({ originalMessageId }) => originalMessageId === messageId)
      .map(({ statusCode }) => statusCode),
  };
}

const accepted = { outcomes: ['accepted'], feedback: ['Success'] };
const rejected = { outcomes: ['rejected'], feedback: ['Rejected'] };
/** Released, and accepted when it comes again. */
const later = { outcomes: ['released', 'accepted'], feedback: ['Success'] };
/** Released twice, and rejected the third time. */
const poison = { outcomes: ['released', 'released', 'rejected'], feedback: ['Rejected'] };

/** Shell text for each way in which a handler can end, and what the hub is to hear. */
const endings: Record<string, [text: string, heard: typeof accepted, more?: string]> = {
  'exit 0': ['exit 0', accepted],
  ...Object.fromEntries(
    [1, 2, 64, 65, 66, 67, 68, 70, 72, 73, 76, 77, 78, 100, 125, 255].map(
      (code): [string, [string, typeof accepted]] => [`exit ${code}`, [`exit ${code}`, rejected]],
    ),
  ),
  ...Object.fromEntries(
    [69, 71, 74, 75, 126, 127].map((code): [string, [string, typeof accepted]] => [
      `exit ${code}`,
      [`[ "$IOTHUB_ATTEMPT" -gt 1 ] || exit ${code}`, later],
    ]),
  ),
  'exit 4 = accept': ['exit 4', accepted, 'exit = { 4 = "accept" }'],
  'exit 12 in a range': ['[ "$IOTHUB_ATTEMPT" -gt 1 ] || exit 12', later, 'exit = { 10-19 = "release" }'],
  'exit 0 = reject': ['exit 0', rejected, 'exit = { 0 = "reject" }'],
  SIGSEGV: ['kill -SEGV $$', poison],
  SIGKILL: ['kill -KILL $$', poison],
  'timeout, then well': ['[ "$IOTHUB_ATTEMPT" -gt 1 ] || sleep 60', later, 'timeout = "300ms"'],
  'timeout = reject': ['sleep 60', rejected, 'timeout = "300ms"\non_timeout = "reject"'],
  'stdin closed': ['exec 0<&-; exit 0', accepted],
  'stdout closed': ['exec 1>&-; exit 0', accepted],
  'interpreter is missing': ['', { outcomes: ['released'], feedback: [] }],
  'not executable': ['', { outcomes: ['released'], feedback: [] }],
  'writable by everyone': ['', { outcomes: ['released'], feedback: [] }],
  'not there': ['', { outcomes: ['released'], feedback: [] }],
};

test('what the hub hears, and tells the sender, for each way in which a handler can end', async () => {
  await using it = await setUp();
  const handlers: string[] = [];
  for (const [index, [name, [text, , more = '']]] of Object.entries(endings).entries()) {
    const file = `h${index}`;
    if (name === 'interpreter is missing') await it.folder.write(file, '#!/no/such/thing\n', 0o700);
    else if (name === 'not executable') await it.folder.write(file, '#!/bin/sh\n', 0o600);
    else if (name !== 'not there') await it.folder.script(file, `cat >/dev/null; ${text}`);
    if (name === 'writable by everyone') await chmod(`${it.folder.path}/${file}`, 0o777);
    handlers.push(
      `[[handlers]]\nname = "${name}"\nexec = ["./${file}"]\nmatch = { message_id = "${file}" }\n${more}\n`,
    );
  }
  await using _agent = await it.start(
    `[commands]\nconcurrency = 16\nrelease_delay = "200ms..200ms"\n${handlers.join('\n')}`,
  );
  const names = Object.keys(endings);
  for (const index of names.keys()) {
    it.hub.sendCommand({ deviceId: device, messageId: `h${index}`, body: 'go', ack: 'full' });
  }
  // What cannot be run is released again and again.
  const heard = () =>
    Object.fromEntries(
      names.map((name, index) => {
        const { outcomes, feedback } = heardOf(it.hub, `h${index}`);
        const isBroken = endings[name]?.[0] === '';
        return [name, { outcomes: isBroken ? [...new Set(outcomes)] : outcomes, feedback }];
      }),
    );
  const wanted = Object.fromEntries(names.map((name) => [name, endings[name]![1]]));
  await vi.waitFor(
    () => {
      expect(heard()).toEqual(wanted);
    },
    { timeout: 25_000, interval: 100 },
  );
});

test('the last line that a handler says is what the hub is told as the reason', async () => {
  await using it = await setUp();
  const script = await it.folder.script(
    'no',
    'cat >/dev/null; echo "first" >&2; echo "disk is full" >&2; exit 65',
  );
  await using _agent = await it.start(`[[handlers]]\nexec = ["${script}"]`);
  it.hub.sendCommand({ deviceId: device, messageId: 'c1', body: 'go', ack: 'full' });
  const [outcome] = await it.hub.waitFor((record) => {
    const found = record.of('outcome');
    return found.length > 0 && found;
  });
  expect(outcome!.outcome).toMatchObject({ outcome: 'rejected', description: 'disk is full' });
});

/** With `IOTHUB_FAULTS=long` 2 s of a lock of 10 s each, else a tenth and a fifth of that. */
const [runSeconds, lockMs] = process.env['IOTHUB_FAULTS'] === 'long' ? [2, 10_000] : [0.2, 2_000];

test('fifty queued commands go through four slots without a second delivery, in order', async () => {
  await using it = await setUp({ commands: { lockMs } });
  for (let n = 0; n < 50; n++) {
    it.hub.sendCommand({
      deviceId: device,
      messageId: `c${n}`,
      body: 'go',
      properties: { lane: String(n % 4) },
    });
  }
  const script = await it.folder.script(
    'slow',
    `cat >/dev/null; echo "$IOTHUB_MESSAGE_ID" >> runs; sleep ${runSeconds}`,
  );
  await using _agent = await it.start(
    `[commands]\norder = { key = "lane" }\n[[handlers]]\nexec = ["${script}"]\n`,
  );
  await it.hub.waitFor((record) => record.of('outcome').length === 50, { timeoutMs: 50_000 });
  const runs = await it.lines('runs');
  expect(runs.toSorted()).toEqual(Array.from({ length: 50 }, (_, n) => `c${n}`).toSorted());
  for (let lane = 0; lane < 4; lane++) {
    const numbers = runs.map((id) => Number(id.slice(1))).filter((n) => n % 4 === lane);
    expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
  }
  expect(it.hub.record.of('delivery')).toHaveLength(50);
}, 60_000);

test('a handler that outlives the lock runs once, and its outcome settles the newest delivery', async () => {
  await using it = await setUp({ commands: { lockMs: 400 } });
  const script = await it.folder.script('slow', 'cat >/dev/null; echo run >> runs; sleep 1.5');
  await using _agent = await it.start(`[[handlers]]\nexec = ["${script}"]`);
  it.hub.sendCommand({ deviceId: device, messageId: 'c1', body: 'go', ack: 'full' });
  await vi.waitFor(
    () => {
      expect(heardOf(it.hub, 'c1').feedback).toEqual(['Success']);
    },
    { timeout: 20_000 },
  );
  expect(it.hub.record.of('delivery').length).toBeGreaterThan(1);
  expect(await it.lines('runs')).toEqual(['run']);
});

test('a link that is lost between outcome and settlement costs no second run', async () => {
  await using it = await setUp();
  const script = await it.folder.script('h', 'cat >/dev/null; echo run >> runs; sleep 0.5; exit 65');
  await using agent = await it.start(`[log]\nlevel = "debug"\n[[handlers]]\nexec = ["${script}"]`);
  it.hub.sendCommand({ deviceId: device, messageId: 'c1', body: 'go', ack: 'full' });
  await vi.waitUntil(async () => (await it.lines('runs')).length === 1);
  // From here on the hub hears nothing: the settlement goes into a connection that leads nowhere.
  expect(it.hub.faults.now({ act: 'freeze' })).toBe(1);
  await agent.says(/command settled/);
  expect(heardOf(it.hub, 'c1').outcomes).toEqual([]);
  it.hub.faults.now({ act: 'drop' });
  await vi.waitFor(
    () => {
      expect(heardOf(it.hub, 'c1')).toEqual(rejected);
    },
    { timeout: 25_000 },
  );
  expect(it.hub.record.of('delivery')).toHaveLength(2);
  expect(await it.lines('runs')).toEqual(['run']);
});

test('two hundred commands with hostile names: nothing runs that is not configured', async () => {
  await using it = await setUp();
  const directory = join(it.folder.path, 'handlers');
  await mkdir(join(directory, 'command.d/below'), { recursive: true, mode: 0o700 });
  const evil = '#!/bin/sh\necho "$0" >> ran\n';
  // What a name could lead to, were it more than compared: files that are there and can be run.
  for (const name of ['evil', 'handlers/evil', 'handlers/command.d/below/evil']) {
    await it.folder.write(name, evil, 0o700);
  }
  for (const name of ['restart~', '.hidden', 'restart.dpkg-old', 'a b', '-rf', 'x;id', '*', '..evil']) {
    await it.folder.write(`handlers/command.d/${name}`, evil, 0o700);
  }
  await symlink(join(it.folder.path, 'evil'), join(directory, 'command.d/link'));
  await it.folder.write('handlers/command.d/restart', '#!/bin/sh\necho "$# $*" >> restarted\n', 0o700);
  const names = [
    ...[
      'evil',
      '../evil',
      '../../evil',
      './restart',
      'restart/',
      'restart/../below/evil',
      'below/evil',
      'below',
    ],
    ...[`${it.folder.path}/evil`, '..%2fevil', '..\\evil', 'link', 'restart~', '.hidden', 'restart.dpkg-old'],
    ...[
      'restart\0',
      'restart\n',
      ' restart',
      'RESTART',
      'restart.sh',
      'a b',
      '-rf',
      '--help',
      'x;id',
      '*',
      '?',
    ],
    ...[
      '; ./evil',
      '$(./evil)',
      '`./evil`',
      '| ./evil',
      '&& ./evil',
      '() { :;}; ./evil',
      '\n./evil\n',
      "'",
      '"',
    ],
    ...[
      '__proto__',
      'constructor',
      'toString',
      'hasOwnProperty',
      '..evil',
      '',
      '.',
      '..',
      '/',
      '~',
      '\u202e',
      '💥',
    ],
  ];
  await using _agent = await it.start(`[commands]\nhandlers_dir = "handlers"\nconcurrency = 8\n`);
  const nameOf = (n: number) => names[n % names.length]!;
  const otherOf = (n: number) => nameOf(n * 7 + 3);
  const isRestart = (n: number) => n % 10 === 9;
  // A link that leads elsewhere and a directory have their places and are refused: their commands come again and again.
  const until = (count: number) =>
    it.hub.waitFor(
      (record) => new Set(record.of('outcome').map(({ messageId }) => messageId)).size >= count,
      {
        timeoutMs: 25_000,
      },
    );
  for (let n = 0; n < 200; n++) {
    await until(n - 30); // the hub holds fifty for a device
    const hostile = nameOf(n);
    const other = otherOf(n);
    it.hub.sendCommand({
      deviceId: device,
      messageId: `c${n}`,
      correlationId: other,
      properties: { [other || 'x']: hostile, command: isRestart(n) ? 'restart' : hostile },
      body: hostile,
    });
  }
  await until(200);
  // A NUL cannot be handed to any program.
  const isRun = (n: number) => isRestart(n) && !`${nameOf(n)}${otherOf(n)}`.includes('\0');
  const accepted = it.hub.record
    .of('outcome')
    .filter(({ outcome }) => outcome.outcome === 'accepted')
    .map(({ messageId }) => messageId);
  const wanted = Array.from({ length: 200 }, (_, n) => n).filter(isRun);
  expect(accepted.toSorted()).toEqual(wanted.map((n) => `c${n}`).toSorted());
  expect(await it.lines('restarted')).toEqual(wanted.map(() => '0 '));
  expect(await it.lines('ran')).toEqual([]);
});
