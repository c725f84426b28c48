import { toAgentError } from '../amqp/errors.js';
import type { HubEvent } from '../amqp/event-message.js';
import type { PartitionLink } from '../amqp/partition-link.js';
import { createBackoff } from '../backoff.js';
import type { Clock } from '../clock.js';
import { AgentError } from '../errors.js';
import type { Log } from '../log.js';
import { anyOf, rejectionOf } from '../signals.js';
import type { EventHubConnection } from './event-hub.js';
import type { EventPosition } from './event-position.js';

export interface ReadingOptions {
  partition: string;
  group: string;
  /** With an epoch the partition is ours alone. */
  epoch?: number | undefined;
  /** Where to begin. */
  position: EventPosition;
  /** How many events may wait to be dealt with. */
  window: number;
  onEvent: (event: HubEvent, reading: Reading) => void;
  /** Another reader has taken the partition: what waits is not ours any more. */
  onStolen: (reading: Reading) => void;
  clock: Clock;
  log: Log;
}

/** The reading of one partition, over all its links and connections: each link begins where the one before ended. */
export class Reading {
  readonly #options: ReadingOptions;
  /** Behind the last event that came. */
  #came: EventPosition;
  /** Behind the last event that was dealt with. */
  #done: EventPosition;
  #link: PartitionLink | undefined;
  #waiting = 0;
  /** Credit that the link has not been given back yet. */
  #owed = 0;
  #wasAttached = false;
  readonly #stop = new AbortController();

  constructor(options: ReadingOptions) {
    this.#options = options;
    this.#came = this.#done = options.position;
  }

  get partition(): string {
    return this.#options.partition;
  }

  get epoch(): number | undefined {
    return this.#options.epoch;
  }

  /** Behind the last event that was dealt with. */
  get position(): EventPosition {
    return this.#done;
  }

  get stopped(): boolean {
    return this.#stop.signal.aborted;
  }

  /** Reads for as long as the connection lasts; rejects when trying again would not help. */
  async over(connection: EventHubConnection, attached: () => void, signal: AbortSignal): Promise<void> {
    const { clock, log, partition } = this.#options;
    using until = anyOf(signal, connection.over, this.#stop.signal);
    const backoff = createBackoff();
    for (;;) {
      const before = this.#came;
      try {
        await this.#overLink(connection, attached, until);
      } catch (thrown) {
        if (until.aborted) return;
        const error = this.#explained(toAgentError(thrown));
        if (error.retry === 'never') throw error;
        // What the hub does not allow in the first place it will not allow later; another owner may go.
        if (error.retry === 'late' && !this.#wasAttached && error.condition !== stolen) throw error;
        if (this.#came !== before) backoff.reset();
        // A hub that withdraws what it had granted may only have seen an old token.
        const delayMs = backoff.next(this.#wasAttached && error.code === 'refused' ? 'soon' : error.retry);
        log.warn('the receiver of a partition was lost, trying again', { partition, error, delayMs });
        await clock.sleep(delayMs, until).catch(() => undefined);
      }
    }
  }

  /** The event is dealt with: there is room for another one. */
  finished(event: HubEvent): void {
    this.#done = behind(event);
    this.#waiting--;
    this.#owed++;
    // Each grant is a frame.
    if (this.#owed < this.#options.window / 4) return;
    this.#link?.grant(this.#owed);
    this.#owed = 0;
  }

  /** Events that came were thrown away: they will come again, behind the one in hand if there is one. */
  rewind(inHand: HubEvent | undefined): void {
    this.#came = inHand === undefined ? this.#done : behind(inHand);
    this.#waiting = inHand === undefined ? 0 : 1;
  }

  stop(): void {
    this.#stop.abort(new AgentError('unavailable', 'the partition is not read any more'));
  }

  async #overLink(connection: EventHubConnection, attached: () => void, until: AbortSignal): Promise<never> {
    const { group, partition, epoch, window, onEvent } = this.#options;
    const link = await connection.read(
      {
        group,
        partition,
        epoch,
        position: this.#came,
        onEvent: (event) => {
          this.#came = behind(event);
          this.#waiting++;
          onEvent(event, this);
        },
      },
      until,
    );
    this.#link = link;
    try {
      this.#wasAttached = true;
      attached();
      this.#owed = 0;
      link.grant(window - this.#waiting);
      using end = anyOf(until, link.over);
      return await rejectionOf(end);
    } finally {
      if (this.#link === link) this.#link = undefined;
      link.close();
    }
  }

  #explained(error: AgentError): AgentError {
    const { partition, group, epoch, onStolen } = this.#options;
    if (error.condition === 'amqp:resource-limit-exceeded') {
      return new AgentError('try-again', `too many read partition ${partition} in the group ${group}`, {
        condition: error.condition,
        cause: error,
        hint: 'five may: name another consumer group with --group',
      });
    }
    if (error.condition !== stolen) return error;
    if (epoch !== undefined) onStolen(this);
    return new AgentError(
      'unavailable',
      `another reader has partition ${partition} in the group ${group} to itself`,
      {
        condition: error.condition,
        cause: error,
        hint: 'name another consumer group with --group, or share the partitions with --checkpoint',
        // A reader that does not own what it reads cannot come back before the owner has gone.
        retry: epoch === undefined ? 'never' : 'late',
      },
    );
  }
}

const stolen = 'amqp:link:stolen';

function behind({ offset, sequenceNumber }: HubEvent): EventPosition {
  return { at: 'offset', offset, sequenceNumber };
}
