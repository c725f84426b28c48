import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

import { errorCodeFor, exitCodeFor, exitCodeMeanings, exitCodes } from '../../src/cli/exit-codes.js';
import { helpTopics } from '../../src/cli/help-topics.js';
import { run } from '../../src/cli/main.js';
import { parseEnvelope } from '../../src/message-envelope.js';
import { type ToolName, tools } from '../../src/cli/subcommands.js';
import { environmentOf } from '../../src/handlers/environment.js';
import { answerTo } from '../../src/handlers/exit-table.js';
import { parseDuration, parseSize, parseTime } from '../../src/units.js';
import { fakeIo } from './fake-io.js';

async function page(tool: ToolName, ...args: string[]): Promise<string> {
  const io = fakeIo();
  expect(await run(tool, args, io), io.err).toBe(0);
  expect(io.err).toBe('');
  return io.out;
}

test('exit codes and kinds of errors name each other', () => {
  for (const [name, code] of Object.entries(exitCodes)) {
    if (name === 'ok') continue;
    expect(errorCodeFor(code)).toBe(name);
    expect(exitCodeFor(errorCodeFor(code)!)).toBe(code);
  }
  expect([errorCodeFor(0), errorCodeFor(1), errorCodeFor(130)]).toEqual([undefined, undefined, undefined]);
});

test('help exit-codes has every code', async () => {
  const text = await page('iothub-device', 'help', 'exit-codes');
  for (const [name, code] of Object.entries(exitCodes)) {
    expect(text).toContain(
      `  ${String(code).padEnd(4)}${exitCodeMeanings[name as keyof typeof exitCodes]}\n`,
    );
  }
});

test('help environment names every variable that the sources read, each tool its own', async () => {
  const device = await page('iothub-device', 'help', 'environment');
  const service = await page('iothub-service', 'help', 'environment');
  const emulator = await page('iothub-emulator', 'help', 'environment');
  expect(device).not.toContain('IOTHUB_SERVICE');
  expect(service).not.toContain('IOTHUB_DEVICE');
  const folder = join(import.meta.dirname, '../../src/cli');
  const sources = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => readFileSync(join(folder, file), 'utf8'));
  const read = (side: string): string[] =>
    sources.flatMap((text) =>
      [...text.matchAll(new RegExp(`variable\\(${side}, '(\\w+)'\\)`, 'g'))].map((match) => match[1]!),
    );
  expect(read('side').length).toBeGreaterThan(4);
  for (const name of read('side')) expect(device).toContain(`IOTHUB_DEVICE_${name} `);
  for (const name of read("'emulator'")) expect(emulator).toContain(`IOTHUB_EMULATOR_${name} `);
});

test('help ndjson shows messages that can be sent', async () => {
  const text = await page('iothub-device', 'help', 'ndjson');
  const [example = ''] = /^ {2}\{"body".*$/m.exec(text) ?? [];
  expect(parseEnvelope(Buffer.from(example), 'telemetry', 0)).toMatchObject({
    messageId: 'm1',
    form: 'json',
  });
});

test('help handlers agrees with what is done', async () => {
  const text = await page('iothub-device', 'help', 'handlers');
  const outcome = (code: number): string =>
    answerTo({ kind: 'exit', code }, {}, 'release', undefined).outcome;
  expect([0, 75, 69, 71, 74, 126, 127].map(outcome)).toEqual(['accept', ...Array<string>(6).fill('release')]);
  expect([64, 65, 66, 67, 76, 77, 1, 2, 255].map(outcome)).toEqual(Array<string>(9).fill('reject'));
  const command = {
    ...{ event: 'command' as const, deviceId: 'd', moduleId: 'm', contentType: 't', body: Buffer.from('') },
    ...{ messageId: 'm', correlationId: 'c', userId: 'u', contentEncoding: 'e', ack: 'full' },
    ...{ enqueuedAt: 1, expiresAt: 2, sequenceNumber: 3, deliveryCount: 0, properties: {} },
  };
  const status = (code: number): number => answerTo({ kind: 'exit', code }, {}, 'release', undefined).status;
  const rows = [...text.matchAll(/^ {2}(\d[\d, to]*).*?(?:accept|release|reject) .*?(\d+)$/gm)];
  expect(rows).toHaveLength(6);
  for (const [, codes = '', wanted] of rows) {
    for (const code of codes.match(/\d+/g) ?? []) expect(status(Number(code))).toBe(Number(wanted));
  }
  const fields = { deviceId: 'd', contentType: 't', properties: {}, body: Buffer.from('') };
  const method = { event: 'method' as const, ...fields, method: 'm', requestId: 'r' };
  const twin = { event: 'twin' as const, ...fields, path: 'p', version: 1 };
  const names = [command, method, twin].flatMap((event) => {
    const environment = environmentOf(event, { handler: 'h', attempt: 1, deadline: 3 });
    return Object.keys(environment.ok ? environment.variables : {});
  });
  expect(names.length).toBeGreaterThan(10);
  for (const name of names) expect(text).toMatch(new RegExp(`\\b${name}\\b`));
  for (const [name] of text.matchAll(/IOTHUB_[A-Z_]+[A-Z]/g)) {
    if (name !== 'IOTHUB_PROP') expect(names).toContain(name);
  }
});

test('a topic that a page names is there', async () => {
  for (const tool of Object.keys(tools) as ToolName[]) {
    for (const { name } of tools[tool].subcommands) {
      for (const [, topic = ''] of (await page(tool, name, '--help')).matchAll(/\bsee help (\w+)/g)) {
        expect(helpTopics.map((one) => one.name)).toContain(topic);
      }
    }
  }
});

test('help times shows what can be written', async () => {
  const [durations = '', sizes = '', ...times] = (await page('iothub-device', 'help', 'times'))
    .split('\n')
    .map((line) =>
      line
        .replace(/\(.*?\)/g, '')
        .replace(/^\w+ {2,}/, '')
        .trim(),
    );
  expect(durations.split(/ +/).map(parseDuration)).toHaveLength(6);
  expect(sizes.split(/ +/).map(parseSize)).toEqual([512, 64_000, 262_144, 1_048_576]);
  for (const time of times.flatMap((line) => line.split(/ +/)).filter((text) => text !== '')) {
    expect(parseTime(time, 0)).toBeTypeOf('number');
  }
});

test.each(Object.keys(tools) as ToolName[])(
  'every subcommand of %s has a page with examples and exit codes',
  async (tool) => {
    const top = await page(tool, '--help');
    expect(top).toContain('\nTopics: ');
    for (const { name, summary } of tools[tool].subcommands) {
      expect(top).toContain(summary);
      const text = await page(tool, name, '--help');
      expect(text).toContain(`Usage: ${tool} ${name} `);
      expect(text).toContain('\nExamples:\n');
      expect(text).toContain('\nExit codes: ');
      expect(text).not.toContain('undefined');
      for (const line of text.split('\n')) {
        if (!line.startsWith(`  ${tool}`) && !line.includes(' | '))
          expect(line.length).toBeLessThanOrEqual(100);
      }
    }
  },
);
