import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { createBackoff } from '../../src/backoff.js';
import { serveCommands } from '../../src/agent/commands.js';
import { runAgent } from '../../src/agent/run.js';
import { SpoolOutbox } from '../../src/agent/spool-outbox.js';
import type { AgentState } from '../../src/agent/state.js';
import { pumpTelemetry } from '../../src/agent/telemetry.js';
import { renewTokensDuring } from '../../src/agent/tokens.js';
import { encodeFor, openHubSession } from '../../src/amqp/session.js';
import type { Clock } from '../../src/clock.js';
import type { AgentError } from '../../src/errors.js';
import { createDispatcher } from '../../src/handlers/dispatch.js';
import type { Handler } from '../../src/handlers/handler.js';
import { replyMessage } from '../../src/handlers/reply-message.js';
import { hostName, parseDeviceConnectionString } from '../../src/identity/connection-string.js';
import { deviceTokens } from '../../src/identity/token.js';
import { silentLog, type Log } from '../../src/log.js';
import { openStore, type Store } from '../../src/store/store.js';
import { fastClock } from '../agent/clock.js';
import type { FakeDisk } from '../store/fake-disk.js';
import { defaultTransport } from './transport.js';

export interface AgentSetup {
  /** As the hub gave it; its host is what the certificate must name. */
  connectionString: string;
  /** Where to connect: the hub's own port, or that of a proxy. */
  port: number;
  host?: string;
  /** Whether AMQP goes inside of a WebSocket. */
  webSocket?: boolean;
  /** PEM of the hub's authority. */
  ca: string | undefined;
  /** All the agent's times are divided by this. Default 20. */
  factor?: number;
  /** What the times of a connection, which it keeps without the clock, are divided by. Default: `factor`. */
  sessionFactor?: number;
  /** Default: one that runs `factor` times as fast. */
  clock?: Clock;
  /** Who takes commands; none by default, so that they are rejected. */
  handlers?: readonly Handler[];
  /** Where the store is; a directory of its own by default, which goes with it. */
  directory?: string;
  /** What is under the directory, instead of a disk. */
  disk?: FakeDisk;
  /** Messages that may be unanswered at once. */
  window?: number;
  tokenTtlMs?: number;
  random?: () => number;
  log?: Log;
}

/** What the promise allows: a tenth of the process's own, so that a repeat beyond it shows. */
export const defaultWindow = 100;

/**
 * A whole agent in this process: the parts of `iothub-device run`, put together in the same way, with a clock of
 * its own. It is told what to send, and tells what it has acknowledged; what became of it the hub is asked.
 */
export class TestAgent implements AsyncDisposable {
  readonly clock: Clock;
  readonly states: AgentState[] = [];
  /** Ids of the messages that it has acknowledged, in the order in which they were given to it. */
  readonly acknowledged: string[] = [];
  readonly store: Store;
  /** Resolves when it has stopped, rejects when it gave up. */
  readonly ended: Promise<void>;
  readonly #setup: AgentSetup;
  readonly #removeDirectory: () => Promise<void>;
  readonly #stop = new AbortController();
  readonly #abandon = new AbortController();
  readonly #watchers = new Set<() => void>();
  readonly #encode: ReturnType<typeof encodeFor>;

  private constructor(setup: AgentSetup, store: Store, removeDirectory: () => Promise<void>) {
    this.#setup = setup;
    this.#removeDirectory = removeDirectory;
    this.store = store;
    this.clock = setup.clock ?? fastClock(setup.factor ?? 20);
    this.#encode = encodeFor(parseDeviceConnectionString(setup.connectionString));
    this.ended = this.#run();
    this.ended.catch(() => undefined);
  }

  static async start(setup: AgentSetup): Promise<TestAgent> {
    const own = setup.directory === undefined;
    const directory = setup.directory ?? (await mkdtemp(join(tmpdir(), 'iothub-faults-')));
    const { deviceId } = parseDeviceConnectionString(setup.connectionString);
    const encode = encodeFor({ deviceId });
    let replies = 0;
    const store = await openStore({
      directory,
      files: setup.disk,
      // Many of them in a test: four mebibytes each would be much.
      segmentBytes: 512 * 1024,
      log: setup.log,
      clock: setup.clock,
      ledger: {
        replyMessage: (command, ...said) => {
          const message = replyMessage(`reply-${String(++replies)}`, command, ...said);
          return { deviceId, messageId: message.messageId, encoded: encode(message) };
        },
      },
    });
    return new TestAgent(setup, store, async () => {
      if (own) await rm(directory, { recursive: true, force: true });
    });
  }

  /** Queues a message each; resolves when they are acknowledged. A body is its message's id, padded to `bytes`. */
  async queue(messageIds: readonly string[], { bytes = 0 } = {}): Promise<void> {
    const { deviceId } = parseDeviceConnectionString(this.#setup.connectionString);
    const messages = messageIds.map((messageId) => {
      const body = Buffer.from(messageId.padEnd(bytes, '.'));
      return { deviceId, messageId, encoded: this.#encode({ messageId, properties: {}, body }) };
    });
    await this.store.spool.append(messages);
    this.acknowledged.push(...messageIds);
  }

  get state(): AgentState['state'] {
    return this.states.at(-1)!.state;
  }

  /** How often it has connected, or attached links anew. */
  times(state: AgentState['state']): number {
    return this.states.filter((each) => each.state === state).length;
  }

  /** Why it is or was offline, the last time. */
  get lastError(): AgentError | undefined {
    return this.states.filter((each) => each.state === 'waiting').at(-1)?.error;
  }

  /** Resolves when `condition` holds, now or after one of its moves. */
  until(condition: (agent: this) => boolean, timeoutMs = 20_000): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = () => {
        if (!condition(this)) return;
        clearTimeout(timer);
        this.#watchers.delete(look);
        resolve();
      };
      const timer = setTimeout(() => {
        this.#watchers.delete(look);
        reject(new Error(`the agent did not come to ${String(condition)}: ${this.history}`));
      }, timeoutMs);
      this.#watchers.add(look);
      look();
    });
  }

  /** Resolves when it is online for the n-th time. */
  online(times = 1): Promise<void> {
    return this.until((agent) => agent.times('online') >= times);
  }

  /** Where it has been, for people. */
  get history(): string {
    const shown = this.states.slice(-12).map((each) => {
      return each.state === 'waiting' ? `waiting (${each.error.message})` : each.state;
    });
    return shown.join(' → ');
  }

  /** As SIGTERM does: what was begun is finished. */
  async stop(): Promise<void> {
    this.#stop.abort(new Error('stop'));
    await this.ended.finally(() => this.store.close());
  }

  /** As the second signal does: at once. */
  async abandon(): Promise<void> {
    this.#abandon.abort(new Error('now'));
    await this.stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.abandon().catch(() => undefined);
    await this.#removeDirectory();
  }

  /** The same as `runDevice` of the command line, but for a clock and a store from outside. */
  async #run(): Promise<void> {
    const { clock, store, states } = this;
    const { handlers = [], log = silentLog, window = defaultWindow, random } = this.#setup;
    const { identity, makeToken } = this.#identity();
    const drainTimeoutMs = 1_000;
    const dispatching = {
      handlers,
      ledger: store.ledger,
      order: 'none',
      drainTimeoutMs,
      clock,
      log,
    } as const;
    await using dispatcher = createDispatcher(dispatching);
    const outbox = new SpoolOutbox(store.spool, { clock, log, ...(random && { random }) });
    let drained: Promise<void> | undefined;
    this.#stop.signal.addEventListener('abort', () => {
      drained = dispatcher.drain(this.#abandon.signal);
    });
    await runAgent({
      open: (signal) =>
        openHubSession({ ...this.#session(), identity, token: () => makeToken(clock.now()), log }, signal),
      work: (session, { stopping, healthy }) =>
        renewTokensDuring(session, { makeToken, clock, log }, () =>
          allEnded([
            serveCommands(session, dispatcher, { stopping, log, onSettled: healthy }),
            pumpTelemetry(session, outbox, { window, batches: true, clock, stopping, onAccepted: healthy }),
          ]),
        ),
      stopping: this.#stop.signal,
      abandon: this.#abandon.signal,
      clock,
      log,
      backoff: createBackoff(random),
      onState: (state) => {
        states.push(state);
        for (const look of [...this.#watchers]) look();
      },
    });
    await drained;
    await outbox.recorded();
  }

  #identity() {
    const identity = parseDeviceConnectionString(this.#setup.connectionString);
    return { identity, makeToken: deviceTokens(identity, this.#setup.tokenTtlMs)! };
  }

  #session() {
    const {
      connectionString,
      port,
      host = 'localhost',
      ca,
      webSocket = defaultTransport === 'amqp-ws',
      factor = 20,
      sessionFactor = factor,
    } = this.#setup;
    const serverName = hostName(parseDeviceConnectionString(connectionString).host);
    return {
      endpoint: {
        ...{ host, port, serverName, trust: { extraCa: ca } },
        webSocket: webSocket ? { port } : undefined,
      },
      links: ['telemetry', 'commands'] as const,
      deadlineMs: 20_000 / sessionFactor,
      idleTimeoutMs: 10_000 / sessionFactor,
      silenceMs: 25_000 / sessionFactor,
    };
  }
}

async function allEnded(works: readonly Promise<void>[]): Promise<void> {
  await Promise.allSettled(works);
  await Promise.all(works);
}
