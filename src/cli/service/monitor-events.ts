import { mkdir } from 'node:fs/promises';

import type { HubEvent } from '../../amqp/event-message.js';
import { AgentError, errorText } from '../../errors.js';
import type { Log } from '../../log.js';
import type { EventHub } from '../../service/event-hub.js';
import { openMonitor } from '../../service/monitor.js';
import { dumpBody } from '../dump.js';
import { exitCodes } from '../exit-codes.js';
import type { Io } from '../io.js';
import { createPrinter, type Printer } from '../output.js';
import { eventParts, fillTemplate, parseTemplate } from '../template.js';
import { Ending } from './ending.js';
import { DeviceCounts } from './device-counts.js';
import { eventLine } from './event-line.js';
import { eventProgram } from './event-program.js';
import type { MonitorFlags } from './monitor.js';
import { patternOf } from './pattern.js';

export interface MonitorJob {
  /** A device id or a pattern; undefined is all. */
  device: string | undefined;
  eventHub: (signal: AbortSignal) => Promise<EventHub>;
  log: Log;
}

/** Prints events until the count, the idle time, the time or a signal says stop. */
export async function monitorEvents(
  io: Io,
  { device, eventHub, log }: MonitorJob,
  flags: MonitorFlags,
): Promise<void> {
  const wanted = device === undefined ? () => true : patternOf(device);
  const printer = createPrinter(io, flags);
  const { where = [] } = flags;
  const counts = flags.countOnly === true ? new DeviceCounts() : undefined;
  using ending = new Ending(io, flags);

  try {
    await using program = flags.exec === undefined ? undefined : eventProgram(flags.exec, log);
    await using events = openMonitor(
      {
        eventHub,
        ...startOf(flags),
        group: flags.group,
        partitions: flags.partition,
        onOnline: ending.online,
      },
      ending.until,
    );
    const use = await userOf(io, { flags, printer, counts });
    for await (const event of events) {
      if (!wanted(event.deviceId ?? '') || !where.every((condition) => condition(event))) continue;
      ending.arrived();
      await use(event);
      if ((await program?.run(event, ending.until)) === 'rejected') io.exitCode = exitCodes.data;
      events.done();
      if (ending.counted()) break;
    }
  } catch (error) {
    ending.settle(error);
  }
  for (const line of counts?.lines() ?? []) await printer.print(line);
  io.stop.throwIfAborted();
}

/** Where to begin. A checkpoint that is kept is gone on from, and begun with all that there is. */
function startOf({ from, checkpoint: file, lease: leaseMs }: MonitorFlags) {
  if (from === 'checkpoint' && file === undefined) {
    throw new AgentError('usage', '--from checkpoint needs --checkpoint FILE');
  }
  const beginning = from ?? (file === undefined ? 'now' : 'checkpoint');
  return {
    ...(file === undefined ? {} : { checkpoint: { file, leaseMs } }),
    from:
      beginning === 'now'
        ? beginning
        : typeof beginning === 'number'
          ? ({ at: 'time', enqueuedAt: beginning } as const)
          : ({ at: 'start' } as const),
  };
}

const newline = Buffer.from('\n');

/** What is done with each event, before a program gets it. */
async function userOf(
  io: Io,
  { flags, printer, counts }: { flags: MonitorFlags; printer: Printer; counts: DeviceCounts | undefined },
): Promise<(event: HubEvent) => Promise<void>> {
  const { dump, checkpoint, properties, format } = flags;
  const template = format === undefined ? undefined : parseTemplate(format, eventParts);
  if (dump !== undefined) await makeDirectory(dump);
  let dumped = 0;
  return async (event) => {
    if (dump !== undefined) await dumpBody(dump, ++dumped, event);
    if (counts !== undefined) counts.add(event);
    else if (template === undefined) await printer.print(eventLine(event, properties));
    else await io.stdout.write(Buffer.concat([fillTemplate(template, event), newline]));
    // What is not out yet must not count as seen.
    if (checkpoint !== undefined) await io.stdout.flush();
    // A reader that has gone may not have got it.
    io.stdout.readerGone.throwIfAborted();
  };
}

async function makeDirectory(path: string): Promise<void> {
  await mkdir(path, { recursive: true }).catch((error: unknown) => {
    throw new AgentError('cannot-create', `cannot make ${path}: ${errorText(error)}`, { cause: error });
  });
}
