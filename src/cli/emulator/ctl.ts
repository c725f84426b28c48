import { Argument, type Command, Option } from 'commander';

import { AgentError } from '../../errors.js';
import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { count, duration } from '../values.js';
import { type Call, type UrlFlags, addUrlOption, control } from './control-client.js';

const moments = ['connect', 'open', 'put-token', 'attach', 'credit', 'transfer', 'disposition', 'delivery'];
const endings = ['detach', 'end', 'close', 'drop', 'freeze'];
const acts = ['say-nothing', 'delay', 'refuse', 'answer', 'withhold', 'trickle', ...endings];

interface FilterFlags {
  link?: string;
  direction?: string;
  device?: string;
  connection?: number;
}

interface ActionFlags extends FilterFlags {
  ms?: number;
  status?: number;
  outcome?: string;
  condition?: string;
  description?: string;
  times?: number | 'always';
  after?: number;
}

/** `iothub-emulator ctl`: trouble on demand, the clock, devices. */
export function ctlCommand(io: Io): Subcommand {
  const ctl = new Subcommand('ctl')
    .description(
      'Asks a running emulator for trouble: faults that wait for their moment, and such that happen now.',
    )
    .examples(
      'iothub-emulator ctl fault put-token refuse --status 401 --times always',
      'iothub-emulator ctl fault disposition drop --link telemetry --after 2   # taken, and never told',
      'iothub-emulator ctl now detach --link commands --condition amqp:link:detach-forced',
      'iothub-emulator ctl clear',
      'iothub-emulator ctl jump 1h',
    )
    .exits(
      'ok',
      'usage',
      ['no-device', 'there is no such device'],
      ['unavailable', 'no emulator runs there'],
    );
  const ask = async (flags: UrlFlags, path: string, call?: Call): Promise<void> => {
    const answer = await control(flags, path, call);
    if (answer !== '') await io.stdout.write(`${answer}\n`);
  };
  const verb = (name: string, description: string, words?: string): Command => {
    const command = new Subcommand(name).description(description);
    if (words !== undefined) command.examples(`iothub-emulator ctl ${words}`);
    ctl.addCommand(addUrlOption(command));
    return command;
  };

  withAction(verb('fault', 'adds a fault: at MOMENT, ACT'))
    .addArgument(new Argument('<moment>', 'when it acts').choices(moments))
    .addArgument(new Argument('<act>', 'what it does').choices(acts))
    .addOption(new Option('--times <n>', 'acts so often; "always" until cleared').argParser(timesOf))
    .addOption(new Option('--after <n>', 'lets so many moments pass first').argParser(count(0)))
    .action(async (at: string, act: string, flags: ActionFlags & UrlFlags) => {
      const { times, after } = flags;
      const body = { at, ...filterOf(flags), do: actionOf(act, flags), times, after };
      await ask(flags, '/v1/faults', { method: 'POST', body });
    });
  withAction(verb('now', 'does one of the endings at once'))
    .addArgument(new Argument('<act>', 'what is done').choices(endings))
    .action(async (act: string, flags: ActionFlags & UrlFlags) => {
      const body = { filter: filterOf(flags), do: actionOf(act, flags) };
      await ask(flags, '/v1/endings', { method: 'POST', body });
    });
  verb('faults', 'lists the faults that wait', 'faults').action((flags: UrlFlags) =>
    ask(flags, '/v1/faults'),
  );
  verb('clear', 'takes all faults away').action((flags: UrlFlags) =>
    ask(flags, '/v1/faults', { method: 'DELETE' }),
  );
  verb('jump', "moves the hub's clock")
    .argument('<duration>', 'how far; back with a leading "-", after "--"', signedDuration)
    .action((jumpMs: number, flags: UrlFlags) =>
      ask(flags, '/v1/clock', { method: 'POST', body: { jumpMs } }),
    );
  verb('expire-tokens', 'lets tokens expire now, of one device or all', 'expire-tokens dev1')
    .argument('[device]')
    .action((deviceId: string | undefined, flags: UrlFlags) =>
      ask(flags, '/v1/tokens/expire', { method: 'POST', body: { deviceId } }),
    );
  verb('devices', 'lists devices', 'devices').action((flags: UrlFlags) => ask(flags, '/v1/devices'));
  verb('connections', 'lists connections with their sessions and links', 'connections').action(
    (flags: UrlFlags) => ask(flags, '/v1/connections'),
  );
  verb('dead-letters', 'lists commands that died', 'dead-letters').action((flags: UrlFlags) =>
    ask(flags, '/v1/dead-letters'),
  );
  verb('add', 'registers a device', 'add dev2')
    .argument('<device>')
    .action((deviceId: string, flags: UrlFlags) =>
      ask(flags, '/v1/devices', { method: 'POST', body: { deviceId } }),
    );
  for (const [name, status] of [
    ['enable', 'enabled'],
    ['disable', 'disabled'],
  ] as const) {
    verb(name, `${name}s a device`, `${name} dev1`)
      .argument('<device>')
      .action((id: string, flags: UrlFlags) =>
        ask(flags, `/v1/devices/${encodeURIComponent(id)}`, { method: 'PATCH', body: { status } }),
      );
  }
  verb('remove', 'deletes a device', 'remove dev1')
    .argument('<device>')
    .action((id: string, flags: UrlFlags) =>
      ask(flags, `/v1/devices/${encodeURIComponent(id)}`, { method: 'DELETE' }),
    );
  return ctl;
}

function withAction(command: Command): Command {
  return command
    .addOption(new Option('--link <kind>', 'only this kind of link: telemetry, commands, cbs, …'))
    .addOption(
      new Option('--direction <dir>', 'only links that the client sends (out) or receives (in) on').choices([
        'in',
        'out',
      ]),
    )
    .addOption(new Option('--device <id>', 'only this device'))
    .addOption(new Option('--connection <n>', 'only this connection').argParser(count(1)))
    .addOption(new Option('--ms <n>', 'for delay').argParser(count(0)))
    .addOption(new Option('--status <n>', 'for put-token refuse').argParser(count(100, 999)))
    .addOption(
      new Option('--outcome <outcome>', 'for answer').choices([
        'accepted',
        'rejected',
        'released',
        'modified',
      ]),
    )
    .addOption(new Option('--condition <symbol>', 'AMQP error condition'))
    .addOption(new Option('--description <text>', 'AMQP error description'));
}

function filterOf({ link, direction, device, connection }: FilterFlags): object {
  return { link, direction, deviceId: device, connection };
}

function actionOf(act: string, { ms, status, outcome, condition, description }: ActionFlags): object {
  if (act === 'delay' && ms === undefined) throw new AgentError('usage', 'delay needs --ms');
  if (act === 'answer' && outcome === undefined) throw new AgentError('usage', 'answer needs --outcome');
  return { act, ms, status, outcome, condition, description };
}

function timesOf(text: string): number | 'always' {
  return text === 'always' ? text : count(1)(text);
}

function signedDuration(text: string): number {
  return text.startsWith('-') ? -duration(text.slice(1)) : duration(text);
}
