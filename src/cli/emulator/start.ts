import { Option } from 'commander';

import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { count } from '../values.js';
import { variable } from '../variables.js';
import type { ServeFlags } from './serve.js';

/** `iothub-emulator start`. */
export function startCommand(io: Io): Subcommand {
  const command = new Subcommand('start')
    .description('Runs a local IoT Hub until it is stopped, and prints a line for each thing that happens.')
    .examples(
      'iothub-emulator start --device dev-01',
      'iothub-emulator start --ports auto --device dev-01 --write-env hub.env   # then: . ./hub.env',
      'iothub-emulator start --state ~/.iothub-emulator -o json | jq \'select(.event=="telemetry")\'',
    )
    .exits(
      ['ok', 'stopped by SIGINT or SIGTERM'],
      'usage',
      ['unavailable', 'a port is taken'],
      'cannot-create',
    );
  const listening = (option: Option): Option => option.helpGroup('Listening:');
  const hub = (option: Option): Option => option.helpGroup('Hub:');
  return command
    .addOption(
      listening(new Option('--port <n>', 'AMQP over TLS').argParser(count(0, 65_535)).default(5671)).env(
        variable('emulator', 'PORT'),
      ),
    )
    .addOption(listening(new Option('--ports <auto>', 'free ports for everything').choices(['auto'])))
    .addOption(
      listening(
        new Option('--host <address>', 'address to listen on; only loopback without a key of its own'),
      )
        .default('127.0.0.1')
        .env(variable('emulator', 'HOST')),
    )
    .addOption(hub(new Option('--device <id...>', 'registers these devices')))
    .addOption(hub(new Option('--state <dir>', 'keeps the certificate authority there (mode 0700)')))
    .addOption(
      new Option('--write-env <file>', 'writes connection strings there as export lines, once it is ready'),
    )
    .addOption(
      new Option('-o, --output <format>', 'how events are printed')
        .choices(['auto', 'text', 'json', 'none'])
        .default('auto')
        .env(variable('emulator', 'OUTPUT')),
    )
    .addOption(new Option('-q, --quiet', 'prints no events'))
    .action(async (flags: ServeFlags) => {
      const { serve } = await import('./serve.js');
      await serve(io, flags);
    });
}
