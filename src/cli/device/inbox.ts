import { Option } from 'commander';

import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { openLog } from '../log-options.js';
import { addOutputOptions, createPrinter, type OutputFlags } from '../output.js';
import { count, duration } from '../values.js';
import type { InboxView } from './inbox-entries.js';
import { addSpoolOptions, type SpoolFlags } from './spool-options.js';

interface LookFlags extends SpoolFlags, OutputFlags {}

interface ListFlags extends LookFlags {
  state?: 'waiting' | 'dead';
  handler?: string;
  olderThan?: number;
}

interface ChangeFlags extends ListFlags {
  yes?: boolean;
}

/** `iothub-device inbox`: commands that were accepted and are not done. */
export function inboxCommand(io: Io): Subcommand {
  const inbox = new Subcommand('inbox')
    .description(
      'Commands that the hub was told are done and that are not yet, and those that were given up. Asks the agent that has them; where none runs, looks into its store.',
    )
    .examples(
      'iothub-device inbox list',
      'iothub-device inbox list --state dead -o json | jq .reason',
      'iothub-device inbox show 17                    # with its properties and body',
      'iothub-device inbox retry 17                   # at once, or by the next agent',
      'iothub-device inbox drop --older-than 7d --yes',
    )
    .exits(
      'ok',
      ['no-input', 'there is no such inbox or command'],
      ['unavailable', 'the agent does not answer'],
      ['io', 'damaged, or the disk fails'],
      ['try-again', 'the command is running, or an agent without a control socket has it'],
    );
  const verb = (name: string, description: string): Subcommand => {
    const command = new Subcommand(name).description(description);
    addSpoolOptions(command);
    addOutputOptions(command, 'device');
    inbox.addCommand(command);
    return command;
  };

  select(verb('list', 'a line for each command')).action((flags: ListFlags) =>
    look(io, flags, async (view) => {
      const { printList } = await import('./inbox-entries.js');
      await printList(view, { ...flags, ids: [] });
    }),
  );
  verb('show', 'commands as a whole')
    .argument('<number...>', 'as list shows it', numbers)
    .action((ids: number[], flags: LookFlags) =>
      look(io, flags, async (view) => {
        const { printCommands } = await import('./inbox-entries.js');
        await printCommands(view, ids);
      }),
    );
  change('retry', 'run commands again as soon as there is an agent: dead ones, unless they are named');
  change('drop', 'throw commands away: dead ones, unless they are named or --state says so');
  return inbox;

  function change(what: 'retry' | 'drop', description: string): void {
    select(verb(what, description).argument('[number...]', 'these only', numbers))
      .addOption(new Option('--yes', 'all of them, without naming any'))
      .action((ids: number[], flags: ChangeFlags) =>
        look(io, flags, async (view) => {
          const { changeCommands } = await import('./inbox-entries.js');
          await changeCommands(view, what, { ...flags, ids, yes: flags.yes === true });
        }),
      );
  }
}

function select(command: Subcommand): Subcommand {
  return command
    .addOption(new Option('--state <state>', 'not done yet, or given up').choices(['waiting', 'dead']))
    .addOption(new Option('--handler <name>', 'only what this handler took'))
    .addOption(new Option('--older-than <dur>', 'only what was taken so long ago').argParser(duration));
}

function numbers(text: string, soFar: number[] | undefined): number[] {
  return [...(soFar ?? []), count(1)(text)];
}

async function look(io: Io, flags: LookFlags, work: (view: InboxView) => Promise<void>): Promise<void> {
  const log = await openLog(io, flags, 'device', 'warn');
  const { openInbox } = await import('./inbox-access.js');
  await using inbox = await openInbox(io, flags, log);
  await work({ io, inbox, printer: createPrinter(io, flags) });
}
