import { chmod, readdir, readFile, readlink } from 'node:fs/promises';
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

test('fifty queued commands go through four slots without a second delivery, in order', async () => {
  await using it = await setUp({ commands: { lockMs: 2_000 } });
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
    'cat >/dev/null; echo "$IOTHUB_MESSAGE_ID" >> runs; sleep 0.2',
  );
  await using _agent = await it.start(
    `[commands]\norder = { key = "lane" }\n[[handlers]]\nexec = ["${script}"]\n`,
  );
  await it.hub.waitFor((record) => record.of('outcome').length === 50, { timeoutMs: 25_000 });
  const runs = await it.lines('runs');
  expect(runs.toSorted()).toEqual(Array.from({ length: 50 }, (_, n) => `c${n}`).toSorted());
  for (let lane = 0; lane < 4; lane++) {
    const numbers = runs.map((id) => Number(id.slice(1))).filter((n) => n % 4 === lane);
    expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
  }
  expect(it.hub.record.of('delivery')).toHaveLength(50);
});

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

test('handlers that hang, flood, fork and ignore SIGTERM keep no other from working, and leave nothing behind', async () => {
  await using it = await setUp();
  const mark = `marker${process.pid}${Date.now()}`;
  const bad: Record<string, string> = {
    hangs: `exec sleep 600`,
    deaf: `trap '' TERM; while :; do sleep 1; done`,
    floods: `yes ${mark}`,
    escapes: `setsid sh -c 'sleep 600; : ${mark}' & setsid setsid sleep 600 & sleep 600`,
    forks: `i=0; while [ $i -lt 50 ]; do (sleep 600) & i=$((i+1)); done; wait`,
  };
  const handlers = await Promise.all(
    Object.entries(bad).map(async ([name, text]) => {
      const file = await it.folder.script(name, text);
      return `[[handlers]]\nexec = ["${file}"]\nmatch = { message_id = "${name}" }\ntimeout = "2s"\non_timeout = "reject"\n`;
    }),
  );
  const good = await it.folder.script('good', 'cat >/dev/null; echo run >> runs');
  await using agent = await it.start(
    `[commands]\nconcurrency = 8\n${handlers.join('')}[[handlers]]\nexec = ["${good}"]\norder = "none"\n`,
  );
  for (const messageId of Object.keys(bad)) it.hub.sendCommand({ deviceId: device, messageId, body: 'go' });
  await it.hub.waitFor((record) => record.of('delivery').length === 5);
  const before = performance.now();
  for (let n = 0; n < 20; n++) it.hub.sendCommand({ deviceId: device, messageId: `good${n}`, body: 'go' });
  await vi.waitFor(
    async () => {
      expect(await it.lines('runs')).toHaveLength(20);
    },
    { timeout: 20_000 },
  );
  // The bad ones still ran: they cannot have been waited for.
  expect(performance.now() - before).toBeLessThan(15_000);
  await it.hub.waitFor((record) => record.of('outcome').length === 25, { timeoutMs: 25_000 });
  expect(Object.keys(bad).map((name) => heardOf(it.hub, name).outcomes)).toEqual(
    Object.keys(bad).map(() => ['rejected']),
  );
  await vi.waitFor(
    async () => {
      expect(await processesIn(it.folder.path)).toEqual([]);
    },
    { timeout: 5_000 },
  );
  const status = await readFile(`/proc/${agent.pid}/status`, 'utf8');
  const residentKiB = Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]);
  expect(residentKiB).toBeLessThan(250_000);
});

/** Processes, other than the agent, whose working directory is this one. */
async function processesIn(directory: string): Promise<string[]> {
  const found: string[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => '');
    if (cwd !== directory) continue;
    const line = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).replaceAll('\0', ' ');
    if (!line.includes('iothub-device')) found.push(line);
  }
  return found;
}
