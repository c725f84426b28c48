import { addIdentityOptions, readDeviceIdentity, type IdentityFlags } from '../identity-options.js';
import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { duration } from '../values.js';

interface SasFlags extends IdentityFlags {
  ttl: number;
}

/** `iothub-device sas`: a token for other tools. */
export function sasCommand(io: Io): Subcommand {
  const command = new Subcommand('sas')
    .description('Print a SAS token of this device. Whoever has it is this device until it expires.')
    .examples('iothub-device sas --ttl 10m', 'curl -H "Authorization: $(iothub-device sas)" …')
    .exits('ok', 'usage', 'config')
    .option('--ttl <dur>', 'how long it is good', duration, 3_600_000);
  addIdentityOptions(command, 'device');
  return command.action(async (flags: SasFlags) => {
    const identity = await readDeviceIdentity(io, flags);
    const { deviceTokens } = await import('../../identity/token.js');
    const { AgentError } = await import('../../errors.js');
    const makeToken = deviceTokens(identity, flags.ttl);
    if (makeToken === undefined) {
      throw new AgentError('config', 'this connection string has no key to sign a token with', {
        hint: 'a device with a certificate (x509=true) needs no token',
      });
    }
    await io.stdout.write(`${makeToken(Date.now()).value.reveal()}\n`);
  });
}
