import { ulid } from 'ulid';

import { serveCommands } from '../../agent/commands.js';
import { runAgent } from '../../agent/run.js';
import { SpoolOutbox } from '../../agent/spool-outbox.js';
import type { AgentState } from '../../agent/state.js';
import { pumpTelemetry } from '../../agent/telemetry.js';
import { renewTokensDuring } from '../../agent/tokens.js';
import { createDispatcher, type DispatcherOptions } from '../../handlers/dispatch.js';
import type { Log } from '../../log.js';
import type { CommandFacts } from '../../store/ledger.js';
import type { NewMessage } from '../../store/spooled-message.js';
import { openStore, type StoreOptions } from '../../store/store.js';
import type { Io } from '../io.js';
import type { DeviceHub } from './hub.js';

export interface RunJob {
  handling: Omit<DispatcherOptions, 'log' | 'clock' | 'ledger'>;
  store: Pick<StoreOptions, 'directory' | 'spool'>;
}

/** Messages that may be unanswered at once: with batches, a few transfers. */
const telemetryWindow = 1_000;

/**
 * The agent as a process: online until the first signal, which drains it; the second one means now. Nothing that the
 * hub or the network does ends it.
 */
export async function runDevice(io: Io, hub: DeviceHub, job: RunJob): Promise<void> {
  const { log, clock } = hub;
  await using store = await openStore({
    ...job.store,
    ledger: { replyMessage: (command, body) => replyMessage(hub, command, body) },
    log,
    clock,
  });
  await using dispatcher = createDispatcher({ ...job.handling, ledger: store.ledger, clock, log });
  const outbox = new SpoolOutbox(store.spool, { clock, log });
  let drained: Promise<void> | undefined;
  io.stop.addEventListener('abort', () => {
    drained = dispatcher.drain(io.now);
  });
  await runAgent({
    open: (signal) => hub.open(['telemetry', 'commands'], signal),
    work: (session, { stopping, healthy }) =>
      renewTokensDuring(session, hub, () =>
        allEnded([
          serveCommands(session, dispatcher, { stopping, log, onSettled: healthy }),
          pumpTelemetry(session, outbox, {
            window: telemetryWindow,
            batches: true,
            clock,
            stopping,
            onAccepted: healthy,
          }),
        ]),
      ),
    stopping: io.stop,
    abandon: io.now,
    clock,
    log,
    onState: stateLog(log, hub.identity.deviceId),
  });
  await drained;
}

/** Waits for all, whatever becomes of them, and then for the first failure: what one began another must not find half done. */
async function allEnded(works: readonly Promise<void>[]): Promise<void> {
  await Promise.allSettled(works);
  await Promise.all(works);
}

/** What a handler answers goes out as telemetry that points at its command. */
function replyMessage(hub: DeviceHub, command: CommandFacts, body: Buffer): NewMessage {
  const messageId = ulid();
  const { deviceId, moduleId } = command;
  const encoded = hub.encode({ messageId, correlationId: command.messageId, properties: {}, body });
  return { deviceId, moduleId, messageId, encoded };
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
