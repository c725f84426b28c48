import { Option } from 'commander';

import { addEndingOptions, type EndingFlags } from '../ending-options.js';
import { Subcommand } from '../help.js';
import {
  addConnectionOptions,
  addIdentityOptions,
  readDeviceIdentity,
  type ConnectionFlags,
  type IdentityFlags,
} from '../identity-options.js';
import type { Io } from '../io.js';
import { addLogOptions, openLog, type LogFlags } from '../log-options.js';
import { addOutputOptions, type OutputFlags } from '../output.js';
import { count } from '../values.js';

export interface MethodFlags extends OutputFlags, EndingFlags {
  exec?: string;
  status?: number;
  /** JSON text. */
  payload?: string;
  stdin?: boolean;
}

type ServeFlags = MethodFlags & IdentityFlags & ConnectionFlags & LogFlags;

/** `iothub-device method`: direct methods by hand. */
export function methodCommand(io: Io): Subcommand {
  const method = new Subcommand('method')
    .description('Answer direct methods and print each call with its answer.')
    .examples(
      `iothub-device method serve reboot --payload '{"accepted":true}'`,
      'iothub-device method serve reboot halt --exec ./power    # its output is the answer',
      `iothub-device method serve '*' --status 404 -n 1`,
      'iothub-device method serve ask --stdin                   # answer with {"payload":42}',
    )
    .exits('ok', ['unavailable', 'unreachable'], 'refused');
  const serve = new Subcommand('serve')
    .summary('answer the methods of these names')
    .description(
      'Answer the methods of these names; * and ? stand for any text and character. Any other gets the status 501.',
    )
    .argument('<name...>', 'names of methods');
  method.addCommand(serve);
  const answering = (option: Option): Option => option.helpGroup('Answering:');
  serve
    .addOption(
      answering(
        new Option(
          '--exec <program>',
          'gets each payload on its standard input, and prints the answer; see help handlers',
        ).conflicts(['status', 'payload', 'stdin']),
      ),
    )
    .addOption(
      answering(
        new Option('--status <n>', 'status of the answers (default 200)').argParser(count(0, 2 ** 31 - 1)),
      ),
    )
    .addOption(answering(new Option('--payload <json>', 'payload of the answers (default null)')))
    .addOption(
      answering(
        new Option(
          '--stdin',
          'read the answers, one on each line: {"payload":…,"status":200,"requestId":"…"}, all of them optional',
        ).conflicts('payload'),
      ),
    );
  addEndingOptions(serve);
  addOutputOptions(serve, 'device');
  addIdentityOptions(serve, 'device');
  addConnectionOptions(serve, 'device');
  addLogOptions(serve, 'device');
  serve.action(async (names: string[], flags: ServeFlags) => {
    const { methodAnswers } = await import('./method-answers.js');
    const answers = methodAnswers(flags, names);
    const identity = await readDeviceIdentity(io, flags);
    const { deviceHub } = await import('./hub.js');
    const { serveNamedMethods } = await import('./method-serve.js');
    const log = await openLog(io, flags, 'device', 'warn');
    await serveNamedMethods(io, await deviceHub(io, identity, { flags, log }), flags, answers);
  });
  return method;
}
