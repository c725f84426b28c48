import type { ChannelOptions } from '../../agent/channel.js';
import { runAgent } from '../../agent/run.js';
import { renewTokensDuring } from '../../agent/tokens.js';
import type { HubSession } from '../../amqp/session.js';
import { anyOf } from '../../signals.js';
import { Alarm } from '../alarm.js';
import type { Io } from '../io.js';
import type { EndingFlags } from '../ending-options.js';
import type { DeviceHub } from './hub.js';

/** What one who serves is told, and tells. */
export interface Stay extends ChannelOptions {
  /** The time that `--for` and `--idle` give begins with the first call. Until then no error is tried again. */
  begun: () => void;
  /** One of those that `--count` counts; false when there have been enough before. */
  happened: () => boolean;
}

/**
 * Serves on one connection after the other until count, idle time, time, reader or signal say stop. The first
 * connection must come up.
 */
export async function stayOnline(
  io: Io,
  hub: DeviceHub,
  flags: EndingFlags & { until?: AbortSignal },
  serverFor: (stay: Stay) => (session: HubSession) => Promise<void>,
): Promise<void> {
  const { clock, log } = hub;
  const enough = new AbortController();
  const until = flags.until ?? enough.signal;
  using stopping = anyOf(io.stop, io.stdout.readerGone, enough.signal, until);
  const idle = new Alarm(flags.idle, enough);
  const whole = new Alarm(flags.for, enough);
  let left = flags.count ?? Infinity;
  let online = false;
  const givesUp = () => !online;
  const serve = serverFor({
    stopping,
    clock,
    log,
    givesUp,
    begun: () => {
      if (online) return;
      online = true;
      idle.restart();
      whole.restart();
    },
    happened: () => {
      if (left === 0) return false;
      idle.restart();
      if (--left === 0) enough.abort();
      return true;
    },
  });
  try {
    await runAgent({
      open: (signal) => hub.open([], signal),
      work: (session) => renewTokensDuring(session, hub, () => serve(session)),
      stopping,
      abandon: io.now,
      givesUp,
      clock,
      log,
    });
  } finally {
    idle.stop();
    whole.stop();
  }
  io.stop.throwIfAborted();
}
