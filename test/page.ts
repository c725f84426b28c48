import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';

import type { Folder } from './cli/tool.js';

/** A command of a page, and what the page shows that it prints. */
export interface Step {
  command: string;
  output: string;
}

/** The console blocks of a page, as commands with the output that it shows for each. */
export function consoleBlocks(page: string): { terminal: string | undefined; steps: Step[] }[] {
  return [...page.matchAll(/```console(?: terminal=(\w+))?\n(.*?)```/gs)].map(([, terminal, text]) => ({
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
  }));
}

/** A PATH on which the three commands are found. */
export async function pathWithTools(folder: Folder): Promise<string> {
  const bin = join(folder.path, 'bin');
  await mkdir(bin);
  for (const name of ['iothub-device', 'iothub-service', 'iothub-emulator']) {
    await symlink(join(import.meta.dirname, `../bin/${name}.js`), join(bin, name));
  }
  return `${bin}:${process.env['PATH'] ?? ''}`;
}

/** Types the commands into one shell, as a reader does; returns what each printed, and all that went to standard error. */
export async function typeInto(
  folder: Folder,
  path: string,
  steps: readonly Step[],
): Promise<{ printed: string[]; err: string }> {
  const marker = '--- end of step ---';
  const shell = spawn('bash', ['--norc'], { cwd: folder.path, env: { PATH: path, HOME: folder.path } });
  let out = '';
  let err = '';
  shell.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
  shell.stderr.setEncoding('utf8').on('data', (text: string) => (err += text));
  // Job control for `kill %1`.
  shell.stdin.end(`set -m\n${steps.map(({ command }) => `${command}echo '${marker}'\n`).join('')}wait\n`);
  await once(shell, 'close');
  return { printed: out.split(`${marker}\n`).slice(0, -1), err };
}

/** What differs from run to run: ids, times taken, and the port, which is free to choose here. */
export function alike(text: string): string {
  return text
    .replace(/\b01[0-9A-Z]{24}\b/g, 'ID')
    .replace(/\d+ ms */g, 'N ms ')
    .replace(/"ms":\d+/g, '"ms":N')
    .replace(/localhost:\d+/g, 'localhost:PORT')
    .replace(/ +$/gm, '');
}
