import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';

import type { AgentState } from '../agent/state.js';
import type { LogStats } from '../store/log/durable-log.js';
import type { Meter } from './meter.js';
import type { AgentStatus } from './status.js';

/** What is looked at when somebody asks for the metrics. */
export interface MetricsSources {
  status: () => Promise<AgentStatus>;
  store: () => LogStats;
  /** Commands that may be in hand at once, and that could be taken now. */
  slots: () => { all: number; free: number };
  /** What waiting telemetry may take on disk. */
  spoolLimitBytes: () => number;
}

export interface Metrics extends Meter {
  readonly contentType: string;
  /** All of them, in the text format of Prometheus. Errors: `io`. */
  text(sources: MetricsSources): Promise<string>;
}

const prefix = 'iothub_device_';

/**
 * The metrics of one agent, named as Prometheus wants it: base units, `_total` for what only grows, no label whose
 * values come from outside. Beside them stand those of the process, `process_…` and `nodejs_…`, by which the usual
 * dashboards know a Node.js program.
 */
export function createMetrics(): Metrics {
  const register = new Registry();
  collectDefaultMetrics({ register });
  const counters = countersIn(register);
  const gauges = gaugesIn(register);
  const durations = histogramsIn(register);
  let before: AgentState | undefined;
  const dropped: Record<string, number> = {};

  function moved(state: AgentState): void {
    if (state.state === 'online') counters.connections.inc();
    if (state.state === 'waiting') {
      const { code: reason } = state.error;
      if (before?.state === 'online') counters.losses.inc({ reason });
      else counters.failedAttempts.inc({ reason });
    }
    before = state;
  }

  function look(status: AgentStatus, { store, slots, spoolLimitBytes }: MetricsSources): void {
    const { deviceId, moduleId = '', hub, version, spool, inbox } = status;
    gauges.info.set({ device_id: deviceId, module_id: moduleId, hub, version }, 1);
    gauges.connected.set(status.state === 'online' ? 1 : 0);
    for (const state of states) gauges.state.set({ state }, status.state === state ? 1 : 0);
    gauges.stateSince.set(Date.parse(status.since) / 1000);
    gauges.paused.set(status.telemetry.flow === 'open' ? 0 : 1);
    gauges.tokenExpiry.set(
      status.tokenExpiresAt === undefined ? 0 : Date.parse(status.tokenExpiresAt) / 1000,
    );
    gauges.spoolMessages.set(spool.waiting.count);
    gauges.spoolBytes.set(spool.waiting.bytes);
    gauges.spoolLimit.set(spoolLimitBytes());
    gauges.spoolAge.set((spool.oldestAgeMs ?? 0) / 1000);
    gauges.deadLetters.set(spool.deadLetters.count);
    for (const [reason, { count }] of Object.entries(spool.dropped)) {
      counters.dropped.inc(
        { reason: reason === 'deadLetters' ? 'dead_letters' : reason },
        count - (dropped[reason] ?? 0),
      );
      dropped[reason] = count;
    }
    gauges.inbox.set({ state: 'waiting' }, inbox.waiting);
    gauges.inbox.set({ state: 'dead' }, inbox.dead);
    const { all, free } = slots();
    gauges.slots.set({ state: 'free' }, free);
    gauges.slots.set({ state: 'busy' }, all - free);
    gauges.handlers.reset();
    for (const { name, on, state } of status.handlers) {
      gauges.handlers.set({ handler: name, on }, state === 'ok' ? 1 : 0);
    }
    const { diskBytes, damage } = store();
    gauges.storeBytes.set(diskBytes);
    gauges.storeDamage.set(damage.regions);
  }

  return {
    contentType: register.contentType,
    async text(sources) {
      look(await sources.status(), sources);
      return register.metrics();
    },
    moved,
    kept: () => {
      counters.kept.inc();
    },
    answered({ verdict, ...rest }, bytes) {
      if (verdict === 'done') {
        counters.sent.inc();
        counters.sentBytes.inc(bytes);
      } else if (verdict === 'refused') counters.rejected.inc();
      else counters.returned.inc({ reason: 'pause' in rest ? (rest.pause ?? 'released') : 'released' });
    },
    settled({ outcome, from }) {
      counters.commands.inc({ outcome, from });
    },
    ran({ name, on }, { outcome, decidedBy }, ms) {
      const result = decidedBy === 'handler' ? outcome : decidedBy;
      durations.handler.observe({ handler: name, on, result }, ms / 1000);
    },
    renewed(isRenewed) {
      counters.renewals.inc({ result: isRenewed ? 'ok' : 'failed' });
    },
    synced(ms) {
      durations.sync.observe(ms / 1000);
    },
    reloaded(isTaken) {
      counters.reloads.inc({ result: isTaken ? 'ok' : 'refused' });
    },
  };
}

const states = ['starting', 'connecting', 'online', 'waiting', 'draining', 'stopped'] as const;

/** Labels whose values are known beforehand begin at 0, so that a rate sees the first one too. */
function countersIn(register: Registry) {
  const counter = <Label extends string = never>(
    name: string,
    help: string,
    known: readonly Record<Label, string>[] = [],
  ): Counter<Label> => {
    const [first] = known;
    const labelNames = first === undefined ? [] : (Object.keys(first) as Label[]);
    const made = new Counter<Label>({
      name: `${prefix}${name}_total`,
      help,
      labelNames,
      registers: [register],
    });
    for (const labels of known) made.inc(labels, 0);
    return made;
  };
  return {
    connections: counter('connections', 'Times the agent came online.'),
    losses: counter('connection_losses', 'Connections that were lost, by the kind of error.', reasons),
    failedAttempts: counter(
      'connection_failures',
      'Attempts that did not come to a connection, by the kind of error.',
      reasons,
    ),
    renewals: counter('token_renewals', 'Renewals of the token.', [{ result: 'ok' }, { result: 'failed' }]),
    kept: counter('telemetry_kept', 'Messages taken from programs and handlers, and put on disk.'),
    sent: counter('telemetry_sent', 'Messages that the hub has accepted.'),
    sentBytes: counter('telemetry_sent_bytes', 'Bytes of the messages that the hub has accepted.'),
    rejected: counter('telemetry_rejected', 'Messages that the hub will never take: dead letters.'),
    returned: counter('telemetry_returned', 'Messages that the hub gave back, to be sent again.', [
      { reason: 'released' },
      { reason: 'trouble' },
      { reason: 'throttled' },
      { reason: 'quota' },
      { reason: 'identity' },
    ]),
    dropped: counter('telemetry_dropped', 'Messages that were dropped since the store was made.', [
      { reason: 'oldest' },
      { reason: 'newest' },
      { reason: 'expired' },
      { reason: 'dead_letters' },
    ]),
    commands: counter<'outcome' | 'from'>(
      'commands',
      'Commands of which the hub was told the outcome; from: who said it.',
      (['accept', 'reject', 'release'] as const).map((outcome) => ({ outcome, from: 'handler' })),
    ),
    reloads: counter('config_reloads', 'Times the configuration was read again.', [
      { result: 'ok' },
      { result: 'refused' },
    ]),
  };
}

/** Those that a network and a hub are known for. */
const reasons = ['unavailable', 'host-unknown', 'refused', 'no-device', 'protocol', 'try-again', 'bug'].map(
  (reason) => ({ reason }),
);

function gaugesIn(register: Registry) {
  const gauge = <Label extends string = never>(
    name: string,
    help: string,
    ...labelNames: Label[]
  ): Gauge<Label> => new Gauge<Label>({ name: `${prefix}${name}`, help, labelNames, registers: [register] });
  return {
    info: gauge('info', 'Who the agent is.', 'device_id', 'module_id', 'hub', 'version'),
    connected: gauge('connected', '1 while the agent is online.'),
    state: gauge('state', '1 for the state that the agent is in.', 'state'),
    stateSince: gauge('state_since_timestamp_seconds', 'Since when it is in this state.'),
    paused: gauge('telemetry_paused', '1 while the hub wants no telemetry.'),
    tokenExpiry: gauge(
      'token_expiry_timestamp_seconds',
      'Until when the hub trusts the agent; 0 while offline.',
    ),
    spoolMessages: gauge('spool_messages', 'Messages that wait for the hub.'),
    spoolBytes: gauge('spool_bytes', 'What they take on disk.'),
    spoolLimit: gauge('spool_limit_bytes', 'What they may take on disk.'),
    spoolAge: gauge('spool_oldest_age_seconds', 'How long the oldest has waited; 0 when none waits.'),
    deadLetters: gauge('spool_dead_letters', 'Messages that the hub refused and that are kept.'),
    inbox: gauge('inbox_commands', 'Commands that were accepted and are not done.', 'state'),
    slots: gauge('command_slots', 'Commands that may be in hand at once.', 'state'),
    handlers: gauge(
      'handler_healthy',
      '1 when the last run of the handler ended as its own decision.',
      'handler',
      'on',
    ),
    storeBytes: gauge('store_bytes', 'What the store takes on disk.'),
    storeDamage: gauge('store_damaged_regions', 'Damaged places that were found since the start.'),
  };
}

function histogramsIn(register: Registry) {
  return {
    handler: new Histogram({
      name: `${prefix}handler_duration_seconds`,
      help: 'How long runs of handlers took; result: what they decided, or why they did not.',
      labelNames: ['handler', 'on', 'result'],
      buckets: [0.01, 0.05, 0.25, 1, 5, 15, 45, 300, 3600],
      registers: [register],
    }),
    sync: new Histogram({
      name: `${prefix}store_sync_duration_seconds`,
      help: 'How long the disk took to make a write last.',
      buckets: [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10],
      registers: [register],
    }),
  };
}
