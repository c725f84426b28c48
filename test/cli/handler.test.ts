import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';

import { run } from '../../src/cli/main.js';
import { testPython } from '../handlers/kit.js';
import { fakeIo } from './fake-io.js';
import { Folder, runTool } from './tool.js';

interface Ran {
  code: number;
  out: string;
  err: string;
}

async function handler(args: string[], options: Parameters<typeof fakeIo>[0] = {}): Promise<Ran> {
  const io = fakeIo(options);
  const code = await run('iothub-device', ['handler', ...args], io);
  return { code, out: io.out, err: io.err };
}

const results = (out: string): unknown[] =>
  out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as unknown);

/** A configuration with a handler that echoes, one that says what its body says, and one for methods. */
async function setUp(): Promise<Folder & { config: string }> {
  const folder = await Folder.make();
  await folder.script('echo', 'cat');
  await folder.script('exits', 'read -r code why; echo "$why" >&2; exit "$code"');
  const config = await folder.write(
    'agent.toml',
    `
[[handlers]]
exec = ["./echo"]
match = { property = { command = "echo*" } }
reply = true
[[handlers]]
name = "reboot"
on = "method"
exec = ["./echo"]
match = { method = "reboot" }
[[handlers]]
exec = ["./exits"]
match = { content_type = "text/plain" }
`,
  );
  return Object.assign(folder, { config });
}

test('test runs the handler that takes a message, and prints what came of it', async () => {
  await using folder = await setUp();
  const ran = await handler([
    'test',
    '--config',
    folder.config,
    '--prop',
    'command=echo1',
    '--data',
    '{"x":1}',
    '--message-id',
    'm1',
  ]);
  expect(ran).toMatchObject({ code: 0 });
  expect(results(ran.out)).toEqual([
    {
      handler: 'echo',
      messageId: 'm1',
      outcome: 'accept',
      ms: expect.any(Number),
      decidedBy: 'handler',
      reply: true,
      output: '{"x":1}',
    },
  ]);
});

test.each([
  ['0 fine', 0, { outcome: 'accept' }],
  ['65 no such thing', 65, { outcome: 'reject', reason: 'no such thing' }],
  ['75 busy', 75, { outcome: 'release', reason: 'busy' }],
  ['3', 65, { outcome: 'reject', reason: 'exit 3' }],
])('test exits by the outcome: %j → %i', async (data, code, result) => {
  await using folder = await setUp();
  const ran = await handler(['test', 'exits', '-c', folder.config, '-T', 'text/plain', '--data', data]);
  expect(ran.code).toBe(code);
  expect(results(ran.out)).toMatchObject([{ handler: 'exits', ...result }]);
});

test('test takes a command as one line of JSON, and many as lines', async () => {
  await using folder = await setUp();
  const one = '{"messageId":"a","properties":{"command":"echo"},"bodyText":"1"}';
  const config = ['--config', folder.config];
  expect(results((await handler(['test', ...config, '--message', one])).out)).toMatchObject([
    { messageId: 'a', output: '1' },
  ]);
  const two = '{"messageId":"b","contentType":"text/plain","bodyText":"75 later"}';
  const many = await handler(['test', ...config, '--ndjson'], { stdin: `${one}\n${two}\n` });
  expect(many.code).toBe(75);
  expect(results(many.out)).toMatchObject([
    { messageId: 'a', outcome: 'accept' },
    { messageId: 'b', outcome: 'release', reason: 'later' },
  ]);
});

test('test gives methods and desired properties to their handlers', async () => {
  await using folder = await setUp();
  const ran = await handler(['test', 'reboot', '-c', folder.config, '--data', '{"delay":5}']);
  expect(results(ran.out)).toMatchObject([{ handler: 'reboot', status: 200, output: '{"delay":5}' }]);
  const refused = await handler(['test', '-c', folder.config, '--method', 'other']);
  expect(refused).toMatchObject({ code: 65, err: expect.stringContaining('no handler takes this') });
});

test('test says where a message goes instead, and what the handler that was named takes', async () => {
  await using folder = await setUp();
  const args = ['test', 'echo', '-c', folder.config, '--data', 'x', '-T', 'text/plain'];
  const ran = await handler(args);
  expect(ran.code).toBe(65);
  expect(ran.err).toContain('this goes to the handler exits');
  expect(ran.err).toContain('echo takes {"property":{"command":"echo*"}}');
  const unknown = await handler(['test', 'ecko', '-c', folder.config, '--data', 'x']);
  expect(unknown).toMatchObject({ code: 64, err: expect.stringContaining('no handler is called "ecko"') });
});

test('test shows what a handler logs, and for people its output in a line of its own', async () => {
  await using folder = await setUp();
  const file = await folder.script('loud', 'echo "<4>careful" >&2; printf "a\\nb\\n"');
  const ran = await handler(['test', file, '--data', 'x', '-o', 'text', '--log-format', 'text']);
  expect(ran.err).toMatch(/warn\S* +careful/);
  expect(ran.out).toMatch(
    /^accept {3}\S+loud {2}\d+ ms\noutput, which goes nowhere without reply = true: a\\nb\n$/,
  );
});

test('list has the handlers in their order, and says why one is refused', async () => {
  await using folder = await setUp();
  const config = await folder.write(
    'more.toml',
    `
commands.handlers_dir = "handlers"
[[handlers]]
exec = ["./echo"]
[[handlers]]
name = "open"
exec = ["./open"]
match = { body = { "/a" = ["x", "y"] } }
[[handlers]]
module = "./broken.mjs"
[[handlers]]
name = "wrong"
on = "twin"
module = "./method.mjs"
`,
  );
  await folder.write('open', '#!/bin/sh\n', 0o700);
  const { chmod, mkdir, writeFile } = await import('node:fs/promises');
  await chmod(join(folder.path, 'open'), 0o777);
  await folder.write('broken.mjs', 'export default 1');
  await folder.write('method.mjs', "export default { on: 'method', handle() {} }");
  await mkdir(join(folder.path, 'handlers/command.d'), { recursive: true, mode: 0o700 });
  await writeFile(join(folder.path, 'handlers/command.d/restart.sh'), '#!/bin/sh\n', { mode: 0o700 });
  await writeFile(join(folder.path, 'handlers/command.d/restart.py'), '#!/bin/sh\n', { mode: 0o600 });

  const ran = await handler(['list', '--config', config]);
  expect(ran.code).toBe(78);
  expect(results(ran.out)).toMatchObject([
    { name: 'echo', on: 'command', form: 'program', settle: 'after', timeoutMs: 45_000 },
    { name: 'open', refused: expect.stringContaining('writable by everyone') },
    { name: 'broken.mjs', form: 'module', refused: expect.stringContaining('is not a handler') },
    { name: 'wrong', on: 'twin', refused: expect.stringContaining('handles method, not twin') },
    { name: 'command.d/restart', refused: expect.stringContaining('not executable') },
  ]);
  expect(ran.err).toContain('restart.sh');
  const text = await handler(['list', '--config', config, '-o', 'text']);
  expect(text.out).toContain('REFUSED: ');
});

test('list of good handlers exits 0, and shows for people what each takes', async () => {
  await using folder = await setUp();
  const ran = await handler(['list', '--config', folder.config, '-o', 'text']);
  expect(ran).toEqual({
    code: 0,
    out: `echo                  command  program  45s   property.command=echo*
reboot                method   program  30s   method=reboot
exits                 command  program  45s   contentType=text/plain
`,
    err: '',
  });
});

const languages = [
  ['sh', '.sh'],
  ['js', '.mjs'],
  ['py', '.py'],
] as const;
for (const [language, extension] of languages) {
  (language === 'py' ? testPython : test)(
    `new --${language} writes a handler that works for each event, and is never written over another`,
    async () => {
      await using folder = await Folder.make();
      for (const [on, event] of [
        ['command', []],
        ['method', ['--method', 'job']],
        ['twin', ['--path', 'job']],
      ] as const) {
        const args = ['new', 'job', `--${language}`, '--on', on, '--directory', folder.path];
        const made = await handler(args);
        const file = join(folder.path, `${on}.d/job${extension}`);
        expect(made).toMatchObject({ code: 0, out: `${file}\n` });
        expect((await stat(file)).mode & 0o022).toBe(0);
        expect(made.err).toContain(`iothub-device handler test ${file}`);

        const ran = await handler(['test', file, ...event, '--data', '{"value":1}', '-q']);
        expect(ran.code).toBe(0);
        const bad = await handler(['test', file, ...event, '--data', '', '-q']);
        expect(bad.code).toBe(65);

        const text = await readFile(file, 'utf8');
        expect(await handler(args)).toMatchObject({ code: 73, err: expect.stringContaining('already') });
        expect(await readFile(file, 'utf8')).toBe(text);
      }
    },
  );
}

test('new refuses a name that would be a path or an option', async () => {
  for (const name of ['../x', 'a/b', '.hidden', 'a b', 'x'.repeat(65)]) {
    expect((await handler(['new', name])).code).toBe(64);
  }
});

test('exec runs a module as a program: event from the environment, exit code by the table', async () => {
  await using folder = await Folder.make();
  const file = await folder.write(
    'module.mjs',
    `export default {
  on: 'command',
  async handle(command, { log, attempt, deadline }) {
    const { do: what } = command.json();
    log.warn('doing', { what, attempt, inTime: deadline - Date.now() < 5000 });
    if (what === 'accept') return command.accept({ reply: { id: command.messageId, ...command.properties } });
    if (what === 'release') return command.release('busy');
    if (what === 'throw') throw new Error('broken\\nfor good');
    if (what === 'bug') undefined.x();
    if (what === 'hang') await new Promise(() => {});
  },
}`,
  );
  const env = {
    IOTHUB_EVENT: 'command',
    IOTHUB_MESSAGE_ID: 'm1',
    IOTHUB_ATTEMPT: '2',
    IOTHUB_PROPERTIES: '{"a":"b"}',
    IOTHUB_DEADLINE: new Date(Date.now() + 4000).toISOString(),
  };
  const exec = (body: string, more: Record<string, string> = {}): Promise<Ran> =>
    handler(['exec', file], { stdin: body, env: { ...env, ...more } });
  expect(await exec('{"do":"accept"}')).toEqual({
    code: 0,
    out: '{"id":"m1","a":"b"}',
    err: '<4>doing what=accept attempt=2 inTime=true\n',
  });
  expect(await exec('{"do":"release"}')).toMatchObject({ code: 75, err: expect.stringMatching(/\nbusy\n$/) });
  expect(await exec('{"do":"throw"}')).toMatchObject({
    code: 1,
    err: expect.stringMatching(/\nbroken for good\n$/),
  });
  expect((await exec('not json')).code).toBe(65);
  expect((await exec('{"do":"bug"}')).code).toBe(75);
  expect((await exec('{"do":"bug"}', { IOTHUB_ATTEMPT: '3' })).code).toBe(70);
  expect((await exec('{}', { IOTHUB_EVENT: 'twin' })).code).toBe(64);
});

test('a module that is configured as a program behaves as it does as a module', async () => {
  await using folder = await Folder.make();
  const file = await folder.write(
    'module.mjs',
    `export default { on: 'command', handle: (c) => c.accept({ reply: { got: c.json(), by: c.properties.who } }) }`,
  );
  const tool = join(import.meta.dirname, '../../bin/iothub-device.js');
  const config = await folder.write(
    'agent.toml',
    `[[handlers]]\nname = "m"\nreply = true\nexec = ["node", "${tool}", "handler", "exec", "${file}"]\n`,
  );
  const { code, out } = await runTool('iothub-device', [
    ...['handler', 'test', 'm', '-c', config, '--prop', 'who=me', '--data', '[1]', '-q'],
  ]);
  expect(code).toBe(0);
  expect(results(out)).toMatchObject([{ outcome: 'accept', output: '{"got":[1],"by":"me"}' }]);
});
