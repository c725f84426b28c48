import type { Flow } from '../agent/spool-outbox.js';
import type { AgentState } from '../agent/state.js';
import type { Clock } from '../clock.js';
import type { AgentError, ErrorCode } from '../errors.js';
import type { Handler } from '../handlers/handler.js';
import type { HandlerHealth } from '../handlers/runner.js';
import type { DeviceId } from '../model.js';
import type { Spool, SpoolStats } from '../store/spool.js';

/** How the agent fares, as `GET /v1/status` says it. Times are RFC 3339, UTC; keys are added, never changed. */
export interface AgentStatus extends DeviceId {
  hub: string;
  pid: number;
  version: string;
  startedAt: string;
  state: AgentState['state'] | 'starting';
  /** Since when it is in this state. */
  since: string;
  /** With `connecting` and `waiting`. */
  attempt?: number | undefined;
  /** With `waiting`. */
  nextTryAt?: string | undefined;
  /** The last one since the agent was started, also when it is online again. */
  lastError?: {
    at: string;
    error: string;
    code: ErrorCode;
    condition?: string | undefined;
    hint?: string | undefined;
  };
  /** When the hub stops trusting us, unless the token is renewed before; while online. */
  tokenExpiresAt?: string | undefined;
  /** When the certificate ends that the last connection was opened with. */
  certificateExpiresAt?: string | undefined;
  /** Whether telemetry flows, or the hub wants a pause. */
  telemetry: { flow: 'open' } | { flow: 'paused' | 'probing'; why: string; condition: string };
  spool: SpoolStatus;
  inbox: { waiting: number; dead: number };
  handlers: HandlerStatus[];
}

export interface SpoolStatus extends Omit<SpoolStats, 'byPriority'> {
  oldestAgeMs: number | undefined;
}

export interface HandlerStatus {
  name: string;
  on: Handler['on'];
  state: 'ok' | 'degraded';
  reason?: string | undefined;
  since?: string | undefined;
}

/** What the status is made of. */
export interface StatusSources {
  identity: DeviceId & { host: string };
  version: string;
  clock: Clock;
  spool: Pick<Spool, 'stats' | 'oldestAgeMs'>;
  inbox: { readonly size: { readonly waiting: number; readonly dead: number } };
  flow: () => Flow;
  /** Of the last token that was made, milliseconds since the epoch. */
  tokenExpiresAt: () => number | undefined;
  /** Milliseconds since the epoch; undefined where there is no certificate. */
  certificateExpiresAt: () => number | undefined;
  handlers: () => readonly Handler[];
  health: () => ReadonlyMap<string, HandlerHealth>;
}

/** Keeps what the status is made of, and makes it when somebody asks. */
export class StatusBoard {
  readonly #sources: StatusSources;
  readonly #startedAt: number;
  #state: AgentState | undefined;
  #lastError: { at: number; error: AgentError } | undefined;

  constructor(sources: StatusSources) {
    this.#sources = sources;
    this.#startedAt = sources.clock.now();
  }

  moved(state: AgentState): void {
    this.#state = state;
    if (state.state === 'waiting') this.#lastError = { at: state.since, error: state.error };
  }

  get state(): AgentState['state'] | 'starting' {
    return this.#state?.state ?? 'starting';
  }

  /** Errors: `io`. */
  async status(): Promise<AgentStatus> {
    const { identity, version, spool, inbox } = this.#sources;
    const { host, deviceId, moduleId } = identity;
    const state = this.#state;
    const certificateExpiresAt = this.#sources.certificateExpiresAt();
    const tokenExpiresAt = state?.state === 'online' ? this.#sources.tokenExpiresAt() : undefined;
    return {
      hub: host,
      deviceId,
      moduleId,
      pid: process.pid,
      version,
      startedAt: iso(this.#startedAt),
      state: this.state,
      since: iso(state?.since ?? this.#startedAt),
      attempt: state !== undefined && 'attempt' in state ? state.attempt : undefined,
      nextTryAt: state?.state === 'waiting' ? iso(state.until) : undefined,
      ...(this.#lastError && { lastError: errorStatus(this.#lastError) }),
      tokenExpiresAt: tokenExpiresAt === undefined ? undefined : iso(tokenExpiresAt),
      certificateExpiresAt: certificateExpiresAt === undefined ? undefined : iso(certificateExpiresAt),
      telemetry: flowStatus(this.#sources.flow()),
      spool: await spoolStatus(spool),
      inbox: inbox.size,
      handlers: this.#handlers(),
    };
  }

  #handlers(): HandlerStatus[] {
    const health = this.#sources.health();
    return this.#sources.handlers().map(({ name, on }) => {
      const found = health.get(name) ?? { state: 'ok' };
      if (found.state === 'ok') return { name, on, state: 'ok' };
      return { name, on, ...found, since: iso(found.since) };
    });
  }
}

export async function spoolStatus(spool: Pick<Spool, 'stats' | 'oldestAgeMs'>): Promise<SpoolStatus> {
  const { waiting, deadLetters, dropped } = spool.stats();
  return { waiting, oldestAgeMs: await spool.oldestAgeMs(), deadLetters, dropped };
}

function errorStatus({ at, error }: { at: number; error: AgentError }) {
  const { message, code, condition, hint } = error;
  return { at: iso(at), error: message, code, condition, hint };
}

function flowStatus(flow: Flow): AgentStatus['telemetry'] {
  return flow.flow === 'open' ? flow : { flow: flow.flow, why: flow.why, condition: flow.condition };
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
