import fc from 'fast-check';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { Subcommand } from '../../src/cli/help.js';
import type { Io } from '../../src/cli/io.js';
import { type Line, readLines } from '../../src/lines.js';
import {
  type InputItem,
  openCommands,
  openTelemetry,
  type OutgoingCommand,
} from '../../src/cli/message-input.js';
import { addMessageOptions, type MessageFlags } from '../../src/cli/message-options.js';
import type { TelemetryMessage } from '../../src/model.js';
import { fakeIo } from './fake-io.js';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'message-input-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** The flags as a command gets them. */
function flagsOf(args: string[], kind: 'telemetry' | 'command' = 'telemetry'): MessageFlags {
  const command = addMessageOptions(new Subcommand('send'), kind).configureOutput({
    outputError: () => undefined,
  });
  return command.parse(args, { from: 'user' }).opts();
}

async function items(
  args: string[],
  stdin = '',
  io: Io = fakeIo({ stdin }),
): Promise<InputItem<TelemetryMessage>[]> {
  const input = await openTelemetry(io, flagsOf(args));
  const all: InputItem<TelemetryMessage>[] = [];
  for await (const item of input.items) all.push(item);
  return all;
}

async function one(args: string[], stdin = ''): Promise<TelemetryMessage> {
  const [item] = await items(args, stdin);
  return item!.message!;
}

async function command(args: string[], stdin = ''): Promise<OutgoingCommand> {
  const input = await openCommands(fakeIo({ stdin }), flagsOf(args, 'command'));
  for await (const { message, error } of input.items) {
    if (error) throw error;
    return message;
  }
  throw new Error('nothing came');
}

test('text that is JSON is sent as JSON, other text as text, both in UTF-8', async () => {
  expect(await one(['--data', '{"t":21.5}'])).toMatchObject({
    body: Buffer.from('{"t":21.5}'),
    contentType: 'application/json',
    contentEncoding: 'utf-8',
    messageId: expect.stringMatching(/^[0-9A-HJKMNP-TV-Z]{26}$/),
    properties: {},
  });
  expect(await one(['--data', 'hello'])).toMatchObject({
    contentType: 'text/plain',
    contentEncoding: 'utf-8',
  });
  expect((await one(['--data', ''])).body.length).toBe(0);
});

test('a file and standard input are sent byte for byte', async () => {
  const path = join(folder, 'report.bin');
  const bytes = Buffer.from([0xff, 0x00, 0x0a, 0xfe]);
  await writeFile(path, bytes);
  const message = await one(['--data-file', path]);
  expect(message).toMatchObject({ body: bytes, contentType: 'application/octet-stream' });
  expect(message.contentEncoding).toBeUndefined();
  expect((await one(['--stdin'], '{"a":1}\n')).body.toString()).toBe('{"a":1}\n');
  expect((await one(['--data-file', '-'], 'from stdin\n')).body.toString()).toBe('from stdin\n');
});

test('every option lands in the message', async () => {
  const before = Date.now();
  const message = await one([
    ...['--data', 'x', '-T', 'text/csv', '--content-encoding', 'utf-16', '-P', 'room=a', '-P', '__proto__=b'],
    ...['--message-id', 'm1', '--correlation-id', 'c1', '--user-id', 'u1', '--creation-time', '1763614800'],
    ...['--expires', '1h', '--component', 'thermostat', '--output-name', 'out'],
  ]);
  expect(message).toMatchObject({
    contentType: 'text/csv',
    contentEncoding: 'utf-16',
    messageId: 'm1',
    correlationId: 'c1',
    userId: 'u1',
    creationTime: '2025-11-20T05:00:00.000Z',
    component: 'thermostat',
    outputName: 'out',
  });
  expect(Object.entries(message.properties)).toEqual([
    ['room', 'a'],
    ['__proto__', 'b'],
  ]);
  expect(message.expiresAt! - before).toBeGreaterThanOrEqual(3_600_000);
});

test('each line is a message; empty ones are skipped, line numbers are not', async () => {
  const all = await items(['--lines', '--message-id', 'run7'], 'one\r\n\n{"t":2}\nlast');
  expect(
    all.map(({ line, message }) => [
      line,
      message?.messageId,
      message?.body.toString(),
      message?.contentType,
    ]),
  ).toEqual([
    [1, 'run7-1', 'one', 'text/plain'],
    [3, 'run7-3', '{"t":2}', 'application/json'],
    [4, 'run7-4', 'last', 'text/plain'],
  ]);
});

test('ids made for a stream are unique and sorted as the lines are', async () => {
  const ids = (await items(['--lines'], 'x\n'.repeat(2000))).map(({ message }) => message!.messageId);
  expect(new Set(ids).size).toBe(2000);
  expect([...ids].sort()).toEqual(ids);
});

test('an NDJSON line says everything about its message, and flags fill what it leaves out', async () => {
  const line = {
    body: { t: 21.5 },
    properties: { room: 'a', n: 7, ok: true },
    contentType: 'application/vnd.x+json',
    messageId: 'm1',
    correlationId: 'c1',
    userId: 'u1',
    creationTime: '2026-11-20T05:00:00.1234567Z',
    expiresAt: '2026-11-20T06:00:00Z',
    component: 'p',
    outputName: 'o',
    hub: { enqueuedAt: 'not read' },
  };
  const text = `${JSON.stringify(line)}\n{"bodyText":"hi"}\n{"bodyBase64":"/w=="}\n`;
  const [first, second, third] = await items(
    ['--ndjson', '-P', 'room=b', '-P', 'site=n', '--user-id', 'u2'],
    text,
  );
  expect(first!.message).toEqual({
    body: Buffer.from('{"t":21.5}'),
    properties: { room: 'a', site: 'n', n: '7', ok: 'true' },
    contentType: 'application/vnd.x+json',
    contentEncoding: 'utf-8',
    messageId: 'm1',
    correlationId: 'c1',
    userId: 'u1',
    creationTime: '2026-11-20T05:00:00.1234567Z',
    expiresAt: Date.parse('2026-11-20T06:00:00Z'),
    component: 'p',
    outputName: 'o',
  });
  expect(second!.message).toMatchObject({ body: Buffer.from('hi'), contentType: 'text/plain', userId: 'u2' });
  expect(third!.message).toMatchObject({
    body: Buffer.from([0xff]),
    contentType: 'application/octet-stream',
  });
});

test.each([
  ['not json', 'it is not JSON'],
  ['[1]', 'it is not a JSON object'],
  ['{}', 'it has no body'],
  ['{"body":1,"bodyText":"x"}', 'body and bodyText exclude each other'],
  ['{"body":1,"contenType":"x"}', 'unknown key "contenType"'],
  ['{"body":1,"__proto__":{"x":1}}', 'unknown key "__proto__"'],
  ['{"body":1,"deviceId":"dev2"}', 'unknown key "deviceId"'],
  ['{"body":1,"messageId":1}', 'messageId is not a string'],
  ['{"body":1,"properties":[]}', 'properties is not a JSON object'],
  ['{"body":1,"properties":{"a":null}}', 'the property "a" is not a string'],
  ['{"body":1,"expiresAt":"soon"}', 'expiresAt is not a time'],
  ['{"bodyBase64":"a"}', 'bodyBase64 is not base64'],
  ['{"bodyText":{}}', 'bodyText is not a string'],
])('the line %s is an error of its own: %s', async (line, text) => {
  const all = await items(['--ndjson'], `${line}\n{"bodyText":"good"}\n`);
  expect(all[0]).toMatchObject({ line: 1, error: { code: 'data', message: text } });
  expect(all[1]?.message?.body.toString()).toBe('good');
});

test('a content type or encoding that is null is none, whatever the flags say', async () => {
  const line = '{"bodyText":"x","contentType":null,"contentEncoding":null}';
  const message = await one(['--ndjson', '-T', 'text/csv'], line);
  expect([message.contentType, message.contentEncoding]).toEqual([undefined, undefined]);
});

test('a line that is not UTF-8 is an error, not a changed message', async () => {
  const stdin = Buffer.concat([Buffer.from('{"bodyText":"'), Buffer.from([0xff]), Buffer.from('"}\n')]);
  const [item] = await items(['--ndjson'], '', fakeIo({ stdin }));
  expect(item).toMatchObject({ line: 1, error: { code: 'data', message: 'it is not UTF-8' } });
});

test('a misspelt key is told what it may have meant', async () => {
  const [item] = await items(['--ndjson'], '{"body":1,"contenType":"x"}\n');
  expect(item!.error!.hint).toBe('did you mean "contentType"?');
});

test('with --on-error stop nothing follows a bad line', async () => {
  const all = await items(['--ndjson', '--on-error', 'stop'], '{"body":1}\nbad\n{"body":2}\n');
  expect(all.map(({ line, error }) => [line, error?.code])).toEqual([
    [1, undefined],
    [2, 'data'],
  ]);
});

test('a property named __proto__ is sent like any other', async () => {
  const [item] = await items(['--ndjson'], '{"body":1,"properties":{"__proto__":"x","constructor":"y"}}\n');
  expect(Object.entries(item!.message!.properties)).toEqual([
    ['__proto__', 'x'],
    ['constructor', 'y'],
  ]);
});

test('H9: a message at the limit passes, one byte more is refused before it is sent', async () => {
  // The id, the type and the encoding count: 2 + 10 + 5 bytes.
  const limit = 256 * 1024 - 17;
  const path = join(folder, 'large');
  const args = ['--data-file', path, '--message-id', 'm1', '-T', 'text/plain'];
  await writeFile(path, 'x'.repeat(limit));
  expect((await one(args)).body.length).toBe(limit);
  await writeFile(path, 'x'.repeat(limit + 1));
  await expect(one(args)).rejects.toMatchObject({
    code: 'data',
    message: expect.stringContaining('256 KiB'),
  });
});

test('input without an end does not fill the memory', async () => {
  const endless = (): Io => ({
    ...fakeIo(),
    stdin: Readable.from(
      (function* () {
        for (;;) yield Buffer.alloc(65_536, 'x');
      })(),
      { objectMode: false },
    ),
  });
  await expect(items(['--stdin'], '', endless())).rejects.toMatchObject({ code: 'data' });
  const [long, next] = await items(['--lines'], `${'x'.repeat(3_000_000)}\nshort\n`);
  expect(long).toMatchObject({ line: 1, error: { code: 'data' } });
  expect(next?.message?.body.toString()).toBe('short');
});

test('a stream is read only as fast as it is taken', async () => {
  let produced = 0;
  const stdin = Readable.from(
    (function* () {
      for (; produced < 1000; produced++) yield Buffer.from('x'.repeat(65_535) + '\n');
    })(),
    { objectMode: false },
  );
  const { items: lines } = await openTelemetry({ ...fakeIo(), stdin }, { lines: true });
  const iterator = lines[Symbol.asyncIterator]();
  await iterator.next();
  await new Promise(setImmediate);
  expect(produced).toBeLessThan(20);
});

test('when it is told to stop, the input ends without an error', async () => {
  const stop = new AbortController();
  const stdin = new Readable({ read: () => undefined });
  stdin.push('one\n');
  const { items: lines } = await openTelemetry({ ...fakeIo(), stdin }, { lines: true }, stop.signal);
  const seen: (number | undefined)[] = [];
  for await (const { line } of lines) {
    seen.push(line);
    stop.abort();
  }
  expect(seen).toEqual([1]);
});

test('a command has an ack, and is refused over 64 KiB', async () => {
  expect(await command(['--data', 'reboot', '--ack', 'full'])).toMatchObject({
    ack: 'full',
    contentType: 'text/plain',
  });
  expect(await command(['--ndjson'], '{"body":1,"ack":"negative"}')).toMatchObject({ ack: 'negative' });
  expect((await command(['--data', 'x'])).ack).toBe('none');
  await expect(command(['--data', 'x'.repeat(65_536)])).rejects.toThrow('64 KiB');
  await expect(command(['--ndjson'], '{"body":1,"component":"x"}')).rejects.toThrow(
    'unknown key "component"',
  );
});

test('exactly one body is wanted, and a file has to be there', async () => {
  await expect(items([])).rejects.toMatchObject({ code: 'usage', message: 'nothing to send' });
  await expect(items(['--data', 'x', '--lines'])).rejects.toThrow('--data and --lines exclude each other');
  await expect(items(['--data-file', join(folder, 'none')])).rejects.toMatchObject({ code: 'no-input' });
  await expect(items(['--data-file', folder])).rejects.toMatchObject({ code: 'io' });
});

test('lines come out the same however the stream is cut', async () => {
  const content = fc.array(
    fc.string({ maxLength: 20 }).map((text) => text.replace(/[\r\n]/g, '')),
    { minLength: 1 },
  );
  await fc.assert(
    fc.asyncProperty(
      content,
      fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1 }),
      async (texts, cuts) => {
        const bytes = Buffer.from(texts.map((text) => `${text}\n`).join(''));
        const chunks: Buffer[] = [];
        for (let at = 0, n = 0; at < bytes.length; at += cuts[n++ % cuts.length]!) {
          chunks.push(bytes.subarray(at, at + cuts[n % cuts.length]!));
        }
        const lines: Line[] = [];
        for await (const line of readLines(Readable.from(chunks), 1000)) lines.push(line);
        expect(lines.map(({ bytes: of }) => of.toString())).toEqual(texts);
      },
    ),
  );
});
