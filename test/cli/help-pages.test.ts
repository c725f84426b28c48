import { join } from 'node:path';

import type { Command } from 'commander';
import { describe, expect, test } from 'vitest';

import { examplesOf, exitsOf, Subcommand } from '../../src/cli/help.js';
import { helpTopics } from '../../src/cli/help-topics.js';
import { run } from '../../src/cli/main.js';
import { commandTree } from '../../src/cli/program.js';
import { type ToolName, tools } from '../../src/cli/subcommands.js';
import { fakeIo } from './fake-io.js';

/*
 * Every help page of the three commands, as it is printed. A change of one shows in the difference of its file:
 *
 *     npx vitest run --config test/vitest.config.ts test/cli/help-pages.test.ts -u
 */

describe.each(Object.keys(tools) as ToolName[])('%s', (tool) => {
  test('its pages are those of the golden file', async () => {
    const pages: string[] = [];
    for (const args of await everyPage(tool)) {
      const io = fakeIo();
      expect(await run(tool, args, io), io.err).toBe(0);
      expect(io.err).toBe('');
      pages.push(`$ ${[tool, ...args].join(' ')}\n${io.out}`);
    }
    await expect(pages.join(`\n${'='.repeat(100)}\n\n`)).toMatchFileSnapshot(
      join(import.meta.dirname, `golden/help-${tool}.txt`),
    );
  });

  test('every command under it has a description, examples of itself and exit codes', async () => {
    const root = await wholeTree(tool);
    for (const { path, command } of commandsIn(root)) {
      const name = [tool, ...path].join(' ');
      if (!(command instanceof Subcommand)) throw new Error(`${name} is not a Subcommand`);
      expect(command.description(), name).not.toBe('');
      expect(examplesOf(command).join('\n'), name).toContain(name);
      if (path.length > 0) expect(exitsOf(command), name).not.toHaveLength(0);
    }
  });

  test('the examples name flags that there are', async () => {
    const root = await wholeTree(tool);
    const lines = commandsIn(root).flatMap(({ command }) =>
      command instanceof Subcommand ? command.exampleLines : [],
    );
    for (const line of lines) {
      // What comes after "--" is for another program.
      for (const [, words = ''] of line.matchAll(new RegExp(`\\b${tool} (.*?)(?=$| -- |[|><#;&])`, 'g'))) {
        const known = knownFlags(root, words.split(' '));
        const flags = words.match(/(?<=^|\s)--?[a-z][\w-]*/g) ?? [];
        expect(
          flags.filter((flag) => !known.has(flag)),
          line,
        ).toEqual([]);
      }
    }
  });
});

function wholeTree(tool: ToolName): Promise<Subcommand> {
  return commandTree(tool, tools[tool], fakeIo(), () => true);
}

interface Found {
  path: string[];
  command: Command;
}

function commandsIn(command: Command, path: string[] = []): Found[] {
  return [
    { path, command },
    ...command.commands.flatMap((child) => commandsIn(child, [...path, child.name()])),
  ];
}

async function everyPage(tool: ToolName): Promise<string[][]> {
  const commands = commandsIn(await wholeTree(tool)).map(({ path }) => [...path, '--help']);
  return [...commands, ...helpTopics.map(({ name }) => ['help', name])];
}

/** The flags of the command that the words lead to. */
function knownFlags(root: Command, words: readonly string[]): Set<string> {
  let at = root;
  for (const word of words) at = at.commands.find((child) => child.name() === word) ?? at;
  const flags = at.options.flatMap(({ short, long }) => [short, long].filter((flag) => flag !== undefined));
  return new Set([...flags, '--help', '-h']);
}
