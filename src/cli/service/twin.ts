import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { collect } from '../values.js';
import { addRestOptions, withRest, type RestFlags } from './rest-options.js';

export interface TwinGetFlags extends RestFlags {
  module?: string;
  path?: string;
}

export interface TwinChangeFlags extends RestFlags {
  module?: string;
  file?: string;
  null?: string[];
  replace?: boolean;
  etag?: string;
}

/** `iothub-service twin`: desired properties and tags. */
export function serviceTwinCommand(io: Io): Subcommand {
  const twin = new Subcommand('twin')
    .description('Read the twin of a device, and change what is desired of it, or its tags.')
    .examples(
      'iothub-service twin get dev1 --path properties.reported',
      'iothub-service twin set dev1 interval=5 fan.speed=3',
      `iothub-service twin tag dev1 '{"site":"north"}' --null floor`,
    )
    .exits(
      'ok',
      ['data', 'no JSON object, or the hub refused it'],
      'no-device',
      ['try-again', 'the etag is another, or throttled'],
      'refused',
    );
  addGet(io, twin);
  addChange(io, twin, {
    name: 'set',
    part: 'desired',
    description: 'Merge a patch into the desired properties: null deletes, objects merge.',
  });
  addChange(io, twin, {
    name: 'tag',
    part: 'tags',
    description: 'Merge a patch into the tags, in the same way.',
  });
  return twin;
}

function addGet(io: Io, twin: Subcommand): void {
  const get = twin
    .verb('get', 'Print the twin, or one part of it.')
    .argument('<device>', 'device id')
    .option('--module <id>', 'a module of the device')
    .option(
      '--path <path>',
      'this alone, as tags or properties.desired.fan.speed; nothing if it is not there',
    );
  addRestOptions(get).action(async (deviceId: string, flags: TwinGetFlags) => {
    const { getTwin } = await import('./change-twin.js');
    await withRest(io, flags, async (rest, signal) => {
      await getTwin(io, rest, { id: { deviceId, moduleId: flags.module }, flags }, signal);
    });
  });
}

function addChange(
  io: Io,
  twin: Subcommand,
  { name, part, description }: { name: string; part: 'desired' | 'tags'; description: string },
): void {
  const change = twin
    .verb(name, description)
    .argument('<device>', 'device id')
    .argument('[patch...]', 'a JSON object, or NAME=JSON, NAME.NAME=JSON …')
    .option('--module <id>', 'a module of the device')
    .option('--file <file>', 'the patch is in this file; "-" is standard input')
    .option('--null <name>', 'delete what has this name, as often as needed', collect)
    .option('--replace', 'put it in the place of all that is there')
    .option('--etag <etag>', 'only if the twin still has this etag');
  addRestOptions(change).action(async (deviceId: string, words: string[], flags: TwinChangeFlags) => {
    const { changeTwin } = await import('./change-twin.js');
    await withRest(io, flags, async (rest, signal) => {
      await changeTwin(io, rest, { id: { deviceId, moduleId: flags.module }, part, words, flags }, signal);
    });
  });
}
