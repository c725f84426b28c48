import { untilCertificateRenewed } from '../../agent/certificate.js';
import { serveCommands } from '../../agent/commands.js';
import { serveMethods } from '../../agent/methods.js';
import { runAgent } from '../../agent/run.js';
import { SpoolOutbox } from '../../agent/spool-outbox.js';
import type { AgentState } from '../../agent/state.js';
import { pumpTelemetry } from '../../agent/telemetry.js';
import { renewTokensDuring } from '../../agent/tokens.js';
import { TwinKeeper } from '../../agent/twin.js';
import { Want, whenWanted } from '../../agent/when-wanted.js';
import { createDispatcher, type DispatcherOptions } from '../../handlers/dispatch.js';
import type { HandlerSurroundings } from '../../daemon/handlers.js';
import type { AgentConfig } from '../../daemon/config.js';
import { CloseLook } from '../../daemon/close-look.js';
import { openControl } from '../../daemon/control.js';
import { controlRoutes } from '../../daemon/control-routes.js';
import type { ControlPlace } from '../../daemon/control-socket.js';
import type { TelemetryDoor } from '../../daemon/control-telemetry.js';
import { endWith } from '../../daemon/ending.js';
import { measured, silentMeter, type Meter } from '../../daemon/meter.js';
import { openMetricsListener } from '../../daemon/metrics-listener.js';
import { createNotifier, feedWatchdog } from '../../daemon/notify.js';
import { Progress } from '../../daemon/progress.js';
import { createReload, type ReloadOptions } from '../../daemon/reload.js';
import { refuseHandlers } from '../../daemon/reload-handlers.js';
import { StatusBoard } from '../../daemon/status.js';
import { UnitStatus } from '../../daemon/unit-status.js';
import type { HubSession } from '../../amqp/session.js';
import { AgentError } from '../../errors.js';
import type { HandlerTelemetry } from '../../handlers/contract.js';
import type { Handler } from '../../handlers/handler.js';
import { replyMessage, telemetryOf } from '../../handlers/reply-message.js';
import type { Log } from '../../log.js';
import { messageBytes } from '../../message-size.js';
import { hubLimits, type CommandOutcome, type CommandReply, type TelemetryMessage } from '../../model.js';
import type { CommandFacts } from '../../store/ledger.js';
import { diskFiles } from '../../store/log/files.js';
import { watchedFiles } from '../../store/log/watched-files.js';
import type { Spool } from '../../store/spool.js';
import { openStore, type StoreOptions } from '../../store/store.js';
import { ulids } from '../../ulids.js';
import type { Io } from '../io.js';
import { version } from '../version.js';
import type { DeviceHub } from './hub.js';

export interface RunJob {
  handling: Omit<DispatcherOptions, 'handlers' | 'log' | 'clock' | 'ledger' | 'inbox'>;
  makeHandlers: (config: AgentConfig, surroundings: HandlerSurroundings) => Promise<MadeHandlers>;
  store: Pick<StoreOptions, 'directory' | 'spool' | 'inbox'>;
  /** How long outcomes of commands are remembered. */
  dedupeMs: number;
  /** Where other programs speak to the agent; undefined: nowhere. */
  control: ControlPlace | undefined;
  config: AgentConfig;
  /** Turns debug messages on, or back to what was configured. */
  setDebug: (isOn: boolean) => void;
  /** How the configuration is read again; absent: there is no file. */
  reload: Omit<ReloadOptions, 'log' | 'onReloaded'> | undefined;
}

export interface MadeHandlers {
  handlers: readonly Handler[];
  /** Those that cannot be run, and why. */
  refused: readonly { name: string; reason: string }[];
}

/** How long the disk may take for one call where no watchdog says it. */
const defaultStuckAfterMs = 60_000;
/** Messages that may be unanswered at once: with batches, some hundred transfers. */
const telemetryWindow = 10_000;

/**
 * The agent as a process: online until the first signal, which drains it; the second one means now. Nothing that the
 * hub or the network does ends it.
 */
export async function runDevice(io: Io, hub: DeviceHub, job: RunJob): Promise<void> {
  const { log, clock } = hub;
  const { listen } = job.config.metrics;
  const metrics = listen && (await import('../../daemon/metrics.js')).createMetrics();
  const meter: Meter = metrics ?? silentMeter;
  await using notifier = createNotifier(io.env, log);
  const progress = new Progress(clock, {
    storeStuckAfterMs: notifier.watchdogMs ?? defaultStuckAfterMs,
    onSynced: meter.synced,
  });
  await using store = await openStore({
    ...job.store,
    files: watchedFiles(diskFiles, progress.disk),
    ledger: { replyMessage: (...facts) => replyOf(hub, ...facts), retainMs: job.dedupeMs },
    log,
    clock,
  });
  const keep = keeperOf(hub, store.spool, meter);
  const surroundings = { log, clock, send: senderOf(keep) };
  const makeHandlers = async (config: AgentConfig): Promise<MadeHandlers> => {
    const { handlers: bare, refused } = await job.makeHandlers(config, surroundings);
    return { handlers: measured(bare, meter, clock), refused };
  };
  const made = await makeHandlers(job.config);
  for (const { name, reason } of made.refused) log.error('a handler is refused', { handler: name, reason });
  let { handlers } = made;
  const { ledger, inbox } = store;
  await using dispatcher = createDispatcher({ ...job.handling, handlers, ledger, inbox, clock, log });
  // Methods and the twin have links of their own, each only from the moment on when a handler is there for it.
  const wanted = { method: new Want(), twin: new Want() };
  const openFor = (those: readonly Handler[]) => {
    for (const { on } of those) if (on !== 'command') wanted[on].begin();
  };
  openFor(handlers);
  const { identity } = hub;
  const serving = { stopping: io.stop, clock, log };
  const twin = new TwinKeeper(dispatcher, {
    ...serving,
    identity: { deviceId: identity.deviceId, moduleId: identity.moduleId },
  });
  const channels = (session: HubSession) => [
    whenWanted(wanted.method, session, io.stop, () => serveMethods(session, dispatcher, serving)),
    whenWanted(wanted.twin, session, io.stop, () => twin.serve(session)),
  ];
  const outbox = new SpoolOutbox(store.spool, { clock, log, onVerdict: meter.answered });
  const { deviceId } = hub.identity;
  using unit = new UnitStatus(notifier, clock, () => ({
    device: deviceId,
    waiting: store.spool.stats().waiting.count,
  }));
  io.stop.addEventListener('abort', () => {
    unit.stopping();
  });
  using _watchdog = feedWatchdog(notifier, progress, log);
  const board = new StatusBoard({
    identity: hub.identity,
    version: version(),
    clock,
    spool: store.spool,
    inbox,
    flow: () => outbox.flow,
    tokenExpiresAt: () => hub.tokenExpiresAt(),
    certificateExpiresAt: () => hub.certificate?.current?.expiresAt,
    handlers: () => handlers,
    health: () => dispatcher.health(),
  });
  const telemetry: TelemetryDoor = {
    keep,
    fateOf: (id, signal) => outbox.fateOf(id, signal),
    has: async (id) => (await store.spool.find(id)) !== undefined,
    stopping: io.stop,
  };
  const apply = async (config: AgentConfig): Promise<void> => {
    const next = await makeHandlers(config);
    await refuseHandlers(next.handlers, next.refused);
    ({ handlers } = next);
    dispatcher.replaceHandlers(handlers);
    openFor(handlers);
    twin.handlersChanged();
    store.spool.limit(config.spool);
    await job.reload?.apply(config);
  };
  const reload = job.reload && createReload({ ...job.reload, apply, log, onReloaded: meter.reloaded });
  using _hangUp = reload && io.onSignal('SIGHUP', () => void reload().catch(() => undefined));
  using closeLook = new CloseLook({ status: () => board.status(), setDebug: job.setDebug, log });
  using _user = io.onSignal('SIGUSR2', () => {
    closeLook.toggle();
  });
  const routes = controlRoutes({
    ...{ board, telemetry, store, inbox, clock, reload },
    directory: job.store.directory,
  });
  await using _control = job.control === undefined ? undefined : await openControl(job.control, routes, log);
  await using _metrics =
    listen &&
    metrics &&
    (await openMetricsListener(
      listen,
      {
        metrics,
        progress,
        board,
        stopping: io.stop,
        status: () => board.status(),
        store: () => store.stats(),
        slots: () => ({ all: dispatcher.concurrency, free: dispatcher.freeSlots }),
        spoolLimitBytes: () => store.spool.maximumBytes,
      },
      log,
    ));
  const say = stateLog(log, deviceId);
  void unit.ready();
  using ending = endWith(io, (now) => dispatcher.drain(now));
  await runAgent({
    open: (signal) => hub.open(['telemetry', 'commands'], signal),
    work: (session, { stopping, healthy }) =>
      renewTokensDuring(session, { ...hub, onRenewal: meter.renewed }, () =>
        allEnded([
          untilCertificateRenewed(session, hub.certificate, stopping, (until) =>
            allEnded([
              serveCommands(session, dispatcher, {
                stopping: until,
                log,
                onSettled: (decision) => {
                  meter.settled(decision);
                  healthy();
                },
              }),
              pumpTelemetry(session, outbox, {
                window: telemetryWindow,
                batches: true,
                clock,
                stopping: until,
                onAccepted: healthy,
              }),
            ]),
          ),
          ...channels(session),
        ]),
      ),
    stopping: io.stop,
    abandon: ending.abandon,
    clock,
    log,
    onState: (state) => {
      say(state);
      board.moved(state);
      progress.moved(state);
      meter.moved(state);
      unit.moved(state);
    },
  });
  await ending.drained;
  // What the hub accepted last is to leave the spool before the store is closed.
  await outbox.recorded();
}

/** Waits for all, whatever becomes of them, and then for the first failure: what one began another must not find half done. */
async function allEnded(works: readonly Promise<void>[]): Promise<void> {
  await Promise.allSettled(works);
  await Promise.all(works);
}

const newId = ulids();

/** What is said about a command, in the spool: an outcome is worth more than what is said about it, so nothing is thrown. */
function replyOf(hub: DeviceHub, command: CommandFacts, ...said: [CommandOutcome, CommandReply]) {
  const { deviceId, moduleId } = command;
  try {
    const message = replyMessage(newId(), command, ...said);
    return { deviceId, moduleId, messageId: message.messageId, encoded: hub.encode(message) };
  } catch (error) {
    hub.log.error('a reply could not be made of what a handler answered', {
      message: command.messageId,
      error,
    });
    return undefined;
  }
}

/** Puts telemetry into the spool: it resolves to what the spool calls it when it is on disk. */
function keeperOf(
  hub: DeviceHub,
  spool: Spool,
  meter: Pick<Meter, 'kept'>,
): (message: TelemetryMessage) => Promise<number> {
  const { deviceId, moduleId } = hub.identity;
  return async (message) => {
    const { messageId } = message;
    const { ids } = await spool.append([{ deviceId, moduleId, messageId, encoded: hub.encode(message) }]);
    const [id] = ids;
    if (id === undefined) throw new AgentError('try-again', 'the spool is full: dropped as the newest');
    meter.kept();
    return id;
  };
}

/** What a module's `send` does: it resolves when the message is on disk. */
function senderOf(keep: (message: TelemetryMessage) => Promise<number>) {
  return async (sent: HandlerTelemetry): Promise<void> => {
    const message = telemetryOf(newId(), sent);
    const bytes = messageBytes(message);
    if (bytes > hubLimits.telemetryBytes) {
      throw new AgentError(
        'data',
        `the message has ${bytes} bytes; the hub takes ${hubLimits.telemetryBytes}`,
      );
    }
    await keep(message);
  };
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
