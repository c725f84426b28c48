import type { Command, Option } from 'commander';

import { helpTopics } from '../help-topics.js';
import type { Io } from '../io.js';
import { commandTree } from '../program.js';
import { type ToolName, tools } from '../subcommands.js';

/** What can stand on a command line, without anything of the library that parses it. */
export interface WordTree {
  tool: ToolName;
  /** The tool itself first, then what is below it. */
  commands: readonly CommandWords[];
}

export interface CommandWords {
  /** `twin get`; "" for the tool itself. */
  path: string;
  summary: string;
  options: readonly OptionWords[];
  /** What may stand at each place after it; the last one again and again if `rest`. */
  places: readonly Values[];
  rest: boolean;
}

export interface OptionWords {
  /** `-o` and `--output`, or one of them. */
  names: readonly string[];
  summary: string;
  /** Undefined: it takes no value. */
  value: Values | undefined;
}

/** Words to choose from, or what a shell finds by itself; `any` is only known to the person. */
export type Values = KnownValues | 'any';
export type KnownValues = readonly string[] | 'files' | 'directories';

/** Every command of a tool, in the order of its pages. */
export async function wordTree(tool: ToolName, io: Io): Promise<WordTree> {
  const root = await commandTree(tool, tools[tool], io, () => true);
  const names = root.commands.map((command) => command.name());
  const help: CommandWords = {
    path: 'help',
    summary: 'print the page of a command, or of a topic',
    options: [],
    places: [[...names, ...helpTopics.map(({ name }) => name)]],
    rest: false,
  };
  return { tool, commands: [...wordsOf(root, []), help] };
}

/** Names of what is one level below, with their summaries. */
export function children({ commands }: WordTree, path: string): { name: string; summary: string }[] {
  const start = path === '' ? '' : `${path} `;
  return commands
    .filter(
      (one) => one.path !== '' && one.path.startsWith(start) && !one.path.slice(start.length).includes(' '),
    )
    .map((one) => ({ name: one.path.slice(start.length), summary: one.summary }));
}

/** A path as it is found: the words so far, a blank, the next word. */
export function after(path: string): string {
  return path.includes(' ') ? path : ` ${path}`;
}

/** What is offered at the places after a command; `place` is undefined where it holds for all that follow too. */
export function offersAt(
  { commands }: WordTree,
  path: string,
): { place: number | undefined; values: KnownValues }[] {
  const { places = [], rest = false } = commands.find((one) => one.path === path) ?? {};
  return places.flatMap((values, at) => {
    if (values === 'any') return [];
    return [{ place: rest && at === places.length - 1 ? undefined : at, values }];
  });
}

/** Options that take a value, as `PATH NAME`: `send --output`. */
export function valuedOptions({ commands }: WordTree): string[] {
  return commands.flatMap(({ path, options }) =>
    options
      .filter(({ value }) => value !== undefined)
      .flatMap(({ names }) => names.map((name) => `${path} ${name}`)),
  );
}

/** The same by the values that can be offered, which many have in common. */
export function optionsByValues({ commands }: WordTree): { values: KnownValues; of: string[] }[] {
  const groups = new Map<string, { values: KnownValues; of: string[] }>();
  for (const { path, options } of commands) {
    for (const { names, value } of options) {
      if (value === undefined || value === 'any') continue;
      const key = String(value);
      const group = groups.get(key) ?? { values: value, of: [] };
      groups.set(key, group);
      group.of.push(...names.map((name) => `${path} ${name}`));
    }
  }
  return [...groups.values()];
}

function wordsOf(command: Command, path: readonly string[]): CommandWords[] {
  const summary = command.summary() || command.description();
  const args = command.registeredArguments;
  const own: CommandWords = {
    path: path.join(' '),
    summary,
    options: [...command.createHelp().visibleOptions(command)].map(optionWords),
    places: args.map((argument) => valuesOf(argument.name(), argument.argChoices)),
    rest: args.at(-1)?.variadic === true,
  };
  return [own, ...command.commands.flatMap((child) => wordsOf(child, [...path, child.name()]))];
}

function optionWords(option: Option): OptionWords {
  const [, placeholder = ''] = /[<[](.*?)(?:\.\.\.)?[>\]]/.exec(option.flags) ?? [];
  return {
    names: [option.short, option.long].filter((name) => name !== undefined),
    summary: option.description,
    // A value that may be left out is never offered: what follows is more often the next argument.
    value: option.required ? valuesOf(placeholder, option.argChoices) : undefined,
  };
}

function valuesOf(placeholder: string, choices: readonly string[] | undefined): Values {
  if (choices) return choices;
  if (['file', 'program', 'args'].includes(placeholder)) return 'files';
  return placeholder === 'dir' ? 'directories' : 'any';
}
