import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { expect, test } from 'vitest';

const src = join(import.meta.dirname, '../src');
const floorOf: Record<string, number> = {
  identity: 1,
  amqp: 2,
  certificates: 2,
  store: 2,
  handlers: 3,
  emulator: 3,
  agent: 4,
  service: 4,
  daemon: 5,
  cli: 6,
};
const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));
const imports = files.flatMap((file) =>
  [...readFileSync(join(src, file), 'utf8').matchAll(/(?:from|import|import\()\s*'([^']+)'/g)].map(
    (match) => {
      const target = match[1]!;
      const local = target.startsWith('.')
        ? relative(src, normalize(join(src, dirname(file), target)))
        : undefined;
      return { file, target, local };
    },
  ),
);

const folderOf = (file: string): string => (file.includes('/') ? file.split('/')[0]! : '');
const floor = (file: string): number => (file.startsWith('index.') ? 7 : (floorOf[folderOf(file)] ?? 0));
const offenders = (allowed: (i: (typeof imports)[number]) => boolean): string[] =>
  imports.filter((i) => !allowed(i)).map((i) => `${i.file} imports ${i.target}`);

test('a file imports only from its own folder and from floors below', () => {
  const down = offenders(
    ({ file, local }) =>
      local === undefined || folderOf(file) === folderOf(local) || floor(local) < floor(file),
  );
  expect(down).toEqual([]);
});

test('only amqp, service and emulator know rhea', () => {
  expect(
    offenders(
      ({ file, target }) =>
        !target.startsWith('rhea') || ['amqp', 'service', 'emulator'].includes(folderOf(file)),
    ),
  ).toEqual([]);
});

test('the emulator never imports the client code', () => {
  expect(
    offenders(({ file, local }) => !(file.startsWith('emulator/') && local?.startsWith('amqp/'))),
  ).toEqual([]);
});

test('only handlers and daemon/notify start processes', () => {
  expect(
    offenders(
      ({ file, target }) =>
        !target.endsWith('child_process') || file.startsWith('handlers/') || file === 'daemon/notify.ts',
    ),
  ).toEqual([]);
});

test("the agent's state is written only in store", () => {
  // A socket of our own is made and removed where it listens: no state.
  // Handlers look at files and at /proc, and write to control groups; they keep nothing.
  const stateFolders = ['amqp', 'agent', 'identity', 'service', 'daemon'];
  expect(
    offenders(
      ({ file, target }) =>
        !target.startsWith('node:fs') ||
        !stateFolders.includes(folderOf(file)) ||
        file === 'daemon/control-socket.ts',
    ),
  ).toEqual([]);
});

test('only the command line knows commander', () => {
  expect(offenders(({ file, target }) => target !== 'commander' || file.startsWith('cli/'))).toEqual([]);
});
