import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { access, mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

import ts from 'typescript';
import { expect, test, vi } from 'vitest';

import { Folder, ToolProcess } from './cli/tool.js';
import { alike, consoleBlocks, pathWithTools, typeInto } from './page.js';

const readme = readFileSync(join(import.meta.dirname, '../README.md'), 'utf8');
const [, certificates = ''] = /^## With a certificate\n(.*?)^## /ms.exec(readme) ?? [];

test('every console block of the README prints what it shows', async () => {
  await using folder = await Folder.make();
  const path = await pathWithTools(folder);

  const [hubBlock, ...shellBlocks] = consoleBlocks(readme.replace(certificates, ''));
  expect(hubBlock?.terminal).toBe('hub');
  const [, args] = /^iothub-emulator (.*)\n$/.exec(hubBlock!.steps[0]!.command)!;
  // On free ports, because other tests run beside this one.
  await using hub = new ToolProcess('iothub-emulator', [...args!.split(' '), '--ports', 'auto'], {
    cwd: folder.path,
  });
  // The environment file is written last of all.
  await vi.waitFor(() => access(join(folder.path, 'hub.env')), { timeout: 20_000 });
  expect(alike(hub.err)).toContain(alike(hubBlock!.steps[0]!.output));

  const steps = shellBlocks.flatMap((block) => block.steps);
  const { printed, err } = await typeInto(folder, path, steps);
  expect([steps.length, err.replace(/^\[1\].*\n/gm, '')]).toEqual([printed.length, '']);
  steps.forEach(({ command, output }, n) => {
    expect([command, alike(printed[n]!)]).toEqual([command, alike(output)]);
  });
});

test('five commands from an empty folder to a device that is online by its certificate', async () => {
  await using folder = await Folder.make();
  const path = await pathWithTools(folder);
  const [before, hubBlock, after] = consoleBlocks(certificates);
  const steps = [before!, hubBlock!, after!].flatMap((block) => block.steps);
  expect(steps).toHaveLength(5);

  const made = await typeInto(folder, path, before!.steps);
  expect(made).toEqual({ printed: ['', ''], err: '' });
  const [, args] = /^iothub-emulator (.*)\n$/.exec(hubBlock!.steps[0]!.command)!;
  await using hub = new ToolProcess(
    'iothub-emulator',
    [...args!.split(' '), '--ports', 'auto', '-o', 'json'],
    { cwd: folder.path },
  );
  await vi.waitFor(() => access(join(folder.path, 'hub.env')), { timeout: 20_000 });
  expect(alike(hub.err)).toContain(alike(hubBlock!.steps[0]!.output));

  const { printed, err } = await typeInto(folder, path, after!.steps);
  expect([printed.map(alike), err]).toEqual([after!.steps.map(({ output }) => alike(output)), '']);
  // By its certificate, not by a token.
  await hub.says(/"event":"telemetry"/);
  expect(hub.out).not.toMatch(/"event":"token"/);
});

test('its code runs against the package', async () => {
  await using folder = await Folder.make();
  await mkdir(join(folder.path, 'node_modules'));
  await symlink(join(import.meta.dirname, '..'), join(folder.path, 'node_modules/iothub-device'));
  const [, code] = /```ts\n(.*?)```/s.exec(readme)!;
  const { outputText } = ts.transpileModule(code!, {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
  });
  const file = await folder.write('example.mjs', outputText);
  const { stdout } = await promisify(execFile)(process.execPath, [file]);
  expect(stdout).toMatch(/^HostName=localhost:\d+;DeviceId=dev1;SharedAccessKey=.+\n$/);
});

test('its two commands are those of package.json', () => {
  const { scripts } = JSON.parse(readFileSync(join(import.meta.dirname, '../package.json'), 'utf8')) as {
    scripts: Record<string, string>;
  };
  const lines = [...readme.matchAll(/```sh\n(.*?)\n```/gs)].map(([, line]) => line);
  expect(lines).toEqual(['npm ci && npm run demo', 'npm ci && npm test']);
  expect(Object.keys(scripts)).toEqual(expect.arrayContaining(['demo', 'test']));
});
