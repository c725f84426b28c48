import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { type UrlFlags, addUrlOption, control } from './control-client.js';

/** `iothub-emulator env`. */
export function envCommand(io: Io): Subcommand {
  const command = new Subcommand('env')
    .description('Prints the connection strings of a running emulator as export lines.')
    .examples('eval "$(iothub-emulator env)"')
    .exits('ok', ['unavailable', 'no emulator runs there']);
  return addUrlOption(command).action(async (flags: UrlFlags) => {
    await io.stdout.write(await control(flags, '/v1/env'));
  });
}
