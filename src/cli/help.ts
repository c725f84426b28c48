import { Command, Help, Option } from 'commander';

import { exitCodeMeanings, exitCodes } from './exit-codes.js';

/** An exit code with the words for it; without words, those of the table. */
type Exit = keyof typeof exitCodes | readonly [keyof typeof exitCodes, string];

/** Heading of the options that every command has. */
export const generalGroup = 'General:';

/**
 * A command whose help page reads: usage, what it does, examples, options by group, exit codes. The examples stand
 * first because most people look for the line to copy.
 */
export class Subcommand extends Command {
  exampleLines: readonly string[] = [];
  exitList: readonly Exit[] = [];
  lastLine = '';

  constructor(name?: string) {
    super(name);
    this.addHelpOption(new Option('-h, --help', 'print this page').helpGroup(generalGroup));
    this.exitOverride();
  }

  /** One of its subcommands, made here: `cert` has `cert verify`. */
  verb(name: string, description: string): Subcommand {
    const command = new Subcommand(name).description(description);
    this.addCommand(command);
    return command;
  }

  /** Command lines to copy, with a `# comment` where it helps. */
  examples(...lines: readonly string[]): this {
    this.exampleLines = lines;
    return this;
  }

  /** The exit codes worth naming here. */
  exits(...codes: readonly Exit[]): this {
    this.exitList = codes;
    return this;
  }

  /** Where to read on: the end of the page. */
  more(line: string): this {
    this.lastLine = line;
    return this;
  }

  override createHelp(): Help {
    return Object.assign(new HelpPage(), this.configureHelp());
  }

  override createCommand(name?: string): Subcommand {
    return new Subcommand(name);
  }
}

class HelpPage extends Help {
  /** Commander's own, with fewer marks: `what it is (auto|text|json, default auto, $NAME)`. */
  override optionDescription(option: Option): string {
    const facts = [
      option.argChoices?.join('|'),
      option.hidden || option.defaultValue === undefined || option.isBoolean() || option.negate
        ? undefined
        : `default ${option.defaultValueDescription ?? String(option.defaultValue)}`,
      option.envVar === undefined ? undefined : `$${option.envVar}`,
    ].filter((fact) => fact !== undefined);
    return facts.length === 0 ? option.description : `${option.description} (${facts.join(', ')})`;
  }

  override formatHelp(command: Command, helper: Help): string {
    const width = helper.helpWidth ?? 80;
    const sections = [
      `Usage: ${helper.commandUsage(command)}`,
      helper.boxWrap(helper.commandDescription(command), width),
      ...(command instanceof Subcommand ? [examples(command)] : []),
      ...lists(command, helper),
      ...(command instanceof Subcommand ? [helper.boxWrap(exits(command), width), command.lastLine] : []),
    ];
    return `${sections.filter((section) => section !== '').join('\n\n')}\n`;
  }
}

function examples(command: Subcommand): string {
  const lines = examplesOf(command);
  return lines.length === 0 ? '' : ['Examples:', ...lines.map((line) => `  ${line}`)].join('\n');
}

/** Its own, or those of the command around it that name it. */
export function examplesOf(command: Subcommand): readonly string[] {
  const { parent } = command;
  if (command.exampleLines.length > 0 || !(parent instanceof Subcommand)) return command.exampleLines;
  return examplesOf(parent).filter((line) => line.includes(` ${parent.name()} ${command.name()}`));
}

function lists(command: Command, helper: Help): string[] {
  const termWidth = helper.padWidth(command, helper);
  const section = <T>(heading: string, items: readonly T[], row: (item: T) => [string, string]): string =>
    items.length === 0
      ? ''
      : [
          heading,
          ...items.map((item) => helper.formatItem(row(item)[0], termWidth, row(item)[1], helper)),
        ].join('\n');

  const visibleOptions = helper.visibleOptions(command);
  const options = helper.groupItems(
    [...command.options],
    visibleOptions,
    (option) => option.helpGroupHeading ?? 'Options:',
  );
  return [
    section('Commands:', helper.visibleCommands(command), (sub) => [
      helper.subcommandTerm(sub),
      helper.subcommandDescription(sub),
    ]),
    section('Arguments:', helper.visibleArguments(command), (argument) => [
      helper.argumentTerm(argument),
      helper.argumentDescription(argument),
    ]),
    ...[...options].map(([heading, group]) =>
      section(heading, group, (option) => [helper.optionTerm(option), helper.optionDescription(option)]),
    ),
  ];
}

function exits(command: Subcommand): string {
  const list = exitsOf(command);
  if (list.length === 0) return '';
  const words = list.map((exit) => {
    const [code, meaning] = typeof exit === 'string' ? [exit, exitCodeMeanings[exit]] : exit;
    return `${String(exitCodes[code])} ${meaning}`;
  });
  return `Exit codes: ${words.join(' · ')}`;
}

/** Its own, or those of the command around it. */
export function exitsOf(command: Subcommand): readonly Exit[] {
  const { parent } = command;
  return command.exitList.length > 0 || !(parent instanceof Subcommand) ? command.exitList : exitsOf(parent);
}
