import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';

import { systemClock } from '../../src/clock.js';
import { makeCgroup } from '../../src/handlers/cgroup.js';
import { script, sh, tempDir } from './kit.js';

/** A control group (version 2) that we may make groups in, as `Delegate=yes` gives one; undefined where there is none. */
function delegatedCgroup(): string | undefined {
  const mount = /^\S+ \S+ \S+ \S+ (\S+) .* - cgroup2 /m.exec(
    readFileSync('/proc/self/mountinfo', 'utf8'),
  )?.[1];
  if (mount === undefined) return undefined;
  const directory = join(mount, `iothub-test-${process.pid}-${crypto.randomUUID()}`);
  try {
    mkdirSync(directory);
  } catch {
    return undefined;
  }
  const usable = existsSync(join(directory, 'cgroup.kill'));
  rmdirSync(directory);
  return usable ? directory : undefined;
}

const parent = delegatedCgroup();

function cgroup(): string {
  mkdirSync(parent!);
  onTestFinished(() => {
    rmdirSync(parent!);
  });
  return parent!;
}

/** Grandchildren that left session and group, and dropped the mark with the rest of the environment. */
const escapes = 'for i in 1 2 3; do env -i /usr/bin/setsid /bin/sleep 60 & done; sleep 0.3';

test.skipIf(parent === undefined)(
  'a control group holds and kills what leaves session and environment',
  async () => {
    const directory = cgroup();
    const child = spawn(sh(`sleep 0.1; ${escapes}`), { detached: true, stdio: 'ignore' });
    const group = makeCgroup('one', directory)!;
    // Moved by hand: going in and out ourselves takes being in its parent, as the next test is.
    writeFileSync(join(directory, 'handler-one/cgroup.procs'), String(child.pid));
    await once(child, 'exit');
    expect(readFileSync(join(directory, 'handler-one/cgroup.procs'), 'utf8').trim().split('\n')).toHaveLength(
      3,
    );
    expect(await group.kill(systemClock)).toBe(3);
    expect(readdirSync(directory).filter((name) => name.startsWith('handler-'))).toEqual([]);
  },
);

test.skipIf(parent === undefined)('an agent in a control group of its own gives each run one', () => {
  const directory = cgroup();
  const root = join(import.meta.dirname, '../..');
  const agent = script(
    `import { programHandler } from '${root}/dist/handlers/program.js';
import { silentLog } from '${root}/dist/log.js';
const signal = new AbortController().signal;
const warnings = [];
const log = { ...silentLog, warn: (text) => warnings.push(text) };
const event = { event: 'command', deviceId: 'd', deliveryCount: 0, properties: {}, body: Buffer.from('{}') };
const run = { attempt: 1, timeoutMs: 10000, log, stopping: signal, killing: signal };
const answer = await programHandler({ name: 'h', file: process.argv[2] }).run(event, run);
console.log(JSON.stringify([answer.outcome, String(answer.reply), warnings]));
`,
    { dir: tempDir(), name: 'agent.mjs' },
  );
  const handler = sh(`cat /proc/self/cgroup | grep ^0:; ${escapes}`);
  const { stdout } = spawnSync(
    'sh',
    ['-c', 'echo $$ > "$0/cgroup.procs"; exec "$@"', directory, process.execPath, agent, handler],
    { encoding: 'utf8' },
  );
  const [outcome, reply, warnings] = JSON.parse(stdout) as [string, string, string[]];
  expect(outcome).toBe('accept');
  expect(reply).toMatch(/\/iothub-test-[^/]+\/handler-[0-9a-f]{32}\n$/);
  expect(warnings).toEqual(['3 processes that it left behind were killed']);
  expect(readFileSync(join(directory, 'cgroup.procs'), 'utf8')).toBe('');
});

test('where no control group can be made there is none', () => {
  expect(makeCgroup('one', tempDir())).toBeUndefined();
  expect(makeCgroup('one', '/proc')).toBeUndefined();
});
