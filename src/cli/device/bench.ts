import { parseDeviceConnectionString } from '../../identity/connection-string.js';
import { hubLimits } from '../../model.js';
import { Subcommand } from '../help.js';
import { readDeviceIdentity, type DeviceIdentity } from '../identity-options.js';
import type { Io } from '../io.js';
import { openLog } from '../log-options.js';
import { createPrinter } from '../output.js';
import { readSmallFile } from '../small-file.js';
import { count, duration } from '../values.js';
import { addSendingOptions, type SendingFlags } from './sending-options.js';
import { namedConfig } from './spool-options.js';

interface BenchFlags extends SendingFlags {
  rate?: number;
  size: number;
  for: number;
  inflight: number;
  batch?: boolean;
  devices?: string;
  csv?: string;
}

/** `iothub-device bench`: how much telemetry the way to the hub takes, and how fast. */
export function benchCommand(io: Io): Subcommand {
  const command = new Subcommand('bench')
    .description(
      'Send made-up telemetry for a while and say how much the hub took and how long its answers took. Every message counts against the quota of the hub, and the device must not be online elsewhere.',
    )
    .examples(
      'iothub-device bench --for 30s --rate 100',
      'iothub-device bench --size 1024 --inflight 1000 --batch',
      'iothub-device bench --devices connection-strings.txt --rate 500 --csv bench.csv',
    )
    .exits(
      ['ok', 'all were accepted'],
      ['data', 'rejected'],
      ['unavailable', 'unreachable'],
      ['try-again', 'try again'],
      ['refused', 'refused'],
    )
    .option(
      '--rate <n>',
      'messages a second, of all devices together; default: as many as it takes',
      count(1),
    )
    .option('--size <bytes>', 'of the body of a message', count(1, hubLimits.telemetryBytes - 1024), 256)
    .option('--for <dur>', 'how long', duration, 10_000)
    .option('--inflight <n>', 'messages of a device without an answer at once', count(1, 1000), 100)
    .option('--batch', 'messages that wait together go out together')
    .option('--devices <file>', 'a connection string on each line; each device has a connection of its own')
    .option('--csv <file>', 'a line for each second: seconds,accepted,failed,p50_ms,p90_ms,p99_ms,max_ms');
  addSendingOptions(command);
  return command.action(async (flags: BenchFlags) => {
    io.exitCode = await bench(io, flags);
  });
}

async function bench(io: Io, flags: BenchFlags): Promise<number> {
  const config = await namedConfig(io, flags);
  const identities =
    flags.devices === undefined
      ? [await readDeviceIdentity(io, flags, config?.hub)]
      : await readDevices(flags.devices);
  const log = await openLog(io, flags, 'device', 'warn');
  const { deviceHub } = await import('./hub.js');
  const hubs = await Promise.all(
    identities.map((identity) => deviceHub(io, identity, { flags, configured: config?.hub, log })),
  );
  const { runBench } = await import('./bench-run.js');
  return runBench(io, hubs, {
    perSecond: flags.rate,
    bytes: flags.size,
    forMs: flags.for,
    inflight: flags.inflight,
    batches: flags.batch === true,
    timeoutMs: flags.timeout,
    csv: flags.csv,
    printer: createPrinter(io, flags),
  });
}

async function readDevices(file: string): Promise<DeviceIdentity[]> {
  const text = await readSmallFile(file, 'connection strings');
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => parseDeviceConnectionString(line));
}
