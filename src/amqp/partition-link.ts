import { randomUUID } from 'node:crypto';

import rhea, { type EventContext, type Receiver, type Session } from 'rhea';

import { AgentError } from '../errors.js';
import { anyOf } from '../signals.js';
import { attached } from './attach.js';
import { amqpError, fromCondition, toAgentError } from './errors.js';
import { decodeEvent, type HubEvent } from './event-message.js';
import { unreadableReason } from './guard.js';

export interface PartitionLinkOptions {
  partition: string;
  /** `{event hub}/ConsumerGroups/{group}/Partitions/{partition}` */
  address: string;
  /** Where to begin, as a selector of Event Hubs: `amqp.annotation.x-opt-offset > '4711'`. */
  selector: string;
  /** The reader with the highest epoch has the partition to itself; without one up to five share it. */
  epoch?: number | undefined;
  onEvent: (event: HubEvent) => void;
  /** Is told of events that cannot be read, which are passed over. */
  onUnreadable: (why: string) => void;
}

/**
 * A receiver of one partition of an event hub. It gets no more than it granted. Each event is settled as it comes:
 * where a reader stands is its own business, the event hub keeps no account of it.
 */
export class PartitionLink {
  readonly #receiver: Receiver;
  readonly #ended = new AbortController();

  private constructor(receiver: Receiver, { partition, onEvent, onUnreadable }: PartitionLinkOptions) {
    this.#receiver = receiver;
    const onEnd = () => {
      const { condition, description } = amqpError(receiver.error);
      this.#end(
        fromCondition({ condition, description }, `the receiver of partition ${partition} was detached and`),
      );
    };
    receiver.on('receiver_error', onEnd).on('receiver_close', onEnd);
    receiver.on('message', ({ message, delivery }: EventContext) => {
      if (message === undefined || delivery === undefined) return;
      delivery.accept();
      if (this.over.aborted) return;
      try {
        const event = unreadableReason(message) === undefined ? decodeEvent(message, partition) : undefined;
        if (event === undefined) onUnreadable(unreadableReason(message) ?? 'it has no offset');
        else onEvent(event);
      } catch (error) {
        this.#end(toAgentError(error));
      }
    });
  }

  /** Attaches a link on the session. */
  static async open(
    session: Session,
    options: PartitionLinkOptions,
    signal: AbortSignal,
  ): Promise<PartitionLink> {
    const { partition, address, selector, epoch } = options;
    const id = randomUUID();
    const receiver = session.attach_receiver({
      name: `receiver of partition ${partition}/${id}`,
      source: {
        address,
        filter: { [selectorName]: rhea.types.wrap_described(selector, selectorCode) },
      },
      target: { address: id },
      properties: {
        'com.microsoft:receiver-name': id,
        ...(epoch === undefined ? {} : { 'com.microsoft:epoch': rhea.types.wrap_long(epoch) }),
      },
      credit_window: 0,
      autoaccept: false,
    });
    const link = new PartitionLink(receiver, options);
    using until = anyOf(signal, link.over);
    await attached(receiver, 'receiver', until);
    return link;
  }

  /** Aborted when the link is over; the reason is the `AgentError` that says why. */
  get over(): AbortSignal {
    return this.#ended.signal;
  }

  /** Lets the event hub send this many events more. */
  grant(credit: number): void {
    if (!this.over.aborted) this.#receiver.add_credit(credit);
  }

  /** Detaches. What is on its way is dropped. */
  close(): void {
    if (this.over.aborted) return;
    this.#end(new AgentError('unavailable', 'the receiver was closed by us'));
    if (!this.#receiver.is_closed()) this.#receiver.close();
  }

  #end(error: AgentError): void {
    if (!this.over.aborted) this.#ended.abort(error);
  }
}

/** Filter of Event Hubs and its numeric descriptor (`apache.org:selector-filter:string`). */
const selectorName = 'apache.org:selector-filter:string';
const selectorCode = 0x0000_468c_0000_0004;
