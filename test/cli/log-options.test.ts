import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

import { Subcommand } from '../../src/cli/help.js';
import { addLogOptions, type LogFlags, openLog } from '../../src/cli/log-options.js';
import { fakeIo } from './fake-io.js';

async function printed(args: string[], env: Record<string, string> = {}): Promise<string> {
  const command = addLogOptions(new Subcommand('run'), 'device').configureOutput({
    outputError: () => undefined,
  });
  const flags = command.parse(args, { from: 'user' }).opts<LogFlags>();
  const io = fakeIo({ env });
  const log = await openLog(io, flags, 'device', 'info');
  for (const level of ['error', 'warn', 'info', 'debug', 'trace'] as const) log[level](level);
  await log.flush();
  return io.err.replace(/^\S+Z (\w+) .*$/gm, '$1');
}

test('flags, then the environment, then the command decide what is said', async () => {
  const debug = { IOTHUB_DEVICE_LOG_LEVEL: 'debug' };
  expect(await printed([])).toBe('error\nwarn\ninfo\n');
  expect(await printed(['-q'], debug)).toBe('error\n');
  expect(await printed(['-v'])).toBe('error\nwarn\ninfo\ndebug\n');
  expect(await printed(['-vv'])).toBe('error\nwarn\ninfo\ndebug\ntrace\n');
  expect(await printed([], debug)).toBe('error\nwarn\ninfo\ndebug\n');
});

test('a level that does not exist is an error of the configuration', async () => {
  await expect(printed([], { IOTHUB_DEVICE_LOG_LEVEL: 'loud' })).rejects.toMatchObject({
    code: 'config',
    message: 'IOTHUB_DEVICE_LOG_LEVEL is "loud"',
  });
});

test('the format can be asked for', async () => {
  expect(await printed(['--log-format', 'journal'])).toBe('<3>error\n<4>warn\n<6>info\n');
  expect(JSON.parse((await printed(['-q', '--log-format', 'json'])).trim())).toMatchObject({ msg: 'error' });
  await expect(printed(['--log-format', 'xml'])).rejects.toThrow(
    'Allowed choices are auto, text, json, journal',
  );
});

const dist = join(import.meta.dirname, '../../dist/cli');
const program = `
  import { fstatSync } from 'node:fs';
  import { processIo } from '${dist}/io.js';
  import { openLog } from '${dist}/log-options.js';
  const { dev, ino } = fstatSync(process.env.MATCH === 'yes' ? 2 : 1);
  process.env.JOURNAL_STREAM = dev + ':' + ino;
  const log = await openLog(processIo(() => {}), { logFormat: process.env.FORMAT }, 'device', 'info');
  log.info('hello');
`;

test('the journal is recognised by JOURNAL_STREAM, and a stream that is not it is not', async () => {
  const said = async (MATCH: string, FORMAT: string): Promise<string> => {
    const env = { ...process.env, MATCH, FORMAT };
    return (await promisify(execFile)(process.execPath, ['--input-type=module', '-e', program], { env }))
      .stderr;
  };
  expect(await said('yes', 'auto')).toBe('<6>hello\n');
  expect(await said('yes', 'json')).toMatch(/^<6>\{/);
  expect(await said('yes', 'text')).toMatch(/^\d{4}-.* info {2}hello\n$/);
  expect(await said('no', 'auto')).toMatch(/^\d{4}-.* info {2}hello\n$/);
});
