import { Option } from 'commander';

import { readDeviceIdentity } from '../identity-options.js';
import type { AgentConfig } from '../../daemon/config.js';
import { AgentError } from '../../errors.js';
import type { DeviceConnectionString } from '../../identity/connection-string.js';
import type { Log } from '../../log.js';
import { controlPaths } from '../control-path.js';
import { Subcommand } from '../help.js';
import type { Io } from '../io.js';
import { openLog } from '../log-options.js';
import { addMessageOptions, type MessageFlags } from '../message-options.js';
import type { Sent } from '../output-sent.js';
import { count } from '../values.js';
import type { RunningAgent } from './agent-client.js';
import { addSendingOptions, type SendingFlags } from './sending-options.js';
import { directoryOption, namedConfig, openSpool, spoolOf } from './spool-options.js';

interface SendFlags extends MessageFlags, SendingFlags {
  inflight: number;
  batch?: boolean;
  queue?: boolean;
  direct?: boolean;
  directory?: string;
}

/** `iothub-device send`: telemetry, one message or a stream of them. */
export function sendCommand(io: Io): Subcommand {
  const command = new Subcommand('send')
    .description('Send telemetry to the hub and wait for its answer to every message.')
    .examples(
      `iothub-device send --data '{"temperature":21.5}' --prop room=kitchen`,
      'sensor | iothub-device send --lines --prop source=boiler',
      `iothub-device send --ndjson -o json < backlog.ndjson | jq 'select(.outcome != "accepted")'`,
      'iothub-device send --queue --data-file report.bin       # offline: done when it is on disk',
    )
    .exits(
      ['ok', 'accepted, or queued'],
      ['data', 'rejected or unreadable'],
      ['unavailable', 'unreachable'],
      ['try-again', 'try again'],
      ['refused', 'refused'],
    );
  addMessageOptions(command, 'telemetry')
    .option(
      '--inflight <n>',
      'messages without an answer at once; no more input is read meanwhile',
      count(1, 1000),
      100,
    )
    .option(
      '--batch',
      'messages that wait together go out together, up to 256 KiB; the hub answers for all of them',
    );
  const queueing = (option: Option): Option => option.helpGroup('Queue:');
  command
    .addOption(
      queueing(
        new Option(
          '--queue',
          'put it into the spool, for "run" or "spool drain" to send; needs no network',
        ).conflicts(['inflight', 'batch']),
      ),
    )
    .addOption(queueing(directoryOption()))
    .addOption(
      queueing(
        new Option(
          '--direct',
          'a connection of its own although an agent runs, which the hub disconnects for that long',
        ).conflicts('queue'),
      ),
    );
  addSendingOptions(command);
  return command.action(async (flags: SendFlags) => {
    io.exitCode = await send(io, flags);
  });
}

async function send(io: Io, flags: SendFlags): Promise<number> {
  if (flags.directory !== undefined && flags.queue !== true)
    throw new AgentError('usage', '--directory is for --queue');
  const config = await namedConfig(io, flags);
  const identity = await readDeviceIdentity(io, flags, config?.hub);
  const { openTelemetry } = await import('../message-input.js');
  const input = await openTelemetry(io, flags, AbortSignal.any([io.stop, io.stdout.readerGone]));

  const { createPrinter } = await import('../output.js');
  const { sentLine } = await import('../output-sent.js');
  const printer = createPrinter(io, flags);
  const log = await openLog(io, flags, 'device', 'warn');
  const job = {
    messages: input.items,
    onError: flags.onError ?? (input.kind === 'one' ? 'stop' : 'continue'),
    print: (sent: readonly Sent[]) => printer.printAll(sent.map(sentLine)),
  };
  const agent = flags.directory === undefined ? await runningAgent(io, identity, config, log) : undefined;
  if (agent !== undefined && flags.direct !== true) {
    const { handOver } = await import('./hand-over.js');
    const wait = flags.queue === true ? 'disk' : 'hub';
    return handOver(io, agent, { ...job, wait, inflight: flags.inflight, timeoutMs: flags.timeout });
  }
  if (agent !== undefined) await warnOfEviction(io, agent);
  if (flags.queue === true) {
    const { queueTelemetry } = await import('./queue-telemetry.js');
    await using store = await openSpool(spoolOf(io, identity, flags, config), { log, whileInUse });
    const exitCode = await queueTelemetry(store.spool, { ...job, identity });
    io.stop.throwIfAborted();
    return exitCode;
  }
  const { deviceHub } = await import('./hub.js');
  const { sendTelemetry } = await import('./send-telemetry.js');
  const hub = await deviceHub(io, identity, { flags, configured: config?.hub, log, goodbye: 'said' });
  return sendTelemetry(io, hub, {
    ...job,
    messages: input.groups,
    inflight: flags.inflight,
    batches: flags.batch === true,
    timeoutMs: flags.timeout,
  });
}

/** The agent that runs for this device. Looking for one must cost nothing where there is none. */
async function runningAgent(
  io: Io,
  identity: DeviceConnectionString,
  config: AgentConfig | undefined,
  log: Log,
): Promise<RunningAgent | undefined> {
  const { existsSync } = await import('node:fs');
  if (!controlPaths(io, identity, config?.control.socket).some((path) => existsSync(path))) return undefined;
  const { agentOf } = await import('./agent-client.js');
  return agentOf(io, identity, config, log);
}

async function warnOfEviction(io: Io, { status }: RunningAgent): Promise<void> {
  await io.stderr.write(
    `warning: an agent runs for ${status.deviceId} (process ${String(status.pid)}), and the hub allows a device one ` +
      'connection: it goes offline for as long as this one lasts; without --direct it would send for you\n',
  );
}

const whileInUse =
  'it is the agent, or another iothub-device that queues or drains\n' +
  'while an agent runs, send without --queue; else wait until that process has ended';
