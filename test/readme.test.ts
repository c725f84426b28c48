import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { access, mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

import ts from 'typescript';
import { expect, test, vi } from 'vitest';

import { Folder, ToolProcess } from './cli/tool.js';

const readme = readFileSync(join(import.meta.dirname, '../README.md'), 'utf8');

interface Step {
  command: string;
  output: string;
}

/** The console blocks, as commands with the output that the page shows for each. */
const blocks = [...readme.matchAll(/```console(?: terminal=(\w+))?\n(.*?)```/gs)].map(
  ([, terminal, text]) => ({
    terminal,
    steps: text!
      .split(/^\$ /m)
      .slice(1)
      .map((step): Step => {
        // A here-document belongs to its command.
        const heredoc = /^.*<<'(\w+)'\n[\s\S]*?^\1\n/m.exec(step)?.[0];
        const command = heredoc ?? step.slice(0, step.indexOf('\n') + 1);
        return { command, output: step.slice(command.length) };
      }),
  }),
);

/** What differs from run to run: ids, times taken, and the port, which is free to choose here. */
function alike(text: string): string {
  return text
    .replace(/\b01[0-9A-Z]{24}\b/g, 'ID')
    .replace(/\d+ ms */g, 'N ms ')
    .replace(/"ms":\d+/g, '"ms":N')
    .replace(/localhost:\d+/g, 'localhost:PORT');
}

test('every console block of the README prints what it shows', async () => {
  await using folder = await Folder.make();
  const bin = join(folder.path, 'bin');
  await mkdir(bin);
  for (const name of ['iothub-device', 'iothub-service', 'iothub-emulator']) {
    await symlink(join(import.meta.dirname, `../bin/${name}.js`), join(bin, name));
  }
  const path = `${bin}:${process.env['PATH'] ?? ''}`;

  const [hubBlock, ...shellBlocks] = blocks;
  expect(hubBlock?.terminal).toBe('hub');
  const [, args] = /^iothub-emulator (.*)\n$/.exec(hubBlock!.steps[0]!.command)!;
  // On free ports, because other tests run beside this one.
  await using hub = new ToolProcess('iothub-emulator', [...args!.split(' '), '--ports', 'auto'], {
    cwd: folder.path,
  });
  // The environment file is written last of all.
  await vi.waitFor(() => access(join(folder.path, 'hub.env')), { timeout: 20_000 });
  expect(alike(hub.err)).toContain(alike(hubBlock!.steps[0]!.output));

  // One shell for all the others, as a reader has one; job control for `kill %1`.
  const steps = shellBlocks.flatMap((block) => block.steps);
  const marker = '--- end of step ---';
  const shell = spawn('bash', ['--norc'], { cwd: folder.path, env: { PATH: path, HOME: folder.path } });
  let out = '';
  let err = '';
  shell.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  shell.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  shell.stdin.end(`set -m\n${steps.map(({ command }) => `${command}echo '${marker}'\n`).join('')}wait\n`);
  await once(shell, 'close');

  const printed = out.split(`${marker}\n`);
  expect([steps.length, err.replace(/^\[1\].*\n/gm, '')]).toEqual([printed.length - 1, '']);
  steps.forEach(({ command, output }, n) => {
    expect([command, alike(printed[n]!)]).toEqual([command, alike(output)]);
  });
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
