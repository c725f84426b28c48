import type { HubEvent } from '../amqp/event-message.js';
import { AgentError } from '../errors.js';
import { silentLog, type Log } from '../log.js';
import { anyOf, rejectionOf } from '../signals.js';
import { Checkpoint, type HeldPartition, type Ownership } from './checkpoint.js';
import { EventHubConnection, type EventHub } from './event-hub.js';
import type { EventPosition } from './event-position.js';
import { EventQueue } from './event-queue.js';
import { Reading } from './reading.js';
import { Reconnection } from './reconnection.js';

export interface MonitorOptions {
  /** The event hub, or how to find it; it is looked for again when it could not be reached. */
  eventHub: EventHub | ((signal: AbortSignal) => Promise<EventHub>);
  /** Consumer group. Default `$Default`. */
  group?: string | undefined;
  /** Which partitions to read. Default all. */
  partitions?: readonly string[] | undefined;
  /** Where to begin in partitions of which the checkpoint knows nothing. Default `now`: with what comes next. */
  from?: 'now' | EventPosition | undefined;
  /**
   * A file that keeps how far we have come, over the end of the process. Monitors that name the same file share the
   * partitions between them. A monitor that is frozen for `leaseMs`, default 10 s, loses its partitions to the others.
   */
  checkpoint?: { file: string; leaseMs?: number | undefined } | undefined;
  /** Is called once, when reading begins. */
  onOnline?: (() => void) | undefined;
}

/**
 * The events of a hub, each partition in its order, without an end. A lost connection is opened again, and reading
 * goes on where it was. Ends by an error that trying again would not mend, or with the signal's reason.
 *
 *     await using events = openMonitor({ eventHub, from: { at: 'start' } }, signal);
 *     for await (const event of events) await use(event);
 *
 * With a checkpoint every event is delivered at least once. After a crash those come again that were dealt with since
 * positions were last saved, which is every second.
 */
export function openMonitor(options: MonitorOptions, signal: AbortSignal): Monitor {
  return new Monitor(options, signal);
}

/** Events of all partitions that wait to be dealt with, and those of one: memory has an end. */
const mostWaiting = 2048;
const mostWaitingOfOne = 256;
/** Each grant is a frame: even of many partitions each gets a few events at a time. */
const leastWaitingOfOne = 16;
const beatMs = 1_000;
const defaultLeaseMs = 10_000;

/** Made by `openMonitor`. */
export class Monitor implements AsyncIterableIterator<HubEvent, undefined>, AsyncDisposable {
  readonly #options: MonitorOptions;
  readonly #queue = new EventQueue();
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  /** The partitions that we hold. */
  readonly #readings = new Map<string, Reading>();
  #checkpoint: Checkpoint | undefined;
  #log: Log = silentLog;

  constructor(options: MonitorOptions, signal: AbortSignal) {
    this.#options = options;
    const until = anyOf(signal, this.#stop.signal);
    // At once, not when the connection is closed: a caller that is told to stop wants no more.
    until.addEventListener('abort', () => {
      this.#queue.fail(until.reason);
    });
    this.#running = this.#run(until)
      .catch((error: unknown) => {
        this.#queue.fail(error);
      })
      .finally(() => {
        until[Symbol.dispose]();
      });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** The next event. The one before is dealt with, then. */
  async next(): Promise<IteratorResult<HubEvent, undefined>> {
    return { value: await this.#queue.next() };
  }

  /** Says that the last event is dealt with: to be called before a loop over the events is left on purpose. */
  done(): void {
    this.#queue.done();
  }

  async return(): Promise<IteratorResult<HubEvent, undefined>> {
    await this[Symbol.asyncDispose]();
    return { value: undefined, done: true };
  }

  /** Stops reading, saves the positions and gives the partitions to others. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new AgentError('unavailable', 'the monitor was closed'));
    await this.#running;
    const checkpoint = this.#checkpoint;
    this.#checkpoint = undefined;
    const held = [...this.#readings].map(([id, { position }]) => [id, { position, release: true }] as const);
    await checkpoint?.leave(new Map(held)).catch((error: unknown) => {
      this.#log.warn('the last positions could not be saved: their events will come again', { error });
    });
  }

  /** Connection after connection. */
  async #run(signal: AbortSignal): Promise<never> {
    const reconnection = new Reconnection('the event hub');
    let eventHub: EventHub = await this.#find(signal);
    this.#log = eventHub.log;
    for (;;) {
      const life = new Life(eventHub, reconnection.wasOnline ? undefined : this.#options.onOnline);
      try {
        await using connection = await EventHubConnection.open(eventHub, signal);
        await this.#work(connection, life, signal);
      } catch (thrown) {
        await reconnection.pause({ thrown, online: life.online }, eventHub, signal);
        // It may have moved.
        if (!life.online) eventHub = await this.#find(signal).catch(() => eventHub);
      }
    }
  }

  #find(signal: AbortSignal): Promise<EventHub> {
    const { eventHub } = this.#options;
    return typeof eventHub === 'function' ? eventHub(signal) : Promise.resolve(eventHub);
  }

  /** Reads what is ours to read, until the connection is over. */
  async #work(connection: EventHubConnection, life: Life, signal: AbortSignal): Promise<never> {
    const lost = new AbortController();
    using until = anyOf(signal, connection.over, lost.signal);
    const all = await connection.partitionIds(until);
    const partitions = wanted(this.#options.partitions ?? all, all);
    const read = (reading: Reading) => {
      reading
        .over(
          connection,
          () => {
            life.goOnline();
          },
          until,
        )
        .catch((error: unknown) => {
          lost.abort(error);
        });
    };
    try {
      if (this.#options.checkpoint === undefined) {
        await this.#take({ partitions, of: partitions.length }, connection, life, until);
        for (const reading of this.#readings.values()) read(reading);
        return await rejectionOf(until);
      }
      return await this.#share(partitions, connection, { life, read }, until);
    } finally {
      // Nothing of this connection goes on.
      lost.abort(new AgentError('unavailable', 'the connection is over'));
    }
  }

  /** Reads the share of the partitions that the checkpoint gives us, and comes by there every second. */
  async #share(
    partitions: readonly string[],
    connection: EventHubConnection,
    { life, read }: { life: Life; read: (reading: Reading) => void },
    signal: AbortSignal,
  ): Promise<never> {
    const checkpoint = (this.#checkpoint ??= this.#openCheckpoint(partitions, life.eventHub));
    const begun = new Set<Reading>();
    for (;;) {
      const held = this.#held();
      const ownership = await checkpoint.beat(held);
      this.#letGo(held, ownership);
      const taken = [...ownership.owned.keys()].filter((partition) => !this.#readings.has(partition));
      await this.#take({ partitions: taken, of: partitions.length, ownership }, connection, life, signal);
      if (taken.length > 0) {
        this.#log.info('partitions taken', { partitions: taken });
        // Where they begin is saved before anything of them is read.
        continue;
      }
      // Who stands by, because there are more monitors than partitions, is online too.
      if (ownership.owned.size === 0) life.goOnline();
      for (const reading of this.#readings.values()) {
        if (begun.has(reading) || reading.stopped) continue;
        begun.add(reading);
        read(reading);
      }
      await life.eventHub.clock.sleep(beatMs, signal);
    }
  }

  #openCheckpoint(partitions: readonly string[], { endpoint, name, clock }: EventHub): Checkpoint {
    const { checkpoint: { file, leaseMs = defaultLeaseMs } = { file: '' }, group = defaultGroup } =
      this.#options;
    return new Checkpoint({ file, leaseMs, eventHub: `${endpoint.host}/${name}`, group, partitions, clock });
  }

  #held(): Map<string, HeldPartition> {
    const held = [...this.#readings].map(([partition, reading]): [string, HeldPartition] => {
      const release = reading.stopped && !this.#queue.hasInHand(reading);
      return [partition, { position: reading.position, release }];
    });
    return new Map(held);
  }

  /** Forgets what was released or lost, and stops reading what others need. */
  #letGo(held: ReadonlyMap<string, HeldPartition>, { owned, giveUp }: Ownership): void {
    for (const [partition, reading] of this.#readings) {
      const released = held.get(partition)?.release === true;
      const lost = owned.get(partition)?.epoch !== reading.epoch;
      if (lost && !released) this.#log.warn('another monitor has taken a partition', { partition });
      if (released || lost) this.#readings.delete(partition);
      if (lost || giveUp.includes(partition)) {
        reading.stop();
        this.#queue.drop(reading);
      }
    }
  }

  /** Has a reading for each of these partitions, `of` so many that are read in all. */
  async #take(
    { partitions, of, ownership }: { partitions: readonly string[]; of: number; ownership?: Ownership },
    connection: EventHubConnection,
    { eventHub }: Life,
    signal: AbortSignal,
  ): Promise<void> {
    const { group = defaultGroup } = this.#options;
    await Promise.all(
      partitions.map(async (partition) => {
        if (this.#readings.has(partition)) return;
        const { epoch, position } = ownership?.owned.get(partition) ?? {};
        const reading = new Reading({
          partition,
          group,
          epoch,
          position: await this.#beginning(partition, position, connection, signal),
          window: windowOf(of),
          onEvent: (event, from) => {
            this.#queue.push(event, from);
          },
          onStolen: (stolen) => {
            this.#queue.drop(stolen);
          },
          clock: eventHub.clock,
          log: eventHub.log,
        });
        this.#readings.set(partition, reading);
      }),
    );
  }

  /** What was saved, or where we were told to begin. */
  async #beginning(
    partition: string,
    saved: EventPosition | undefined,
    connection: EventHubConnection,
    signal: AbortSignal,
  ): Promise<EventPosition> {
    const { from = 'now', checkpoint } = this.#options;
    const position = saved ?? from;
    if (position === 'now') {
      // From here on `now` is a place, so that nothing is missed that comes while a connection is lost.
      return { at: 'offset', ...(await connection.last(partition, signal)) };
    }
    if (saved?.at !== 'offset' || saved.sequenceNumber === undefined) return position;
    const { sequenceNumber } = await connection.last(partition, signal);
    if (saved.sequenceNumber <= sequenceNumber) return position;
    // Reading behind it would give nothing, and no error, until there are as many events again.
    throw new AgentError('config', `${checkpoint?.file ?? ''} is ahead of partition ${partition}`, {
      hint: 'it is of another event hub, or of one that was made anew: name another file',
    });
  }
}

const defaultGroup = '$Default';

/** One connection's time: what it is to, and whether it came to anything. */
class Life {
  online = false;
  readonly #onOnline: (() => void) | undefined;

  constructor(
    readonly eventHub: EventHub,
    onOnline: (() => void) | undefined,
  ) {
    this.#onOnline = onOnline;
  }

  goOnline(): void {
    if (this.online) return;
    this.online = true;
    this.#onOnline?.();
  }
}

function wanted(partitions: readonly string[], all: readonly string[]): readonly string[] {
  const unknown = partitions.find((partition) => !all.includes(partition));
  if (unknown === undefined) return partitions;
  throw new AgentError('usage', `there is no partition "${unknown}"`, {
    hint: `there are ${all.join(', ')}`,
  });
}

/** How many events of each of so many partitions may wait. */
function windowOf(partitions: number): number {
  return Math.max(leastWaitingOfOne, Math.min(mostWaitingOfOne, Math.floor(mostWaiting / partitions)));
}
