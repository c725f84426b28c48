import { InvalidArgumentError, Option } from 'commander';

import { parseTime } from '../../units.js';
import { addTimeoutOption, type TimeoutFlags } from '../identity-options.js';
import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { addLogOptions, openLog, type LogFlags } from '../log-options.js';
import { addOutputOptions, type OutputFlags } from '../output.js';
import { addEndingOptions, type EndingFlags } from '../ending-options.js';
import { duration } from '../values.js';
import { addEventHubOptions, readEventHub, type EventHubFlags } from './event-hub-options.js';
import { propertyKinds, type PropertyKind } from './event-line.js';
import { parseCondition, type Condition } from './event-condition.js';

export interface MonitorFlags extends EventHubFlags, TimeoutFlags, EndingFlags, OutputFlags, LogFlags {
  from?: From;
  group: string;
  partition?: string[];
  properties: ReadonlySet<PropertyKind>;
  format?: string;
  where?: Condition[];
  dump?: string;
  countOnly?: boolean;
  exec?: string;
  checkpoint?: string;
  /** Milliseconds. */
  lease: number;
}

/** Where to begin; a number is a time, in milliseconds since the epoch. */
export type From = 'start' | 'now' | 'checkpoint' | number;

/** `iothub-service monitor`: what devices send, as it comes or from a while ago. */
export function monitorCommand(io: Io): Subcommand {
  const command = new Subcommand('monitor')
    .description('Print what devices send, from all partitions of the built-in endpoint.')
    .examples(
      'iothub-service monitor',
      'iothub-service monitor "boiler-*" --from -15m --idle 5s -o json',
      'iothub-service monitor --checkpoint seen.json --exec ./store   # each at least once; start more of them to share',
      'iothub-service monitor --count-only --for 1m',
      "iothub-service monitor --where 'body.temperature>30' --format '{deviceId} {body}'",
    )
    .exits(
      'ok',
      ['data', 'a program of --exec rejected something'],
      ['unavailable', 'unreachable, or the partition is taken'],
      'refused',
    )
    .argument('[device]', 'device id, or a pattern with * and ?');
  const reading = (option: Option): Option => option.helpGroup('Reading:');
  const printing = (option: Option): Option => option.helpGroup('Output:');
  command
    .addOption(
      reading(
        new Option(
          '--from <when>',
          'start, now, a time such as -15m, or checkpoint; now without a checkpoint file, with one it is only for ' +
            'partitions that the file does not know, and start',
        ).argParser(when),
      ),
    )
    .addOption(reading(new Option('--group <name>', 'consumer group').default('$Default')))
    .addOption(
      reading(
        new Option(
          '--where <condition>',
          'only those with PATH=VALUE, or != > >= < <=; PATH is properties.NAME, body.NAME.NAME (JSON), source, ' +
            'contentType …; once more for one more condition',
        ).argParser(condition),
      ),
    )
    .addOption(reading(new Option('--partition <ids>', 'only these, as in 0,3').argParser(list)))
    .addOption(
      reading(
        new Option(
          '--checkpoint <file>',
          'go on where this file says, and keep it; monitors with the same file share the partitions',
        ),
      ),
    )
    .addOption(
      reading(
        new Option('--lease <dur>', 'a monitor that hangs for so long loses its partitions')
          .argParser(duration)
          .default(10_000, '10s'),
      ),
    )
    .addOption(
      printing(
        new Option('--properties <kinds>', 'of sys, app and ann: the message, the application, annotations')
          .argParser(kinds)
          .default(new Set(['sys', 'app']), 'sys,app'),
      ),
    )
    .addOption(
      printing(
        new Option(
          '--format <template>',
          'print this for each: {body} {messageId} {deviceId} {enqueuedAt} {partition} {offset} {prop.NAME} …',
        ).conflicts('countOnly'),
      ),
    )
    .addOption(printing(new Option('--dump <dir>', 'also write each body into a file of its own there')))
    .addOption(
      printing(new Option('--count-only', 'at the end one line for each device: how many, how fast')),
    )
    .addOption(
      new Option(
        '--exec <program>',
        'gets each as a handler gets a command: see help handlers; "later" is tried again',
      ).helpGroup('Output:'),
    );
  addOutputOptions(command, 'service');
  addEndingOptions(command);
  addEventHubOptions(command);
  addTimeoutOption(command);
  addLogOptions(command, 'service');
  return command.action(async (device: string | undefined, flags: MonitorFlags) => {
    const log = await openLog(io, flags, 'service', 'warn');
    try {
      const eventHub = await readEventHub(io, flags, log);
      const { monitorEvents } = await import('./monitor-events.js');
      await monitorEvents(io, { device, eventHub, log }, flags);
    } finally {
      await log.flush();
    }
  });
}

function when(text: string): From {
  if (text === 'start' || text === 'now' || text === 'checkpoint') return text;
  try {
    return parseTime(text, Date.now());
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new InvalidArgumentError(`start, now, checkpoint, or a time: ${error.message}`);
  }
}

function list(text: string, soFar: string[] = []): string[] {
  return [...soFar, ...text.split(',').filter((part) => part !== '')];
}

function kinds(text: string): ReadonlySet<PropertyKind> {
  const named = list(text);
  const unknown = named.find((name) => !(propertyKinds as readonly string[]).includes(name));
  if (unknown !== undefined) throw new InvalidArgumentError('it may have sys, app and ann, as in sys,app');
  return new Set(named as PropertyKind[]);
}

function condition(text: string, soFar: readonly Condition[] = []): Condition[] {
  const parsed = parseCondition(text);
  if (parsed === undefined)
    throw new InvalidArgumentError('write it as PATH=VALUE, such as properties.level=error');
  return [...soFar, parsed];
}
