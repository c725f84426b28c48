import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

import { Subcommand } from '../../src/cli/help.js';
import { Interrupted, type Io } from '../../src/cli/io.js';
import { run } from '../../src/cli/main.js';
import type { Tool } from '../../src/cli/subcommands.js';
import { AgentError } from '../../src/errors.js';
import { fakeIo } from './fake-io.js';

const root = join(import.meta.dirname, '../..');
const key = 'MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=';

/** A tool with one subcommand that does as the test says. */
function toolThat(action: (io: Io) => Promise<void> | void): Tool {
  return {
    description: 'For tests.',
    examples: ['iothub-device act'],
    subcommands: [
      {
        name: 'act',
        summary: 'do as the test says',
        load: () =>
          Promise.resolve((io: Io) =>
            new Subcommand('act')
              .description('Does as the test says.')
              .option('--colour <name>', 'what colour')
              .option('-v, --verbose', 'say more', (_, count: number) => count + 1, 0)
              .examples('iothub-device act --colour red')
              .exits('ok', ['data', 'rejected'])
              .action(() => action(io)),
          ),
      },
      { name: 'other', summary: 'never loaded', load: () => Promise.reject(new Error('loaded in vain')) },
    ],
  };
}
const idle = toolThat(() => undefined);

test('a subcommand that ends well exits 0 and prints nothing of its own', async () => {
  const io = fakeIo();
  expect(await run('iothub-device', ['act'], io, idle)).toBe(0);
  expect([io.out, io.err]).toEqual(['', '']);
});

test('a subcommand can exit by an outcome that is not an error', async () => {
  const io = fakeIo();
  const tool = toolThat((of) => {
    of.exitCode = 65;
  });
  expect(await run('iothub-device', ['act'], io, tool)).toBe(65);
  expect(io.err).toBe('');
});

test('an error is told as what, why and what to do, and decides the exit code', async () => {
  const io = fakeIo();
  const tool = toolThat(() => {
    throw new AgentError('refused', 'the hub refused the device key', {
      condition: 'amqp:unauthorized-access',
      cause: new Error('token expired'),
      hint: 'the key may be rotated\nor the clock wrong',
    });
  });
  expect(await run('iothub-device', ['act'], io, tool)).toBe(77);
  expect(io.err).toBe(
    'error: the hub refused the device key (amqp:unauthorized-access)\n' +
      '  token expired\n  the key may be rotated\n  or the clock wrong\n',
  );
});

test('an error that nobody expected is a bug: 70, and its stack with -v', async () => {
  const tool = toolThat(() => {
    throw new TypeError('x is not a function');
  });
  const io = fakeIo();
  expect(await run('iothub-device', ['act'], io, tool)).toBe(70);
  expect(io.err).toContain('this is a bug: x is not a function');
  expect(io.err).not.toContain('main.test.ts');
  const verbose = fakeIo();
  expect(await run('iothub-device', ['act', '-v'], verbose, tool)).toBe(70);
  expect(verbose.err).toContain('main.test.ts');
});

test('no secret and no control character survives in an error', async () => {
  const io = fakeIo();
  const tool = toolThat(() => {
    throw new AgentError('protocol', `peer said \u001b]0;x\u0007 SharedAccessKey=${key}\nerror: forged`);
  });
  await run('iothub-device', ['act', '-v'], io, tool);
  expect(io.err).not.toContain(key);
  expect(io.err).not.toMatch(/[\u001b\u0007]/);
  expect(io.err).not.toMatch(/^error: forged/m);
});

test('an interruption that runs through a command exits 130 or 143 without a word', async () => {
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    const io = fakeIo();
    io.stopWith(new Interrupted(signal));
    const direct = toolThat((of) => {
      of.stop.throwIfAborted();
    });
    const wrapped = toolThat((of) => {
      throw new Error('The operation was aborted', { cause: of.stop.reason });
    });
    expect(await run('iothub-device', ['act'], io, direct)).toBe(code);
    expect(await run('iothub-device', ['act'], io, wrapped)).toBe(code);
    expect(io.err).toBe('');
  }
});

test.each([
  [
    ['act', '--color', 'red'],
    "unknown option '--color'\n  Did you mean --colour?\n  see iothub-device act --help",
  ],
  [['act', '--colour'], "option '--colour <name>' argument missing\n  see iothub-device act --help"],
  [['act', 'more'], 'too many arguments'],
  [['acr'], "unknown command 'acr'\n  Did you mean act?\n  see iothub-device --help"],
])('%j is a mistake on the command line: 64 and what to do', async (args, text) => {
  const io = fakeIo();
  expect(await run('iothub-device', args, io, idle)).toBe(64);
  expect(io.out).toBe('');
  expect(io.err).toContain(`error: ${text}`);
});

test('the help of a subcommand shows examples first, then options, then exit codes', async () => {
  for (const args of [
    ['act', '--help'],
    ['help', 'act'],
  ]) {
    const io = fakeIo();
    expect(await run('iothub-device', args, io, idle)).toBe(0);
    expect(io.err).toBe('');
    expect(io.out).toBe(`Usage: iothub-device act [options]

Does as the test says.

Examples:
  iothub-device act --colour red

Options:
  --colour <name>  what colour
  -v, --verbose    say more

General:
  -h, --help       print this page

Exit codes: 0 done · 65 rejected
`);
  }
});

test('the page of a tool lists its subcommands, and loads none', async () => {
  const io = fakeIo();
  expect(await run('iothub-device', ['--help'], io, idle)).toBe(0);
  expect(io.out).toMatch(/act +do as the test says\n +other +never loaded\n/);
  const bare = fakeIo();
  expect(await run('iothub-device', [], bare, idle)).toBe(64);
  expect([bare.out, bare.err]).toEqual(['', io.out]);
});

const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };

test.each(['iothub-device', 'iothub-service', 'iothub-emulator'])(
  '%s --version, as installed',
  async (name) => {
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [
      join(root, `bin/${name}.js`),
      '--version',
    ]);
    expect([stdout, stderr]).toEqual([`${version}\n`, '']);
  },
);
