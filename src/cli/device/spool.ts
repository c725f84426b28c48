import { Option } from 'commander';

import { Subcommand } from '../help.js';
import {
  addConnectionOptions,
  addTimeoutOption,
  readDeviceIdentity,
  type ConnectionFlags,
  type TimeoutFlags,
} from '../identity-options.js';
import type { Io } from '../io.js';
import { openLog } from '../log-options.js';
import { addOutputOptions, createPrinter, type OutputFlags } from '../output.js';
import { count, duration } from '../values.js';
import type { EntryState } from '../../store/spool-entries.js';
import type { SpoolView } from './spool-look.js';
import {
  addSpoolOptions,
  findSpool,
  namedConfig,
  openSpool,
  spoolOf,
  type SpoolFlags,
} from './spool-options.js';

interface LookFlags extends SpoolFlags, OutputFlags {}

interface SelectFlags extends LookFlags {
  state?: EntryState;
  olderThan?: number;
}

interface ChangeFlags extends SelectFlags {
  yes?: boolean;
}

type DrainFlags = LookFlags & ConnectionFlags & TimeoutFlags;

/** `iothub-device spool`: the telemetry on disk. */
export function spoolCommand(io: Io): Subcommand {
  const spool = new Subcommand('spool')
    .description(
      'Telemetry that waits on disk for the hub, and what the hub has rejected. Asks the agent that has it; where none runs, looks into its store. An agent sends what waits by itself: drain, verify and dropping what waits are for when none runs.',
    )
    .examples(
      'iothub-device spool stats',
      'iothub-device spool drain                      # send it all, then end',
      'iothub-device spool list --state rejected      # what the hub refused, and why',
      'iothub-device spool requeue 17 18              # send these once more',
      'iothub-device spool export > backlog.ndjson    # "send --ndjson" takes it back',
    )
    .exits(
      'ok',
      ['data', 'the hub rejected some'],
      ['no-input', 'there is no such spool or message'],
      ['io', 'damaged, or the disk fails'],
      ['unavailable', 'the agent does not answer'],
      ['try-again', 'an agent has it, and this cannot be done beside it'],
    );
  const verb = (name: string, description: string): Subcommand => {
    const command = new Subcommand(name).description(description);
    spool.addCommand(command);
    return command;
  };
  const withOptions = (command: Subcommand): Subcommand => {
    addSpoolOptions(command);
    return addOutputOptions(command, 'device');
  };

  withOptions(verb('stats', 'how much waits, how old it is, what was dropped')).action((flags: LookFlags) =>
    look(io, flags, async (view) => {
      const { printStats } = await import('./spool-look.js');
      await printStats(view);
    }),
  );
  withOptions(select(verb('list', 'a line for each message'))).action((flags: SelectFlags) =>
    look(io, flags, async (view) => {
      const { printList } = await import('./spool-look.js');
      await printList(view, { ...flags, ids: [] });
    }),
  );
  withOptions(
    verb('show', 'messages as a whole')
      .examples('iothub-device spool show 17 -o json')
      .argument('<number...>', 'as list shows it', numbers),
  ).action((ids: number[], flags: LookFlags) =>
    look(io, flags, async (view) => {
      const { printMessages } = await import('./spool-look.js');
      await printMessages(view, ids);
    }),
  );
  addSpoolOptions(
    select(
      verb('export', 'lines of JSON that "send --ndjson" takes; the messages stay').argument(
        '[number...]',
        'these only',
        numbers,
      ),
    ),
  ).action((ids: number[], flags: SelectFlags) =>
    look(io, { ...flags, output: 'json' }, async (view) => {
      const { exportMessages } = await import('./spool-look.js');
      io.exitCode = await exportMessages(view, { ...flags, ids });
    }),
  );
  const drain = withOptions(verb('drain', 'send all that waits, then end'));
  addConnectionOptions(drain, 'device');
  addTimeoutOption(drain).action(async (flags: DrainFlags) => {
    io.exitCode = await drainIt(io, flags);
  });
  const everything = new Option('--yes', 'all of them, without naming any');
  withOptions(
    verb('requeue', 'send rejected messages once more').argument('[number...]', 'these only', numbers),
  )
    .addOption(everything)
    .addOption(olderThan())
    .action((ids: number[], flags: ChangeFlags) =>
      look(io, flags, async (view) => {
        const { requeueMessages } = await import('./spool-change.js');
        await requeueMessages(view, { ...flags, ids, yes: flags.yes === true });
      }),
    );
  withOptions(
    select(
      verb('drop', 'throw messages away: rejected ones, or pending ones with --state')
        .examples('iothub-device spool drop 17 18', 'iothub-device spool drop --older-than 30d --yes')
        .argument('[number...]', 'these only', numbers),
    ),
  )
    .addOption(everything)
    .action((ids: number[], flags: ChangeFlags) =>
      look(io, flags, async (view) => {
        const { dropMessages } = await import('./spool-change.js');
        await dropMessages(view, { ...flags, ids, yes: flags.yes === true });
      }),
    );
  withOptions(
    verb('verify', 'read everything and say what is damaged').examples('iothub-device spool verify'),
  ).action(async (flags: LookFlags) => {
    io.exitCode = await verifyIt(io, flags);
  });
  return spool;
}

function select(command: Subcommand): Subcommand {
  return command
    .addOption(
      new Option('--state <state>', 'waiting for the hub, or refused by it').choices(['pending', 'rejected']),
    )
    .addOption(olderThan());
}

function olderThan(): Option {
  return new Option('--older-than <dur>', 'only what was queued so long ago').argParser(duration);
}

function numbers(text: string, soFar: number[] | undefined): number[] {
  return [...(soFar ?? []), count(1)(text)];
}

async function look(io: Io, flags: LookFlags, work: (view: SpoolView) => Promise<void>): Promise<void> {
  const log = await openLog(io, flags, 'device', 'warn');
  const { openSpoolAccess } = await import('./spool-access.js');
  await using spool = await openSpoolAccess(io, flags, log);
  await work({ io, spool, printer: createPrinter(io, flags) });
}

async function verifyIt(io: Io, flags: LookFlags): Promise<number> {
  const place = await findSpool(io, flags);
  const log = await openLog(io, flags, 'device', 'warn');
  const { verifyStore } = await import('./spool-look.js');
  await using store = await openSpool(place, { log, whileInUse });
  return await verifyStore(store, place.directory, createPrinter(io, flags));
}

async function drainIt(io: Io, flags: DrainFlags): Promise<number> {
  const config = await namedConfig(io, flags);
  const identity = await readDeviceIdentity(io, flags, config?.hub);
  const log = await openLog(io, flags, 'device', 'warn');
  const { deviceHub } = await import('./hub.js');
  const { drainSpool } = await import('./spool-drain.js');
  const hub = await deviceHub(io, identity, { flags, configured: config?.hub, log });
  await using store = await openSpool(spoolOf(io, identity, flags, config), { log, whileInUse });
  return await drainSpool(io, hub, {
    spool: store.spool,
    printer: createPrinter(io, flags),
    timeoutMs: flags.timeout,
  });
}

const whileInUse =
  'it is the agent, or another iothub-device that queues or drains\n' +
  'an agent sends what waits by itself; stop it first';
