import { addIdentityOptions, readServiceIdentity, type IdentityFlags } from '../identity-options.js';
import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { duration } from '../values.js';

interface ServiceSasFlags extends IdentityFlags {
  device?: string;
  module?: string;
  /** Milliseconds. */
  ttl: number;
}

/** `iothub-service sas`: a token for other tools. */
export function serviceSasCommand(io: Io): Subcommand {
  const command = new Subcommand('sas')
    .description(
      'Print a SAS token of the policy: for all of the hub, or with --device for what concerns that one.',
    )
    .examples(
      'curl -H "Authorization: $(iothub-service sas)" "https://$HUB/twins/dev1?api-version=2021-04-12"',
      'iothub-service sas --device dev1 --ttl 10m',
    )
    .exits('ok', 'usage', 'config')
    .option('--device <id>', 'only for this device')
    .option('--module <id>', 'only for this module of it')
    .option('--ttl <dur>', 'how long it is good', duration, 3_600_000);
  addIdentityOptions(command, 'service');
  return command.action(async ({ device, module, ttl, ...flags }: ServiceSasFlags) => {
    const { AgentError } = await import('../../errors.js');
    if (module !== undefined && device === undefined)
      throw new AgentError('usage', '--module needs --device');
    const identity = await readServiceIdentity(io, flags);
    const { serviceTokens } = await import('../../identity/token.js');
    const scope = device === undefined ? undefined : { deviceId: device, moduleId: module };
    const makeToken = serviceTokens(identity, ttl, scope);
    await io.stdout.write(`${makeToken(Date.now()).value.reveal()}\n`);
  });
}
