import type { DeviceId } from '../../model.js';
import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { addRestOptions, withRest, type RestFlags } from './rest-options.js';
import { duration } from '../values.js';

export interface MethodFlags extends RestFlags {
  module?: string;
  /** Milliseconds. */
  connectTimeout: number;
  /** Milliseconds. */
  responseTimeout: number;
}

/** `iothub-service method`: calls a direct method and prints what the device answers. */
export function callMethodCommand(io: Io): Subcommand {
  const command = new Subcommand('method')
    .description('Call a direct method of a device and print its answer. It exits by the status of that.')
    .examples(
      'iothub-service method dev1 reboot',
      `iothub-service method dev1 set-interval '{"seconds":5}' --connect-timeout 1m`,
      'iothub-service method dev1 log --module agent -o json | jq .payload',
    )
    .exits(
      ['ok', 'the device answered with a status below 400'],
      ['data', 'with 400 to 499'],
      'no-device',
      ['unavailable', 'the device is not there, or does not answer'],
      ['bug', 'with 500 or more'],
      'refused',
    )
    .argument('<device>', 'device id')
    .argument('<name>', 'name of the method')
    .argument('[json]', 'what it gets; null without')
    .option('--module <id>', 'a module of the device')
    .option('--connect-timeout <dur>', 'wait so long for a device that is not there; 5m at most', duration, 0)
    .option(
      '--response-timeout <dur>',
      'wait so long for its answer, 5s to 5m; longer than --timeout',
      duration,
      30_000,
    );
  addRestOptions(command);
  return command.action(
    async (deviceId: string, name: string, json: string | undefined, flags: MethodFlags) => {
      const { callMethod } = await import('./call-method.js');
      const { connectTimeout, responseTimeout } = flags;
      // The hub keeps both times; ours is for what is between.
      const timeout = flags.timeout + connectTimeout + responseTimeout;
      const id: DeviceId = { deviceId, moduleId: flags.module };
      await withRest(io, { ...flags, timeout }, async (rest, signal) => {
        await callMethod(io, rest, { id, name, payload: json, flags }, signal);
      });
    },
  );
}
