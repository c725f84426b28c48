import { execFile, spawnSync } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, test } from 'vitest';

import { bashScript } from '../../src/cli/completion/bash.js';
import { fishScript } from '../../src/cli/completion/fish.js';
import { wordTree, type WordTree } from '../../src/cli/completion/words.js';
import { zshScript } from '../../src/cli/completion/zsh.js';
import { run } from '../../src/cli/main.js';
import { type ToolName, tools } from '../../src/cli/subcommands.js';
import { fakeIo } from './fake-io.js';
import { Folder } from './tool.js';

const toolNames = Object.keys(tools) as ToolName[];

/** What a shell is to offer for the last word of a line; '' when there is nothing to choose from. */
const cases: [line: string, offered: string[]][] = [
  ['iothub-device sen', ['send']],
  ['iothub-device tw', ['twin']],
  ['iothub-device twin ', ['get', 'report', 'watch']],
  ['iothub-device --ver', ['--version']],
  ['iothub-device send --data-', ['--data-file']],
  ['iothub-device send --output ', ['auto', 'json', 'none', 'text']],
  ['iothub-device send -o j', ['json']],
  ['iothub-device send --data twin --on-error ', ['continue', 'stop']],
  ['iothub-device twin get --out', ['--output']],
  ['iothub-device help exit', ['exit-codes']],
  ['iothub-device completion ', ['bash', 'fish', 'zsh']],
  ['iothub-device completion bash ', []],
  ['iothub-device send --data ', []],
  ['iothub-device send --config agent.', ['agent.json', 'agent.toml']],
  ['iothub-device run -- agent.t', ['agent.toml']],
  ['iothub-device handler exec agent.j', ['agent.json']],
  ['iothub-device spool list --directory sp', ['spool']],
  ['iothub-service twin ', ['get', 'set', 'tag']],
  ['iothub-emulator ctl fault ', expect.arrayContaining(['attach', 'put-token']) as string[]],
  ['iothub-emulator ctl fault attach re', ['refuse']],
];

let folder: Folder;
beforeAll(async () => {
  folder = await Folder.make();
  for (const tool of toolNames) {
    const tree = await wordTree(tool, fakeIo());
    await folder.write(`${tool}.bash`, bashScript(tree));
    await folder.write(`${tool}.zsh`, zshScript(tree));
    await folder.write(`${tool}.fish`, fishScript(tree));
  }
  for (const name of ['agent.toml', 'agent.json']) await folder.write(name, '');
  await mkdir(join(folder.path, 'spool'));
  return () => folder[Symbol.asyncDispose]();
});

/** Runs a script of a shell in the folder, and returns the lines it prints. */
async function lines(shell: string, args: readonly string[], script: string): Promise<string[]> {
  const { stdout, stderr } = await promisify(execFile)(shell, [...args, '-c', script], {
    cwd: folder.path,
    env: { PATH: process.env['PATH'] ?? '', HOME: folder.path, XDG_CONFIG_HOME: folder.path },
  });
  expect(stderr).toBe('');
  return stdout.split('\n').filter((line) => line !== '');
}

describe('bash', () => {
  /** As bash itself does at a TAB: finds the function by `complete -p`, and gives it the words. */
  const complete = (line: string): Promise<string[]> => {
    const [tool = ''] = line.split(' ');
    const words = line.replace('=', ' = ').split(' ');
    return lines(
      'bash',
      ['--norc'],
      `. ./${tool}.bash
      [[ $(complete -p ${tool}) =~ -F\\ ([^ ]+) ]] || exit 1
      COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}) COMP_CWORD=${words.length - 1}
      "\${BASH_REMATCH[1]}" && printf '%s\\n' "\${COMPREPLY[@]}" | sort`,
    );
  };

  test.each(cases)('offers for %j: %j', async (line, offered) => {
    expect(await complete(line)).toEqual(offered);
  });

  test('a value may stand behind "="', async () => {
    expect(await complete('iothub-device send --output=te')).toEqual(['text']);
  });
});

const has = (shell: string): boolean => spawnSync(shell, ['-c', 'exit 0']).status === 0;

describe.skipIf(!has('fish'))('fish', () => {
  test('offers the same', async () => {
    const script = cases.map(([line]) => `echo "> $(complete -C '${line}' | string join '|')"`).join('\n');
    const printed = await lines(
      'fish',
      ['--no-config'],
      `${toolNames.map((tool) => `source ${tool}.fish`).join('\n')}\n${script}`,
    );
    const offered = printed.map((text) =>
      text
        .slice(2)
        .split('|')
        .map((one) => one.replace(/\t.*/, '').replace(/\/$/, ''))
        .filter((one) => one !== '')
        .sort(),
    );
    expect(offered).toEqual(cases.map(([, wanted]) => wanted));
  });
});

describe.skipIf(!has('zsh'))('zsh', () => {
  /** The functions of its completion system that the script calls, saying what they are given. */
  const system = `
    compdef() { : }
    compset() { [[ $words[CURRENT] == *=* ]] && words[CURRENT]=\${words[CURRENT]#*=} }
    matches() { local one; for one in "$@"; do [[ $one == $words[CURRENT]* ]] && print -r -- $one; done; return 0 }
    compadd() { shift; matches "$@" }
    _describe() { local -a names; names=(\${(P)@[-1]}); matches "\${(@)names%%:*}" }
    _files() { setopt local_options null_glob; [[ $1 == -/ ]] && matches *(/) || matches *(.) }`;
  const complete = async (line: string): Promise<string[]> => {
    const [tool = ''] = line.split(' ');
    const words = line.split(' ').map((word) => `'${word}'`);
    const script = `${system}\nwords=(${words.join(' ')}) CURRENT=${words.length}
      source ./${tool}.zsh\n_${tool.replace('-', '_')}`;
    return (await lines('zsh', ['-f'], script)).sort();
  };

  test.each(cases)('offers for %j: %j', async (line, offered) => {
    expect(await complete(line)).toEqual(offered);
  });

  test('a value may stand behind "="', async () => {
    expect(await complete('iothub-device send --output=te')).toEqual(['text']);
  });
});

test.each(toolNames)('%s completion prints these scripts', async (tool) => {
  const tree: WordTree = await wordTree(tool, fakeIo());
  for (const [shell, script] of Object.entries({ bash: bashScript, zsh: zshScript, fish: fishScript })) {
    const io = fakeIo();
    expect(await run(tool, ['completion', shell], io)).toBe(0);
    expect(io.out).toBe(script(tree));
  }
  const io = fakeIo();
  expect(await run(tool, ['completion', 'tcsh'], io)).toBe(64);
  expect(io.err).toContain('write bash, zsh or fish');
});
