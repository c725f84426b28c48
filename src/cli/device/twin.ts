import { addEndingOptions, type EndingFlags } from '../ending-options.js';
import { Subcommand } from '../help.js';
import {
  addConnectionOptions,
  addIdentityOptions,
  addTimeoutOption,
  readDeviceIdentity,
  type ConnectionFlags,
  type IdentityFlags,
  type TimeoutFlags,
} from '../identity-options.js';
import type { Io } from '../io.js';
import { addLogOptions, openLog, type LogFlags } from '../log-options.js';
import { addOutputOptions, type OutputFlags } from '../output.js';
import { count } from '../values.js';
import type { DeviceHub } from './hub.js';

type HubFlags = IdentityFlags & ConnectionFlags & LogFlags;

export interface TwinGetFlags extends OutputFlags, TimeoutFlags {
  path?: string;
}

export interface TwinReportFlags extends OutputFlags, TimeoutFlags {
  file?: string;
  path?: string;
  ifVersion?: number;
}

export interface TwinWatchFlags extends OutputFlags, EndingFlags {
  path?: string;
  exec?: string;
  /** Leave out what is desired already. */
  changes?: boolean;
}

/** `iothub-device twin`: the device's own twin. */
export function twinCommand(io: Io): Subcommand {
  const twin = new Subcommand('twin')
    .description('Read the device twin, report properties, and follow the desired ones.')
    .examples(
      'iothub-device twin get --path desired.interval',
      `iothub-device twin report '{"fw":"1.2"}'`,
      `iothub-device twin report fan.speed=3 room='"kitchen"'`,
      'iothub-device twin watch --path interval --exec ./set-interval   # its exit code acknowledges',
    )
    .exits(
      'ok',
      ['data', 'no JSON object, or the hub refused it'],
      ['unavailable', 'unreachable'],
      ['try-again', 'throttled'],
      'refused',
    );
  addGet(io, twin);
  addReport(io, twin);
  addWatch(io, twin);
  return twin;
}

function addGet(io: Io, twin: Subcommand): void {
  const get = twin
    .verb('get', 'Print the twin, or one property of it.')
    .summary('print the twin')
    .option(
      '--path <path>',
      'this alone: desired, reported, or a name in it as desired.fan.speed; nothing if it is not there',
    );
  addTimeoutOption(get);
  addHubOptions(get);
  get.action(async (flags: TwinGetFlags & HubFlags) => {
    const { getTwin } = await import('./twin-get.js');
    await getTwin(io, await openHub(io, flags), flags);
  });
}

function addReport(io: Io, twin: Subcommand): void {
  const report = twin
    .verb('report', 'Merge a patch into the reported properties: null deletes, objects merge.')
    .summary('report properties')
    .argument('[patch...]', 'a JSON object, or NAME=JSON, NAME.NAME=JSON …')
    .option('--file <file>', 'the patch is in this file; "-" is standard input')
    .option('--path <path>', 'the patch is for what is under this name')
    .option('--if-version <n>', 'only if the reported properties have this $version still', count(0));
  addTimeoutOption(report);
  addHubOptions(report);
  report.action(async (words: string[], flags: TwinReportFlags & HubFlags) => {
    // First who we are: both may come on standard input, the connection string on its first line.
    const hub = await openHub(io, flags);
    const { readPatch } = await import('../twin-patch.js');
    const patch = await readPatch(io, words, flags);
    const { reportPatch } = await import('./twin-report.js');
    await reportPatch(io, hub, patch, flags);
  });
}

function addWatch(io: Io, twin: Subcommand): void {
  const watch = twin
    .verb(
      'watch',
      'Print the desired properties, and each change of them as it comes: one line for each property.',
    )
    .summary('follow the desired properties')
    .argument('[args...]', 'arguments of the program that --exec names')
    .option('--path <path>', 'only this property, as fan.speed; * and ? stand for any text and character')
    .option(
      '--exec <program>',
      'gets each value on its standard input; how it ends is reported as {value, ac, av, ad}',
    )
    .option('--changes', 'leave out what is desired already');
  addEndingOptions(watch);
  addHubOptions(watch);
  watch.action(async (args: string[], flags: TwinWatchFlags & HubFlags) => {
    const { watchTwin } = await import('./twin-watch.js');
    await watchTwin(io, await openHub(io, flags), flags, args);
  });
}

function addHubOptions(command: Subcommand): void {
  addOutputOptions(command, 'device');
  addIdentityOptions(command, 'device');
  addConnectionOptions(command, 'device');
  addLogOptions(command, 'device');
}

async function openHub(io: Io, flags: HubFlags): Promise<DeviceHub> {
  const identity = await readDeviceIdentity(io, flags);
  const { deviceHub } = await import('./hub.js');
  return deviceHub(io, identity, { flags, log: await openLog(io, flags, 'device', 'warn') });
}
