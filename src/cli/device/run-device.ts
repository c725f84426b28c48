import { serveCommands } from '../../agent/commands.js';
import { runAgent } from '../../agent/run.js';
import type { AgentState } from '../../agent/state.js';
import { renewTokensDuring } from '../../agent/tokens.js';
import { createDispatcher, type DispatcherOptions } from '../../handlers/dispatch.js';
import type { Log } from '../../log.js';
import type { Io } from '../io.js';
import type { DeviceHub } from './hub.js';

/**
 * The agent as a process: online until the first signal, which drains it; the second one means now. Nothing that the
 * hub or the network does ends it.
 */
export async function runDevice(
  io: Io,
  hub: DeviceHub,
  handling: Omit<DispatcherOptions, 'log' | 'clock'>,
): Promise<void> {
  const { log, clock } = hub;
  await using dispatcher = createDispatcher({ ...handling, clock, log });
  let drained: Promise<void> | undefined;
  io.stop.addEventListener('abort', () => {
    drained = dispatcher.drain(io.now);
  });
  await runAgent({
    open: (signal) => hub.open(['telemetry', 'commands'], signal),
    work: (session, { stopping, healthy }) =>
      renewTokensDuring(session, hub, () =>
        serveCommands(session, dispatcher, { stopping, log, onSettled: healthy }),
      ),
    stopping: io.stop,
    abandon: io.now,
    clock,
    log,
    onState: stateLog(log, hub.identity.deviceId),
  });
  await drained;
}

/** Says what the agent does, and from the fourth failure on only every so often. */
function stateLog(log: Log, device: string): (state: AgentState) => void {
  return (state) => {
    switch (state.state) {
      case 'connecting':
        log.debug('connecting', { device, attempt: state.attempt });
        return;
      case 'online':
        log.info('online', { device });
        return;
      case 'waiting': {
        const seconds = Math.round((state.until - state.since) / 100) / 10;
        const facts = { device, error: state.error, nextTryInSeconds: seconds };
        if (state.attempt <= 3) log.warn('offline', facts);
        else if (isRound(state.attempt)) log.warn('still offline', { ...facts, attempts: state.attempt });
        return;
      }
      case 'draining':
        log.info('stopping: finishing what was begun', { device });
        return;
      case 'stopped':
        log.info('stopped', { device });
        return;
    }
  };
}

/** 5, 10, 20, 40 … : often enough to see that it still tries, too seldom to fill a disk. */
function isRound(attempt: number): boolean {
  return Number.isInteger(Math.log2(attempt / 5));
}
