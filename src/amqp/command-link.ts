import type { Delivery, EventContext, Receiver } from 'rhea';

import { AgentError } from '../errors.js';
import type { Log } from '../log.js';
import type { Command, DeviceId } from '../model.js';
import { unreadableReason } from './guard.js';
import { decodeCommand } from './messages.js';
import type { SessionScope } from './scope.js';
import { Settlement, type SettledAs } from './settle.js';

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
  readonly #scope: Pick<SessionScope, 'over' | 'fail'>;
  readonly #receiver: Receiver;
  readonly #identity: DeviceId;
  readonly #log: Log;
  readonly #settlement = new Settlement();
  #granted = 0;
  #onCommand: ((delivered: DeliveredCommand) => void) | undefined;

  constructor(receiver: Receiver, scope: Pick<SessionScope, 'over' | 'fail'>, identity: DeviceId, log: Log) {
    this.#log = log;
    this.#scope = scope;
    this.#receiver = receiver;
    this.#identity = identity;
    receiver.on('message', (context: EventContext) => {
      this.#receive(context);
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
    if (credit <= 0 || this.#scope.over.aborted) return;
    this.#granted += credit;
    this.#receiver.add_credit(credit);
  }

  /** Commands that the hub may still deliver. */
  get credit(): number {
    return this.#granted;
  }

  /** Resolves when all outcomes handed in so far have left. */
  flushed(): Promise<void> {
    return this.#settlement.flushed();
  }

  #receive({ message, delivery }: EventContext): void {
    if (message === undefined || delivery === undefined) return;
    if (this.#granted === 0) {
      this.#scope.fail(
        new AgentError('protocol', 'the hub delivered a command beyond our credit', { retry: 'soon' }),
      );
      return;
    }
    this.#granted--;
    const unreadable = unreadableReason(message);
    if (unreadable !== undefined) {
      this.#log.warn('a command that cannot be read was rejected', { why: unreadable });
      this.#settle(delivery, { outcome: 'reject', reason: `it cannot be read: ${unreadable}` });
      this.grant(1);
      return;
    }
    this.#onCommand?.({
      command: decodeCommand(message, delivery, this.#identity),
      settle: (outcome) => this.#settle(delivery, outcome),
    });
  }

  #settle(delivery: Delivery, outcome: SettledAs): boolean {
    if (this.#scope.over.aborted) return false;
    this.#settlement.settle(delivery, outcome);
    return true;
  }
}
