import fc from 'fast-check';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'smol-toml';
import { expect, test } from 'vitest';

import { parseConfig, parseConfigFiles } from '../../src/daemon/config.js';
import { jsonPositions, lineAndColumn, type Path, tomlPositions } from '../../src/daemon/config-positions.js';
import { AgentError } from '../../src/errors.js';
import { agentSchemaText } from './agent-schema.js';

const folder = join(import.meta.dirname, '../../config');
const example = readFileSync(join(folder, 'agent.example.toml'), 'utf8');

/** What is wrong with a configuration, each problem without the file's name. */
function problems(text: string, file = '/etc/agent.toml'): string[] {
  try {
    parseConfig(text, file);
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    expect(error.code).toBe('config');
    return (error.hint ?? error.message).split('\n').map((line) => line.replace(`${file}:`, ''));
  }
  return [];
}

/** What holds when there is no file. */
const defaults = parseConfigFiles([]).config;

test('no file is a complete configuration', () => {
  expect(defaults).toEqual({
    hub: {
      connectionString: undefined,
      host: undefined,
      deviceId: undefined,
      moduleId: undefined,
      certificate: undefined,
      gatewayHost: undefined,
      transport: 'auto',
      proxy: undefined,
      httpsPort: undefined,
      ca: undefined,
      tokenTtlMs: 3_600_000,
      attach: 'after-token',
      idleTimeoutMs: 10_000,
    },
    commands: {
      concurrency: 4,
      order: 'handler',
      unmatched: 'reject',
      releaseDelay: { firstMs: 5000, mostMs: 50_000 },
      dedupeMs: 86_400_000,
    },
    inbox: { retryDelay: { firstMs: 5000, mostMs: 600_000 }, maximumWaiting: 1000, maximumDead: 1000 },
    handlers: [],
    handlerDirectories: {
      paths: [],
      rules: {
        command: { timeoutMs: 45_000, order: 'handler', inbox: undefined },
        method: { timeoutMs: 30_000, order: 'handler', inbox: undefined },
        twin: { timeoutMs: 300_000, order: 'handler', inbox: undefined },
      },
    },
    spool: {
      directory: undefined,
      maximumBytes: 268_435_456,
      maximumAgeMs: 604_800_000,
      whenFull: 'reject',
    },
    control: { socket: undefined },
    metrics: { listen: undefined },
    log: { level: 'info', format: 'auto' },
    shutdown: { drainTimeoutMs: 20_000 },
  });
});

test('what is commented out in the example can be used', () => {
  // One connection string is enough, and a key may stand once only.
  const uncommented = example
    .replace(/^# (connection_string = \{ (file|env)|proxy = \{|host =|device_id =|module_id =).*\n/gm, '')
    .replace(/^# (?=\[\[|\w+ = )/gm, '');
  const { hub, handlers, handlerDirectories } = parseConfig(uncommented, '/etc/agent.toml');
  expect(handlerDirectories.paths).toHaveLength(2);
  expect(hub.connectionString).toEqual({ from: 'credential', name: 'connection-string' });
  expect(hub.certificate).toEqual({
    file: '/etc/iothub-device/dev1.pem',
    key: { from: 'credential', name: 'device-key' },
    passphrase: { from: 'credential', name: 'key-passphrase' },
    warnBeforeMs: 30 * 86_400_000,
  });
  expect(handlers).toMatchObject([
    {
      name: 'restart',
      exec: ['/etc/handlers/restart', '--now'],
      match: { property: { command: 'restart*' }, body: { '/service': ['web', 'db'] } },
      timeoutMs: 30_000,
      order: 'handler',
      exit: { '4': 'reject', '10-19': 'release' },
      onTimeout: 'release',
      afterCrash: 'run',
      reply: true,
      cwd: '/var/lib/iothub-device',
    },
    {
      name: 'update',
      form: 'program',
      timeoutMs: 7_200_000,
      inbox: { maximumAttempts: 3, maximumAgeMs: 86_400_000 },
    },
    { form: 'stream', exec: ['/etc/handlers/counter-stream.py'] },
    { form: 'module', file: '/etc/handlers/reboot.mjs', on: 'method', match: { method: 'reboot' } },
    { on: 'twin', match: { path: 'interval' }, exit: { '0': 202 } },
  ]);
});

test('the JSON Schema is current (vitest -u writes it)', async () => {
  await expect(await agentSchemaText()).toMatchFileSnapshot(join(folder, 'agent.schema.json'));
});

test('the same configuration can be JSON', () => {
  const text = JSON.stringify({
    $schema: './agent.schema.json',
    hub: { connection_string: { env: 'MY_HUB' }, token_ttl: '2h' },
    handlers: [{ exec: ['true'] }],
  });
  expect(parseConfig(text, '/etc/agent.json')).toMatchObject({
    hub: { connectionString: { from: 'env', name: 'MY_HUB' }, tokenTtlMs: 7_200_000 },
    handlers: [{ name: 'true', exec: ['true'], timeoutMs: 45_000, order: 'handler', on: 'command' }],
  });
});

test('paths are relative to the file, and a bare program is looked up in PATH', () => {
  const text = `
    hub.ca = "ca.pem"
    hub.connection_string.file = "../hub.cs"
    [[handlers]]
    exec = ["sh", "./not-a-path-of-ours"]
    [[handlers]]
    exec = ["bin/restart"]`;
  expect(parseConfig(text, '/etc/iothub/agent.toml')).toMatchObject({
    hub: { ca: '/etc/iothub/ca.pem', connectionString: { from: 'file', path: '/etc/hub.cs' } },
    handlers: [
      { exec: ['sh', './not-a-path-of-ours'] },
      { exec: ['/etc/iothub/bin/restart'], name: 'restart' },
    ],
  });
});

test('a handler has the timeout and order of all commands unless it has its own', () => {
  const text = `
    [commands]
    timeout = "20s"
    order = { key = "room" }
    [[handlers]]
    exec = ["a"]
    [[handlers]]
    exec = ["b"]
    timeout = "1s"
    order = "none"`;
  expect(parseConfig(text, 'agent.toml').handlers).toMatchObject([
    { timeoutMs: 20_000, order: { key: 'room' } },
    { timeoutMs: 1000, order: 'none' },
  ]);
});

test('a handler with an inbox has time, unless it is told otherwise', () => {
  const text = `
    [commands]
    settle = "inbox"
    [inbox]
    max_attempts = 9
    [[handlers]]
    exec = ["a"]
    [[handlers]]
    exec = ["b"]
    settle = "after"
    [[handlers]]
    exec = ["c"]
    timeout = "3h"
    max_age = "1h"`;
  const { handlers, handlerDirectories } = parseConfig(text, 'agent.toml');
  expect(handlers).toMatchObject([
    { timeoutMs: 3_600_000, inbox: { maximumAttempts: 9, maximumAgeMs: 604_800_000 } },
    { timeoutMs: 45_000, inbox: undefined },
    { timeoutMs: 10_800_000, inbox: { maximumAttempts: 9, maximumAgeMs: 3_600_000 } },
  ]);
  expect(handlerDirectories.rules.command).toMatchObject({ timeoutMs: 3_600_000, inbox: {} });
});

test('methods and twins have their own time, and handler directories are relative to the file', () => {
  const text = `
    commands.handlers_dir = "handlers"
    [[handlers]]
    exec = ["a"]
    on = "method"
    [[handlers]]
    module = "lib/b.mjs"
    on = "twin"`;
  const { handlers, handlerDirectories } = parseConfig(text, '/etc/iothub/agent.toml');
  expect(handlers).toMatchObject([
    { on: 'method', timeoutMs: 30_000 },
    { name: 'b.mjs', on: 'twin', timeoutMs: 300_000, file: '/etc/iothub/lib/b.mjs' },
  ]);
  expect(handlerDirectories.paths).toEqual(['/etc/iothub/handlers']);
});

test('a connection string in the file is a secret from there on', () => {
  const { hub } = parseConfig('hub.connection_string = "HostName=h;SharedAccessKey=abcdefgh"', 'agent.toml');
  expect(JSON.stringify(hub)).not.toContain('abcdefgh');
  expect(hub.connectionString?.from === 'text' && hub.connectionString.text.reveal()).toContain('abcdefgh');
});

test.each([
  ['agent.toml', ''],
  ['agent.toml', '\n\n'],
  ['agent.toml', '# Configuration of the agent\n# version'],
  ['agent.toml', '[hub]\n# Who the device is.\n'],
  ['agent.json', '{"$schema": "./agent.schema.json"}'],
  ['agent.json', '{"handlers": [], "log": {}}'],
])('a file that sets nothing is half-written rather than meant: %s %j', (file, text) => {
  expect(() => parseConfig(text, file)).toThrow(
    `${file}:1:1: nothing is set in this file; is it still being written? For the defaults alone use --no-config`,
  );
});

test('of a key in several files the last counts, whole; handlers come one after the other', () => {
  const main = `[hub]
ca = "ca.pem"
connection_string = { file = "hub.cs" }
[commands]
concurrency = 2
order = { key = "room" }
[[handlers]]
exec = ["./a"]
`;
  const first = `[hub]\nconnection_string = { env = "HUB" }\n[[handlers]]\nexec = ["./b"]\n`;
  const last = '{"commands": {"order": "none"}, "handlers": [{"exec": ["./c"]}]}';
  const { config, files, placeOf } = parseConfigFiles([
    { file: '/etc/x/config.toml', text: main },
    { file: '/etc/x/conf.d/10-hub.toml', text: first },
    { file: '/etc/x/conf.d/20-last.json', text: last },
  ]);
  expect(config).toMatchObject({
    hub: { ca: '/etc/x/ca.pem', connectionString: { from: 'env', name: 'HUB' } },
    commands: { concurrency: 2, order: 'none' },
    handlers: [
      { exec: ['/etc/x/a'], order: 'none' },
      { exec: ['/etc/x/conf.d/b'] },
      { exec: ['/etc/x/conf.d/c'] },
    ],
  });
  expect(files).toHaveLength(3);
  const place = (...path: Path): string => {
    const at = placeOf(path);
    return at === undefined ? 'nowhere' : `${at.file}:${String(at.line)}:${String(at.column)}`;
  };
  expect(place('hub', 'ca')).toBe('/etc/x/config.toml:2:1');
  expect(place('hub', 'connection_string')).toBe('/etc/x/conf.d/10-hub.toml:2:1');
  expect(place('commands', 'concurrency')).toBe('/etc/x/config.toml:5:1');
  expect(place('commands', 'order')).toBe('/etc/x/conf.d/20-last.json:1:15');
  expect(place('handlers', 0, 'exec')).toBe('/etc/x/config.toml:8:1');
  expect(place('handlers', 1, 'exec')).toBe('/etc/x/conf.d/10-hub.toml:4:1');
  expect(place('handlers', 2, 'exec')).toBe('/etc/x/conf.d/20-last.json:1:47');
  expect(place('log', 'level')).toBe('nowhere');
});

test('problems of several files are told together, and those that only show between them', () => {
  const read = (...texts: string[]): unknown => {
    try {
      return parseConfigFiles(texts.map((text, n) => ({ file: `${String(n)}.toml`, text })));
    } catch (error) {
      return error;
    }
  };
  expect(read('hub.tokn_ttl = "1h"', '', '[log]\nlevel = 1')).toMatchObject({
    message: '0.toml and 1.toml and 2.toml have 3 problems',
    hint: expect.stringMatching(
      /^0.toml:1:1: hub.tokn_ttl: .*token_ttl"\?\n1.toml:1:1: nothing.*\n2.toml:2:1: log/,
    ),
  });
  // Overridden by the next file, and a mistake all the same.
  expect(read('log.level = "loud"', 'log.level = "info"')).toMatchObject({
    problems: [{ file: '0.toml', line: 1, column: 1, key: 'log.level' }],
  });
  const handler = '[[handlers]]\nexec = ["a"]\n';
  expect(read(handler, `# second\n${handler}`)).toMatchObject({
    problems: [
      { file: '1.toml', line: 2, key: 'handlers[2].name', what: expect.stringContaining('another') },
    ],
  });
});

test('every problem is told at once, with its place and in the order of the file', () => {
  const text = `hubb = 1
[commands]
concurency = 2
  timeout = "55s"
unmatched = "drop"

[[handlers]]
exec = ["a"]
[[handlers]]
match = { property = { "a" = 1 }, bodi = {} }
exit = { 300 = "reject", 4 = "no" }
timeout = 30
`;
  expect(problems(text)).toEqual([
    '1:1: hubb: unknown key; did you mean "hub"?',
    '3:1: commands.concurency: unknown key; did you mean "concurrency"?',
    '4:3: commands.timeout: it has to lie between 100ms and 50s',
    '5:1: commands.unmatched: write "reject" or "release"',
    '9:1: handlers[2].exec: it needs either exec = ["PROGRAM"] or module = "FILE"',
    '10:24: handlers[2].match.property.a: write a text or a list of texts',
    '10:35: handlers[2].match.bodi: unknown key; did you mean "body"?',
    '11:10: handlers[2].exit.300: an exit code is 0 to 255, or a range as "10-19"',
    '11:26: handlers[2].exit.4: write "accept", "reject" or "release", or the status of a method or twin',
    '12:1: handlers[2].timeout: write a duration as "500ms", "30s", "5m" or "1h30m"',
  ]);
});

test.each([
  ['hub = 3', '1:1: hub: write a table'],
  ['hub = [3]', '1:1: hub: write a table'],
  ['[handlers]\nexec = ["a"]', '1:1: handlers: write each handler under [[handlers]]'],
  ['[[handlers]]\nexec = "a b"', '2:1: handlers[1].exec: write a list: ["/path/of/program", "argument"]'],
  ['[[handlers]]\nexec = []', '2:1: handlers[1].exec: the program is missing'],
  [
    '[[handlers]]\nexec = ["a", 1]',
    '2:14: handlers[1].exec[2]: write the program and its arguments as texts',
  ],
  [
    '[[handlers]]\nexec=["x/a"]\n[[handlers]]\nexec=["y/a"]',
    '3:1: handlers[2].name: another handler is called "a"',
  ],
  ['commands.timeout = "30"', '1:1: commands.timeout: a duration needs a unit: write 30s or 30ms'],
  ['commands.concurrency = 0', '1:1: commands.concurrency: it has to be at least 1'],
  ['commands.concurrency = 1.5', '1:1: commands.concurrency: write a whole number'],
  ['commands.release_delay = "50s..5s"', '1:1: commands.release_delay: write the first and the longest'],
  ['commands.release_delay = "5s..2m"', '1:1: commands.release_delay: it has to lie between 0s and 55s'],
  [
    '[[handlers]]\nexec=["a"]\nmodule="b"',
    '2:1: handlers[1].exec: it needs either exec = ["PROGRAM"] or module = "FILE"',
  ],
  [
    '[[handlers]]\nexec=["a"]\ntimeout="2m"',
    '3:1: handlers[1].timeout: at most 50s, as the hub waits for 60 s',
  ],
  ['[[handlers]]\nexec=["a"]\nmax_age="2d"', '3:1: handlers[1].max_age: only with settle = "inbox"'],
  [
    '[[handlers]]\nexec=["a"]\non="method"\ntimeout="6m"',
    '4:1: handlers[1].timeout: at most 5m: no caller waits longer',
  ],
  [
    '[[handlers]]\nexec=["a"]\non="method"\nsettle="inbox"',
    '4:1: handlers[1].settle: only with on = "command"',
  ],
  [
    '[[handlers]]\nexec=["a"]\non="twin"\nmatch.method="x"',
    '4:1: handlers[1].match.method: on = "twin" has path, body, device_id',
  ],
  ['[[handlers]]\nexec=["a"]\nexit.3=202', '3:1: handlers[1].exit.3: a command has an outcome'],
  ['[[handlers]]\nmodule="a"\nexit.3="accept"', '3:1: handlers[1].exit: only for a program'],
  ['[[handlers]]\nmodule="a"\ncwd="/"', '3:1: handlers[1].cwd: a module runs inside the agent'],
  ['hub.connection_string = { vault = "x" }', '1:1: hub.connection_string: write { credential = "NAME" }'],
  ['hub.token_ttl = "1s"', '1:1: hub.token_ttl: it has to lie between 1m and 365d'],
  ['[log]\nlevel = "loud"', '2:1: log.level: write "error", "warn"'],
  [
    '[[handlers]]\nexec=["a"]\nmatch.body.service = "x"',
    '3:1: handlers[1].match.body.service: a JSON pointer begins',
  ],
])('%j is a problem: %s', (text, problem) => {
  const found = problems(text);
  expect(found).toHaveLength(1);
  expect(found[0]).toContain(problem);
});

test('a file that is not TOML or JSON is told with its place, and not quoted', () => {
  expect(problems('a = 1\nb = \n')).toEqual(['2:5: invalid value']);
  const json = (text: string): string[] => problems(text, '/etc/a.json');
  expect(json('{\n  "a": SharedAccessKey\n}')).toEqual(['2:8: this is not JSON']);
  expect(json('{"a": 1,}')).toEqual(['1:9: this is not JSON']);
  expect(json('{"a" 1}')).toEqual(['1:6: this is not JSON']);
  expect(json('{"a": [1 2]}')).toEqual(['1:10: this is not JSON']);
  expect(json('{} {}')).toEqual(['1:4: this is not JSON']);
  expect(json('')).toEqual(['1:1: this is not JSON']);
  expect(problems('[1]', '/etc/a.json')).toEqual(['1:1: write a table']);
});

/** Every path in a value, with the last key. */
function paths(value: unknown, at: Path = []): Path[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) => {
    const path = [...at, Array.isArray(value) ? Number(key) : key];
    return [path, ...paths(inner, path)];
  });
}

const word = fc.stringMatching(/^[a-z]{1,6}$/);

const { tree } = fc.letrec((tie) => ({
  tree: fc.dictionary(word, tie('value'), { maxKeys: 4 }),
  value: fc.oneof(
    { maxDepth: 3 },
    fc.nat(),
    fc.boolean(),
    fc.string(),
    tie('tree'),
    fc.array(tie('value'), { maxLength: 3 }),
  ),
}));

test('in JSON every key is found where it stands', () => {
  fc.assert(
    fc.property(tree, fc.constantFrom(0, 2), (value, indent) => {
      const text = JSON.stringify(value, undefined, indent);
      const positions = jsonPositions(text);
      for (const path of paths(value)) {
        const key = path.at(-1);
        if (typeof key === 'string') expect(text.slice(positions(path)).startsWith(`"${key}"`)).toBe(true);
      }
    }),
  );
});

test('in TOML every key is found where it stands', () => {
  fc.assert(
    fc.property(tree, (value) => {
      const text = stringify(value);
      const positions = tomlPositions(text);
      for (const path of paths(value)) {
        const key = path.at(-1);
        if (typeof key !== 'string') continue;
        const { line } = lineAndColumn(text, positions(path));
        // A key of its own line, of a header or of an inline table.
        expect(text.split('\n')[line - 1]).toMatch(new RegExp(`(^|[\\s.{,[])${key}( = |[.\\]]|$)`));
      }
    }),
  );
});

test('keys are found between comments, strings of every kind and nested values', () => {
  const text = `# a = 1
title = """
b = "not a key" \\"""" # c = 2
list = [ # d
  { e = 'x', "f g" = [1, 2] }, [ """y""" ],
]
h.'i.j'.k = 1
[l.m]
n = '''
o = 1'''
[[p.q]]
r = 1
[[p.q]]
[p.q.s]
t = 1`;
  const at = (...path: Path): string => {
    const { line, column } = lineAndColumn(text, tomlPositions(text)(path));
    return `${String(line)}:${String(column)}`;
  };
  expect(at('title')).toBe('2:1');
  expect(at('list')).toBe('4:1');
  expect(at('list', 0, 'e')).toBe('5:5');
  expect(at('list', 0, 'f g')).toBe('5:14');
  expect(at('list', 1)).toBe('5:32');
  expect(at('h', 'i.j', 'k')).toBe('7:1');
  expect(at('l', 'm', 'n')).toBe('9:1');
  expect(at('p', 'q', 0, 'r')).toBe('12:1');
  expect(at('p', 'q', 1, 's', 't')).toBe('15:1');
  expect(at('p', 'q', 1, 'missing')).toBe('13:1');
  expect(at('missing')).toBe('1:1');
});
