import type { Log } from '../log.js';
import type { Command, DeviceId } from '../model.js';
import { decodeCommand } from './decode-command.js';
import type { ReceivedDeliveries, ReceivedDelivery, ReceivingLink } from './guard/received-deliveries.js';
import { Violation } from './guard/values.js';
import type { SessionScope } from './scope.js';
import { stateOf, type SettledAs } from './settle.js';

/** A command together with the one delivery on which it can be settled. */
export interface DeliveredCommand {
  readonly command: Command;
  /**
   * Tells the hub the outcome. `false` when the session that delivered it is over: the hub will deliver the
   * command again.
   */
  settle: (outcome: SettledAs) => boolean;
}

/** The receiver link from `/devices/{id}/messages/deviceBound`. Delivers nothing until it is granted credit. */
export class CommandLink {
  readonly #over: AbortSignal;
  readonly #link: ReceivingLink;
  readonly #deliveries: ReceivedDeliveries;
  readonly #identity: DeviceId;
  readonly #log: Log;
  #onCommand: ((delivered: DeliveredCommand) => void) | undefined;

  constructor(
    name: string,
    { over, outlet }: Pick<SessionScope, 'over' | 'outlet'>,
    identity: DeviceId,
    log: Log,
  ) {
    // A hub can take a link back in the same breath.
    over.throwIfAborted();
    const { link, deliveries } = outlet.receivingLink(name);
    this.#over = over;
    this.#link = link;
    this.#deliveries = deliveries;
    this.#identity = identity;
    this.#log = log;
    deliveries.receive(link, (delivery) => {
      if (!over.aborted) this.#receive(delivery);
    });
  }

  /** Names who handles the commands; call it before the first `grant`. */
  onCommand(listener: (delivered: DeliveredCommand) => void): void {
    this.#onCommand = listener;
  }

  /**
   * Lets the hub deliver this many commands more. The hub's lock of 60 s runs from the moment it sends, so credit
   * is the number of free handler slots and not a prefetch.
   */
  grant(credit: number): void {
    if (credit > 0 && !this.#over.aborted) this.#deliveries.grant(this.#link, credit);
  }

  /** Commands that the hub may still deliver. */
  get credit(): number {
    return this.#link.credit;
  }

  /** All outcomes handed in so far leave before what is said next. */
  flush(): void {
    this.#deliveries.flush();
  }

  #receive(delivery: ReceivedDelivery): void {
    const { id, isSettled } = delivery;
    const settle = (outcome: SettledAs): boolean => this.#settle(id, isSettled, outcome);
    const command = this.#read(delivery);
    if (command instanceof Violation) {
      const { message: why } = command;
      this.#log.warn('a command could not be read', { why });
      settle({ outcome: 'reject', reason: `it cannot be read: ${why}` });
      this.grant(1);
    } else {
      this.#onCommand?.({ command, settle });
    }
  }

  #read(delivery: ReceivedDelivery): Command | Violation {
    if (delivery.fault !== undefined) return new Violation(delivery.fault);
    try {
      return decodeCommand(delivery, this.#identity);
    } catch (error) {
      if (error instanceof Violation) return error;
      throw error;
    }
  }

  #settle(id: number, isSettled: boolean, outcome: SettledAs): boolean {
    if (this.#over.aborted) return false;
    return isSettled || this.#deliveries.settle(id, stateOf(outcome));
  }
}
