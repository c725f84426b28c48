import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';

import { own } from '../../../src/store/log/owner.js';
import { DurableLog } from '../../../src/store/log/durable-log.js';
import { Promises, WriterProcess } from '../../faults/store-process.js';

const root = mkdtempSync(join(tmpdir(), 'iothub-owner-'));
afterAll(() => {
  rmSync(root, { recursive: true });
});
let directories = 0;
const newDirectory = (): string => join(root, String(directories++));

function startOwner(directory: string): WriterProcess {
  return new WriterProcess({ directory, prefix: 'o', count: 0, promises: new Promises() });
}

test('the second process is told the pid of the first', async () => {
  const directory = newDirectory();
  await using owner = startOwner(directory);
  await owner.until(() => owner.pid !== undefined);
  await expect(DurableLog.open({ directory })).rejects.toMatchObject({
    code: 'try-again',
    message: `the store ${directory} is in use by process ${owner.pid ?? '?'}`,
  });
});

test('a store can be opened at once after its owner was killed, and after it was closed', async () => {
  const directory = newDirectory();
  for (let i = 0; i < 3; i++) {
    await using owner = startOwner(directory);
    await owner.until(() => owner.pid !== undefined);
    await owner.kill();
    const log = await DurableLog.open({ directory });
    await log.close();
  }
  expect(readdirSync(directory).filter((name) => name.startsWith('owner-'))).toEqual([]);
});

test('the name of a dead owner says nothing, even if a process has its pid', async () => {
  const directory = newDirectory();
  await using owner = startOwner(directory);
  await owner.until(() => owner.pid !== undefined);
  await owner.kill();
  const [left] = readdirSync(directory).filter((name) => name.startsWith('owner-'));
  renameSync(join(directory, left!), join(directory, `owner-${process.pid}-0123456789ab`));
  const log = await DurableLog.open({ directory });
  await log.close();
});

test('of many that start together, at most one becomes the owner, and it stays the only one', async () => {
  const directory = newDirectory();
  mkdirSync(directory);
  for (let round = 0; round < 10; round++) {
    const results = await Promise.allSettled(Array.from({ length: 6 }, () => own(directory)));
    const owners = results.filter((result) => result.status === 'fulfilled').map(({ value }) => value);
    expect(owners.length).toBeLessThanOrEqual(1);
    for (const owner of owners) await owner.release();
  }
  const last = await own(directory);
  await expect(own(directory)).rejects.toMatchObject({ code: 'try-again' });
  await last.release();
});

const canUnshare = spawnSync('unshare', ['--net', '--pid', '--fork', 'true']).status === 0;
test.skipIf(!canUnshare)('an owner in another network and pid namespace is seen', async () => {
  const directory = newDirectory();
  const under = ['unshare', '--net', '--pid', '--fork', '--kill-child'];
  await using owner = new WriterProcess({
    directory,
    prefix: 'o',
    count: 0,
    promises: new Promises(),
    under,
  });
  await owner.until(() => owner.pid !== undefined);
  // There, it has a pid that means something else here.
  owner.pid = undefined;
  await expect(DurableLog.open({ directory })).rejects.toMatchObject({ code: 'try-again' });
  await owner.end();
  await (await DurableLog.open({ directory })).close();
});

test('a path that is too long for a socket is none for a store', async () => {
  const directory = join(newDirectory(), 'd'.repeat(90), 'e'.repeat(90));
  const log = await DurableLog.open({ directory });
  await expect(DurableLog.open({ directory })).rejects.toMatchObject({ code: 'try-again' });
  await log.close();
  await (await DurableLog.open({ directory })).close();
});

test('the directory and its files are for nobody else', async () => {
  const directory = newDirectory();
  mkdirSync(directory, { mode: 0o755 });
  chmodSync(directory, 0o755);
  const log = await DurableLog.open({ directory, segmentBytes: 64 * 1024 });
  await log.commitEach(
    Array.from({ length: 100 }, () => ({ put: { kind: 8, value: [Buffer.alloc(1000)] } })),
  );
  const modes = readdirSync(directory).map((name) => statSync(join(directory, name)).mode & 0o777);
  expect(modes.length).toBeGreaterThan(3);
  expect(new Set(modes)).toEqual(new Set([0o600]));
  expect(statSync(directory).mode & 0o777).toBe(0o700);
  await log.close();
});

test('a symbolic link in the place of a file is not followed', async () => {
  const directory = newDirectory();
  const log = await DurableLog.open({ directory });
  await log.commit([{ put: { kind: 8, value: [Buffer.from('x')] } }]);
  await log.close();
  const [segment] = readdirSync(directory).filter((name) => name.endsWith('.log'));
  const target = join(root, 'target');
  writeFileSync(target, 'precious');
  rmSync(join(directory, segment!));
  symlinkSync(target, join(directory, segment!));
  await expect(DurableLog.open({ directory })).rejects.toMatchObject({ code: 'io' });
  expect(existsSync(target)).toBe(true);
});

test('a directory that cannot be made is said to be so', async () => {
  const file = join(root, 'file');
  writeFileSync(file, '');
  await expect(DurableLog.open({ directory: join(file, 'store') })).rejects.toMatchObject({
    code: 'cannot-create',
  });
});
