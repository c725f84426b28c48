import { mkdtemp, readFile, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { SharedFile } from '../../src/store/shared-file.js';
import { isGone, thisProcess } from '../../src/store/process-id.js';

async function folder() {
  const path = await mkdtemp(join(tmpdir(), 'shared-'));
  return { path, file: join(path, 'f'), [Symbol.asyncDispose]: () => rm(path, { recursive: true }) };
}

test('of many changes at a time none is lost', async () => {
  await using place = await folder();
  const files = Array.from({ length: 4 }, () => new SharedFile(place.file));
  await Promise.all(
    files.map(async (file) => {
      for (let n = 0; n < 10; n++) await file.change((text = '0') => String(Number(text) + 1));
    }),
  );
  expect(await readFile(place.file, 'utf8')).toBe('40');
  expect((await readdir(place.path)).sort()).toEqual(['f', 'f.lock']);
});

test('what an interrupted change left is written over, and a change that returns nothing changes nothing', async () => {
  await using place = await folder();
  await writeFile(join(place.path, '.f.new'), 'half of it');
  const file = new SharedFile(place.file);
  await file.change(() => 'all');
  await file.change((text) => (text === 'all' ? undefined : 'wrong'));
  expect(await readFile(place.file, 'utf8')).toBe('all');
});

test('a directory that is not there and a link to somewhere else are refused', async () => {
  await using place = await folder();
  await expect(new SharedFile(join(place.path, 'no/f')).change(() => 'x')).rejects.toMatchObject({
    code: 'cannot-create',
  });
  await symlink('/etc/hostname', place.file);
  await expect(new SharedFile(place.file).change(() => 'x')).rejects.toMatchObject({ code: 'io' });
});

test('a process is gone when its pid is nobody, or somebody else; elsewhere nothing is known of it', () => {
  const id = thisProcess();
  expect(isGone(id)).toBe(false);
  const [boot = '', namespace = '', pid = '', started = ''] = id.split(' ');
  expect(isGone(`${boot} ${namespace} ${pid} ${started}1`)).toBe(true);
  expect(isGone(`${boot} ${namespace} 4194304 ${started}`)).toBe(true);
  expect(isGone(`other ${namespace} 4194304 ${started}`)).toBe(false);
  expect(isGone('myhost 4194304')).toBe(false);
});
