import {
  addConnectionOptions,
  addIdentityOptions,
  addTimeoutOption,
  readDeviceIdentity,
  type ConnectionFlags,
  type IdentityFlags,
  type TimeoutFlags,
} from '../identity-options.js';
import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { addLogOptions, openLog, type LogFlags } from '../log-options.js';
import { addMessageOptions, type MessageFlags } from '../message-options.js';
import { addOutputOptions, type OutputFlags } from '../output.js';
import { count } from '../values.js';

interface SendFlags
  extends MessageFlags, IdentityFlags, ConnectionFlags, TimeoutFlags, OutputFlags, LogFlags {
  inflight: number;
}

/** `iothub-device send`: telemetry, one message or a stream of them. */
export function sendCommand(io: Io): Subcommand {
  const command = new Subcommand('send')
    .description('Send telemetry to the hub and wait for its answer to every message.')
    .examples(
      `iothub-device send --data '{"temperature":21.5}' --prop room=kitchen`,
      'sensor | iothub-device send --lines --prop source=boiler',
      `iothub-device send --ndjson -o json < backlog.ndjson | jq 'select(.outcome != "accepted")'`,
    )
    .exits(
      ['ok', 'accepted'],
      ['data', 'rejected or unreadable'],
      ['unavailable', 'unreachable'],
      ['try-again', 'try again'],
      ['refused', 'refused'],
    );
  addMessageOptions(command, 'telemetry').option(
    '--inflight <n>',
    'messages without an answer at once; no more input is read meanwhile',
    count(1, 2000),
    100,
  );
  addIdentityOptions(command, 'device');
  addConnectionOptions(command, 'device');
  addTimeoutOption(command);
  addOutputOptions(command, 'device');
  addLogOptions(command, 'device');
  return command.action(async (flags: SendFlags) => {
    io.exitCode = await send(io, flags);
  });
}

async function send(io: Io, flags: SendFlags): Promise<number> {
  const identity = await readDeviceIdentity(io, flags);
  const { openTelemetry } = await import('../message-input.js');
  const input = await openTelemetry(io, flags, AbortSignal.any([io.stop, io.stdout.readerGone]));

  const { deviceHub } = await import('./hub.js');
  const { sendTelemetry } = await import('./send-telemetry.js');
  const { createPrinter } = await import('../output.js');
  const { sentLine } = await import('../output-sent.js');
  const printer = createPrinter(io, flags);
  const hub = await deviceHub(identity, { ...flags, log: await openLog(io, flags, 'device', 'warn') });
  return sendTelemetry(io, hub, {
    messages: input.items,
    inflight: flags.inflight,
    onError: flags.onError ?? (input.kind === 'one' ? 'stop' : 'continue'),
    timeoutMs: flags.timeout,
    print: (sent) => printer.print(sentLine(sent)),
  });
}
