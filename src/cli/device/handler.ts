import { Option } from 'commander';

import { addConfigOption, readConfig, type ConfigFlags } from '../config-options.js';
import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { addLogOptions, openLog, type LogFlags } from '../log-options.js';
import { addMessageOptions } from '../message-options.js';
import { addOutputOptions, createPrinter, type OutputFlags } from '../output.js';
import { count } from '../values.js';
import type { NewFlags } from './handler-new.js';
import type { TestFlags } from './handler-test.js';

interface ListFlags extends ConfigFlags, LogFlags, OutputFlags {}

/** `iothub-device handler`: who handles commands, direct methods and twin changes. */
export function handlerCommand(io: Io): Subcommand {
  const handler = new Subcommand('handler')
    .description('Handlers of commands, direct methods and desired properties. None of these needs a hub.')
    .examples(
      'iothub-device handler new restart --sh',
      `iothub-device handler test ./restart.sh --data '{"service":"web"}'`,
      'iothub-device handler list --config agent.toml',
      'iothub-device handler test --config agent.toml --prop command=restart --data now',
      'iothub-device handler exec ./restart.mjs < body     # a module as a program',
    )
    .exits(
      'ok',
      ['data', 'rejected'],
      ['cannot-create', 'the file is there already, or cannot be made'],
      ['try-again', 'released'],
      ['config', 'a handler is refused'],
    )
    .more('See iothub-device help handlers for what a handler gets and answers.');
  const verb = (name: string, description: string): Subcommand => {
    const command = new Subcommand(name).description(description);
    handler.addCommand(command);
    return command;
  };

  const list = verb('list', 'which there are, in the order in which they are tried, and which are refused')
    .examples('iothub-device handler list --config agent.toml')
    .exits('ok', ['config', 'one is refused']);
  addConfigOption(list, 'device');
  addOutputOptions(list, 'device');
  addLogOptions(list, 'device').action(async (flags: ListFlags) => {
    const config = await readConfig(io, flags);
    const log = await openLog(io, flags, 'device', 'warn');
    const { listHandlers } = await import('./handler-list.js');
    io.exitCode = await listHandlers(config, log, createPrinter(io, flags));
  });

  const test = verb(
    'test',
    'give an event to the handler that takes it, and print what came of it: outcome, time, reason and output',
  )
    .examples(
      `iothub-device handler test ./greet --data Ada`,
      `iothub-device handler test restart --config agent.toml --prop command=restart --data '{"service":"web"}'`,
      `iothub-device handler test --config agent.toml --message '{"properties":{"command":"restart"},"body":{}}'`,
      `iothub-device handler test --config agent.toml --method reboot --data '{"delay":5}'`,
    )
    .argument('[name]', 'of a handler in the configuration, or the path of a file; else the event decides')
    .exits(
      ['ok', 'accepted'],
      ['data', 'rejected, or no handler takes it'],
      ['try-again', 'released, to be delivered again'],
    );
  addMessageOptions(test, 'command');
  test
    .addOption(event(new Option('--message <json>', 'a command as one line of JSON; see help ndjson')))
    .addOption(event(new Option('--method <name>', 'a direct method instead, with --data as its payload')))
    .addOption(event(new Option('--path <name>', 'a desired property instead, with --data as its value')))
    .addOption(
      event(new Option('--attempt <n>', 'how often it has been tried').argParser(count(1)).default(1)),
    );
  addConfigOption(test, 'device');
  addOutputOptions(test, 'device');
  addLogOptions(test, 'device').action(async (name: string | undefined, flags: TestFlags & ListFlags) => {
    const config = await readConfig(io, flags);
    const log = await openLog(io, flags, 'device', 'info');
    const { testHandler } = await import('./handler-test.js');
    io.exitCode = await testHandler(io, config, { ...flags, name, log, printer: createPrinter(io, flags) });
    await log.flush();
  });

  verb('new', 'write a handler that works, to be changed')
    .examples(
      'iothub-device handler new restart --sh',
      'iothub-device handler new reboot --js --on method --directory /etc/iothub-device/handlers',
    )
    .exits('ok', ['cannot-create', 'the file is there already, or cannot be made'])
    .argument('<name>', 'letters, digits, - and _')
    .addOption(new Option('--sh', 'a shell script').conflicts(['js', 'py']))
    .addOption(new Option('--js', 'a JavaScript module, run inside the agent').conflicts(['sh', 'py']))
    .addOption(new Option('--py', 'a Python program').conflicts(['sh', 'js']))
    .addOption(
      new Option('--on <event>', 'what it handles').choices(['command', 'method', 'twin']).default('command'),
    )
    .addOption(
      new Option('--directory <dir>', 'a handler directory: it goes into command.d there, and so on'),
    )
    .action(async (name: string, flags: NewFlags) => {
      const { newHandler } = await import('./handler-new.js');
      await newHandler(io, name, flags);
    });

  verb('exec', 'run a module as a program: body on standard input, IOTHUB_* variables, exit code as outcome')
    .examples(`echo '{"service":"web"}' | IOTHUB_MESSAGE_ID=m1 iothub-device handler exec ./restart.mjs`)
    .exits(['ok', 'accepted'], ['data', 'rejected'], ['try-again', 'released'])
    .argument('<file>', 'the module')
    .option('--stream', 'for one event after the other, as lines of JSON, until the input ends')
    .action(async (file: string, flags: { stream?: boolean }) => {
      if (flags.stream === true) {
        const { streamModule } = await import('./handler-stream.js');
        await streamModule(io, file);
        return;
      }
      const { execHandler } = await import('./handler-exec.js');
      io.exitCode = await execHandler(io, file);
    });
  return handler;
}

function event(option: Option): Option {
  return option.helpGroup('Event:');
}
