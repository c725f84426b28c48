import { mkdir } from 'node:fs/promises';

import type { HubEvent } from '../../amqp/event-message.js';
import { AgentError, errorText } from '../../errors.js';
import type { Log } from '../../log.js';
import type { EventHub } from '../../service/event-hub.js';
import { openMonitor } from '../../service/monitor.js';
import { anyOf } from '../../signals.js';
import { formatDuration } from '../../units.js';
import { Alarm } from '../alarm.js';
import { dumpBody } from '../dump.js';
import { exitCodes } from '../exit-codes.js';
import type { Io } from '../io.js';
import { createPrinter, type Printer } from '../output.js';
import { DeviceCounts } from './device-counts.js';
import { eventLine } from './event-line.js';
import { eventProgram } from './event-program.js';
import type { MonitorFlags } from './monitor.js';

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
  const counts = flags.countOnly === true ? new DeviceCounts() : undefined;
  const enough = new AbortController();
  const tooLate = new AbortController();
  using until = anyOf(io.stop, io.stdout.readerGone, enough.signal, tooLate.signal);
  const patience = new Alarm(Number.isFinite(flags.timeout) ? flags.timeout : undefined, tooLate);
  const idle = new Alarm(flags.idle, enough);
  const whole = new Alarm(flags.for, enough);
  patience.restart();

  try {
    await using program = flags.exec === undefined ? undefined : eventProgram(flags.exec, log);
    await using events = openMonitor(
      {
        eventHub,
        ...startOf(flags),
        group: flags.group,
        partitions: flags.partition,
        onOnline: () => {
          patience.stop();
          idle.restart();
          whole.restart();
        },
      },
      until,
    );
    const use = await userOf(io, { flags, printer, counts });
    let left = flags.count ?? Infinity;
    for await (const event of events) {
      if (!wanted(event.deviceId ?? '')) continue;
      idle.restart();
      await use(event);
      if ((await program?.run(event, until)) === 'rejected') io.exitCode = exitCodes.data;
      events.done();
      if (--left === 0) break;
    }
  } catch (error) {
    if (tooLate.signal.aborted) {
      throw new AgentError(
        'unavailable',
        `the event hub was not reached within ${formatDuration(flags.timeout)}`,
        {
          cause: error,
        },
      );
    }
    if (!until.aborted) throw error;
  } finally {
    for (const alarm of [patience, idle, whole]) alarm.stop();
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

/** What is done with each event, before a program gets it. */
async function userOf(
  io: Io,
  { flags, printer, counts }: { flags: MonitorFlags; printer: Printer; counts: DeviceCounts | undefined },
): Promise<(event: HubEvent) => Promise<void>> {
  const { dump, checkpoint, properties } = flags;
  if (dump !== undefined) await makeDirectory(dump);
  let dumped = 0;
  return async (event) => {
    if (dump !== undefined) await dumpBody(dump, ++dumped, event);
    if (counts === undefined) await printer.print(eventLine(event, properties));
    else counts.add(event);
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

/** `*` is any text, `?` any character. A device id may have these characters too, so the text itself also matches. */
function patternOf(text: string): (deviceId: string) => boolean {
  const source = text
    .replace(/[.+^${}()|[\]\\]/g, String.raw`\$&`)
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  const pattern = new RegExp(`^${source}$`, 's');
  return (deviceId) => deviceId === text || pattern.test(deviceId);
}
