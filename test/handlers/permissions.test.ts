import { chmodSync, chownSync, linkSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

import { listHandlers } from '../../src/handlers/directory.js';
import { permissionProblem } from '../../src/handlers/permissions.js';
import { programHandler } from '../../src/handlers/program.js';
import { runOnce, script, sh, tempDir } from './kit.js';

const isRoot = process.geteuid?.() === 0;

function handlerIn(...folders: string[]): { dir: string; file: string; inner: string } {
  const dir = tempDir();
  const inner = join(dir, ...folders);
  mkdirSync(inner, { recursive: true });
  return { dir, inner, file: script('#!/bin/sh\n', { dir: inner }) };
}

describe('a file', () => {
  test('of our own in directories of our own may be run, also below a sticky one', () => {
    expect(permissionProblem(handlerIn('a', 'b').file)).toBeUndefined();
    expect(permissionProblem('/bin/sh')).toBeUndefined();
  });

  test.each([
    [0o775, 'its group'],
    [0o757, 'everyone'],
    [0o777, 'everyone'],
  ])('of mode %o is refused', (mode, who) => {
    const { file } = handlerIn();
    chmodSync(file, mode);
    expect(permissionProblem(file)).toBe(`${file} is writable by ${who}; chmod go-w ${file}`);
  });

  test('is refused when a directory above it is writable by others, and taken when that is sticky', () => {
    const { dir, file } = handlerIn('a', 'b');
    chmodSync(join(dir, 'a'), 0o775);
    expect(permissionProblem(file)).toContain(`${join(dir, 'a')} is writable by its group`);
    chmodSync(join(dir, 'a'), 0o1777);
    expect(permissionProblem(file)).toBeUndefined();
  });

  test('is refused when a link leads to it from or through a place that others can change', () => {
    const safe = handlerIn('a');
    const open = handlerIn('a');
    chmodSync(open.inner, 0o777);
    const link = join(safe.dir, 'link');
    symlinkSync(open.file, link);
    expect(permissionProblem(link)).toContain('writable by everyone');
    const folder = join(safe.dir, 'folder');
    symlinkSync(open.inner, folder);
    expect(permissionProblem(join(folder, 'handler'))).toContain('writable by everyone');
    const back = join(open.inner, 'back');
    symlinkSync(safe.file, back);
    expect(permissionProblem(back)).toContain('writable by everyone');
    const good = join(safe.dir, 'good');
    symlinkSync('a/handler', good);
    expect(permissionProblem(good)).toBeUndefined();
  });

  test('behind a loop of links is refused', () => {
    const dir = tempDir();
    symlinkSync('two', join(dir, 'one'));
    symlinkSync('one', join(dir, 'two'));
    expect(permissionProblem(join(dir, 'one'))).toContain('loop');
  });

  test.skipIf(!isRoot)(
    'of another user is refused, and so is one in a directory or behind a link of theirs',
    () => {
      const { dir, inner, file } = handlerIn('a');
      chownSync(file, 12_345, 12_345);
      expect(permissionProblem(file)).toContain('belongs to user 12345');
      chownSync(file, 0, 0);
      chownSync(inner, 12_345, 12_345);
      expect(permissionProblem(file)).toContain('belongs to user 12345');
      chownSync(inner, 0, 0);
      expect(permissionProblem(file)).toBeUndefined();
      expect(permissionProblem(join(dir, 'not-there'))).toBeUndefined();
    },
  );

  test('that is named by a mere name is the one in the PATH that the program gets', async () => {
    const [safe, open] = [tempDir(), tempDir()];
    script('#!/bin/sh\necho safe\n', { dir: safe, name: 'tool' });
    script('#!/bin/sh\necho open\n', { dir: open, name: 'tool', mode: 0o777 });
    const inPath = (PATH: string): ReturnType<typeof runOnce> =>
      runOnce(programHandler({ name: 'h', file: 'tool', environment: { PATH } }));
    expect(String((await inPath(`relative:${safe}:${open}`)).reply)).toBe('safe\n');
    expect((await inPath(`${open}:${safe}`)).reason).toContain('refused');
    expect((await inPath('/nowhere')).reason).toBe('tool is missing from PATH');
  });

  test('that is refused is not run, from one run to the next, and the command is kept', async () => {
    const cwd = tempDir();
    const file = sh('echo ran >> ran');
    const handler = programHandler({ name: 'h', file, cwd });
    expect(await runOnce(handler)).toMatchObject({ outcome: 'accept' });
    chmodSync(file, 0o777);
    expect(await runOnce(handler)).toMatchObject({
      outcome: 'release',
      decidedBy: 'installation',
      reason: `refused: ${file} is writable by everyone; chmod go-w ${file}`,
    });
    expect(await runOnce(programHandler({ name: 'h', file, cwd, checkPermissions: false }))).toMatchObject({
      outcome: 'accept',
    });
  });
});

describe('a handler directory', () => {
  test('gives each file its event by its name, and the first directory goes first', () => {
    const [etc, lib] = [tempDir(), tempDir()];
    for (const dir of [etc, lib])
      for (const kind of ['command', 'method', 'twin']) mkdirSync(join(dir, `${kind}.d`));
    script('#!/bin/sh\n', { dir: join(etc, 'command.d'), name: 'restart' });
    script('#!/bin/sh\n', { dir: join(lib, 'command.d'), name: 'restart.sh' });
    script('#!/bin/sh\n', { dir: join(lib, 'command.d'), name: 'update.py' });
    script('export default 1', { dir: join(lib, 'method.d'), name: 'rebootNow.mjs', mode: 0o644 });
    script('#!/usr/bin/env node\n', { dir: join(lib, 'twin.d'), name: 'telemetryInterval.js' });
    const { found, passedOver } = listHandlers([etc, lib, join(etc, 'none')]);
    expect(found.map(({ refused }) => refused)).toEqual([undefined, undefined, undefined, undefined]);
    expect(found).toMatchObject([
      {
        name: 'command.d/restart',
        on: 'command',
        form: 'program',
        file: join(etc, 'command.d/restart'),
        match: { property: { command: 'restart' } },
      },
      {
        name: 'command.d/update',
        on: 'command',
        form: 'program',
        file: join(lib, 'command.d/update.py'),
        match: { property: { command: 'update' } },
      },
      {
        name: 'method.d/rebootNow',
        on: 'method',
        form: 'module',
        file: join(lib, 'method.d/rebootNow.mjs'),
        match: { method: 'rebootNow' },
      },
      {
        name: 'twin.d/telemetryInterval',
        on: 'twin',
        form: 'program',
        file: join(lib, 'twin.d/telemetryInterval.js'),
        match: { path: 'telemetryInterval' },
      },
    ]);
    expect(passedOver).toEqual([
      { file: join(lib, 'command.d/restart.sh'), by: join(etc, 'command.d/restart') },
    ]);
  });

  test('passes over what is no name, and refuses what is no safe executable file', () => {
    const dir = tempDir();
    const commands = join(dir, 'command.d');
    mkdirSync(commands);
    for (const name of [
      'good~',
      '.good.swp',
      'good.dpkg-old',
      'good.bak',
      '-rf',
      'ümlaut',
      'a b',
      '$(id)',
      'x'.repeat(65),
    ]) {
      script('#!/bin/sh\n', { dir: commands, name });
    }
    writeFileSync(join(commands, 'plain'), '#!/bin/sh\n', { mode: 0o644 });
    script('#!/bin/sh\n', { dir: commands, name: 'open', mode: 0o777 });
    mkdirSync(join(commands, 'folder'));
    symlinkSync('/bin/true', join(commands, 'out'));
    symlinkSync('/nowhere', join(commands, 'dangling'));
    script('#!/bin/sh\n', { dir: commands, name: 'good' });
    symlinkSync('good', join(commands, 'alias'));
    linkSync(join(commands, 'good'), join(commands, 'twice'));
    const { found } = listHandlers([dir]);
    expect(
      Object.fromEntries(found.map(({ file, refused }) => [file.slice(commands.length + 1), refused])),
    ).toEqual({
      alias: undefined,
      good: undefined,
      twice: undefined,
      plain: expect.stringContaining('not executable'),
      open: expect.stringContaining('writable by everyone'),
      folder: 'it is not a file',
      out: 'it is a link that leads elsewhere',
      dangling: expect.stringContaining('ENOENT'),
    });
  });
});
