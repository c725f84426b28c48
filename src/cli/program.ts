import { type Command, CommanderError, type OutputConfiguration } from 'commander';

import { AgentError } from '../errors.js';
import { exitCodes } from './exit-codes.js';
import { Subcommand } from './help.js';
import { helpTopics } from './help-topics.js';
import type { Io } from './io.js';
import type { SubcommandEntry, Tool, ToolName } from './subcommands.js';

/**
 * Parses a command line and runs the subcommand it names. Only that subcommand's file is loaded; the others are
 * names in a list.
 */
export async function runProgram(name: ToolName, tool: Tool, args: readonly string[], io: Io): Promise<void> {
  const { subcommands } = tool;
  const topic = args[0] === 'help' ? helpTopics.find((one) => one.name === args[1]) : undefined;
  if (topic) {
    await io.stdout.write(topic.page(name));
    return;
  }
  // Before a stream is asked whether it shows colours.
  if (args.includes('--no-color')) io.env['NO_COLOR'] = '1';
  const named = namedSubcommand(args, subcommands);
  const pages = { out: '', error: '' };
  const program = await commandTree(name, tool, io, (entry) => entry === named);
  print(program, {
    writeOut: (text) => (pages.out += text),
    writeErr: (text) => (pages.error += text),
    // Reported by `main`, like every error.
    outputError: () => undefined,
    getOutHelpWidth: () => helpWidth(io.stdout.columns),
    getErrHelpWidth: () => helpWidth(io.stderr.columns),
  });
  program.hook('preAction', (_, command) => {
    io.verbosity = verbosity(command);
  });

  try {
    await program.parseAsync(args, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode !== 0 && pages.error === '') throw commandLineError(error, pathOf(program, args));
    // `--help` is an answer; the same page because no subcommand was named is a complaint.
    io.exitCode = error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
    await io.stdout.write(pages.out);
    await io.stderr.write(pages.error);
  }
}

/** The command line of a tool. A subcommand whose file is not wanted is a name with a summary. */
export async function commandTree(
  name: ToolName,
  { description, examples, subcommands }: Tool,
  io: Io,
  isWanted: (entry: SubcommandEntry) => boolean,
): Promise<Subcommand> {
  const program = new Subcommand(name).description(description).examples(...examples);
  program
    .more(`Topics: ${helpTopics.map((one) => `${name} help ${one.name}`).join(' · ')}`)
    .option('-V, --version', 'print the version')
    .helpCommand('help [command]', 'print the page of a command');
  for (const entry of subcommands) {
    const command = isWanted(entry) ? (await entry.load())(io) : new Subcommand(entry.name);
    program.addCommand(command.name(entry.name).summary(entry.summary));
  }
  return program;
}

/** The subcommand that the arguments ask for, or ask help about: no option before it takes a value. */
function namedSubcommand(
  args: readonly string[],
  subcommands: readonly SubcommandEntry[],
): SubcommandEntry | undefined {
  const name = args.find((arg) => !arg.startsWith('-') && arg !== 'help');
  return subcommands.find((entry) => entry.name === name);
}

/** Long lines are hard to read on a wide terminal, and a page that goes into a file has the width of a page. */
function helpWidth(columns: number | undefined): number {
  return Math.min(columns ?? 100, 120);
}

/** How a subcommand's `-q`, `-v` and `-vv` read: -1, 1, 2. */
function verbosity(command: Command): number {
  const { quiet, verbose } = command.opts<{ quiet?: boolean; verbose?: number }>();
  return quiet === true ? -1 : (verbose ?? 0);
}

/** Commands are made apart from each other, so each has to be told. */
function print(command: Command, how: OutputConfiguration): void {
  command.configureOutput(how);
  for (const child of command.commands) print(child, how);
}

function commandLineError(error: CommanderError, path: string): AgentError {
  const [what = 'the command line is wrong', ...more] = error.message.replace(/^error: /, '').split('\n');
  const suggestion = more.map((line) => line.replace(/^\((.*)\)$/, '$1'));
  return new AgentError('usage', invalidValue(what) ?? what, {
    hint: [...suggestion, `see ${path} --help`].join('\n'),
  });
}

/** What commander says of a value that cannot be, in fewer words: `--timeout 30: a duration needs a unit`. */
function invalidValue(what: string): string | undefined {
  const option = /^option '(.*?)' (?:argument '(.*)'|value '.*' from env '(\w+)') is invalid\. (.*)$/s.exec(
    what,
  );
  if (option) {
    const [, flags = '', given = '', variable, why = ''] = option;
    const flag = /--[\w-]+/.exec(flags)?.[0] ?? flags;
    return `${variable ?? `${flag} ${given}`}: ${choicesIn(why)}`;
  }
  const argument = /^command-argument value '(.*)' is invalid for argument '(.*)'\. (.*)$/s.exec(what);
  if (!argument) return undefined;
  const [, given = '', name = '', why = ''] = argument;
  return `<${name}> ${given}: ${choicesIn(why)}`;
}

function choicesIn(why: string): string {
  const choices = /^Allowed choices are (.*)\.$/.exec(why)?.[1];
  return choices === undefined ? why : `write ${choices.replace(/, ([^,]*)$/, ' or $1')}`;
}

/** The command that the words lead to, as `iothub-device twin get`. */
function pathOf(program: Command, args: readonly string[]): string {
  let at = program;
  const names = [program.name()];
  for (const word of args) {
    const next = at.commands.find((command) => command.name() === word);
    if (next === undefined) continue;
    names.push(word);
    at = next;
  }
  return names.join(' ');
}
