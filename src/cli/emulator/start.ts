import { Option } from 'commander';

import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { count, duration } from '../values.js';
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
      ['config', 'the seed is wrong'],
    );
  const port = (flag: string, name: string, text: string): Option =>
    new Option(`--${flag} <n>`, text)
      .argParser(count(0, 65_535))
      .env(variable('emulator', name))
      .helpGroup('Listening:');
  const hub = (option: Option): Option => option.helpGroup('Hub:');
  return command
    .addOption(port('port', 'PORT', 'AMQP over TLS (default: 5671)'))
    .addOption(
      port(
        'https-port',
        'HTTPS_PORT',
        'REST and AMQP over WebSocket (default: 443, else 8443, else a free one)',
      ),
    )
    .addOption(port('amqp-port', 'AMQP_PORT', 'AMQP without TLS (default: 5672, else a free one)'))
    .addOption(port('http-port', 'HTTP_PORT', 'health and control (default: 8080, else a free one)'))
    .addOption(
      new Option('--ports <auto>', 'free ports for everything').choices(['auto']).helpGroup('Listening:'),
    )
    .addOption(
      new Option('--host <address>', 'address to listen on; beyond loopback only with --random-keys')
        .default('127.0.0.1')
        .env(variable('emulator', 'HOST'))
        .helpGroup('Listening:'),
    )
    .addOption(
      new Option('--host-name <name...>', 'more names that clients know it by').helpGroup('Listening:'),
    )
    .addOption(hub(new Option('--device <id...>', 'registers these devices')))
    .addOption(
      hub(
        new Option(
          '--device-ca <file...>',
          'authorities whose signature on the certificate of a device counts',
        ),
      ),
    )
    .addOption(hub(new Option('--seed <file>', 'registers what a JSON file lists')))
    .addOption(
      hub(
        new Option('--state <dir>', 'keeps the authority, the registry and all messages there (mode 0700)'),
      ),
    )
    .addOption(hub(new Option('--random-keys', 'keys of its own instead of the well-known ones')))
    .addOption(
      new Option('--trouble <seed>', 'makes random trouble, the same for the same number')
        .argParser(count(0))
        .helpGroup('Trouble:'),
    )
    .addOption(
      new Option('--trouble-every <dur>', 'how often, about')
        .argParser(duration)
        .default(10_000, '10s')
        .helpGroup('Trouble:'),
    )
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
