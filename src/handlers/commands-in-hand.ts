import type { Clock } from '../clock.js';
import type { Log } from '../log.js';
import type { Command } from '../model.js';
import { ByKey } from './by-key.js';
import { CommandInHand, linkGone, type Way } from './command-in-hand.js';
import { commandKey } from './command-key.js';
import { Delivery, type CommandDecision, type Conclusion, type Surroundings } from './delivery.js';
import { SharedWait } from './shared-wait.js';
import { Lanes, Limit, type Slots } from './slots.js';

type Made = 'lanes' | 'places' | 'beginning' | 'deciding' | 'concluded';

export interface CommandOptions extends Omit<Way, Made> {
  readonly slots: Slots;
  readonly lockMs: number;
  readonly clock: Clock;
  readonly log: Log;
}

/** The commands in hand: each once, however often it is delivered, and each in a slot. */
export class CommandsInHand {
  readonly #options: CommandOptions;
  readonly #way: Way;
  readonly #inHand: ByKey<CommandInHand>;
  /** Links that are listened to: once each, however many commands they bring. */
  readonly #links = new WeakSet<AbortSignal>();
  readonly #around: Surroundings;
  #onNoneLeft: (() => void)[] = [];
  #withoutKey = 0;

  constructor(options: CommandOptions) {
    this.#options = options;
    this.#inHand = new ByKey(options.slots.total);
    const { clock, lockMs, runner, slots } = options;
    this.#around = { clock, lockMs, stopping: runner.stopping };
    const fail = (command: CommandInHand, error: unknown): void => {
      command.failed(error);
    };
    this.#way = {
      ...options,
      lanes: new Lanes(),
      places: new Limit(slots.total),
      beginning: new SharedWait((command) => {
        command.run();
      }, fail),
      deciding: new SharedWait((command) => {
        command.decided();
      }, fail),
      concluded: (command, conclusion) => {
        this.#concluded(command, conclusion);
      },
    };
  }

  /** See `Dispatcher.take`. */
  take(command: Command, onDecided: (decision: CommandDecision) => void, link?: AbortSignal): void {
    const key = this.#keyOf(command);
    const delivery = new Delivery(this.#around, onDecided, link);
    if (link !== undefined) this.#listenTo(link);
    const inHand = this.#inHand.get(key);
    if (link?.aborted) this.#tell(delivery, key, linkGone);
    else if (inHand !== undefined) inHand.deliveries = [...inHand.deliveries, delivery];
    else this.#begin(new CommandInHand(this.#way, key, command, [delivery]));
  }

  /** Resolves when there are none. */
  async over(): Promise<void> {
    if (this.#inHand.size === 0) return;
    await new Promise<void>((resolve) => {
      this.#onNoneLeft.push(resolve);
    });
  }

  #keyOf(command: Command): string {
    const key = commandKey(command);
    if (key !== undefined) return key;
    if (this.#withoutKey++ === 0) {
      this.#options.log.warn(
        'commands without message id and sequence number: a second delivery cannot be told from a second command',
      );
    }
    return `delivery ${this.#withoutKey}`;
  }

  #begin(command: CommandInHand): void {
    this.#inHand.add(command);
    this.#options.slots.take();
    command.begin();
  }

  #concluded(command: CommandInHand, conclusion: Conclusion): void {
    const { key, deliveries } = command;
    this.#inHand.remove(command);
    this.#options.slots.giveBack();
    for (const delivery of deliveries) this.#tell(delivery, key, conclusion);
    if (this.#inHand.size > 0) return;
    for (const onNoneLeft of this.#onNoneLeft.splice(0)) onNoneLeft();
  }

  /** Whoever fails on being told is not to harm the commands that were decided together with this one. */
  #tell(delivery: Delivery, key: string, conclusion: Conclusion): void {
    try {
      delivery.conclude(key, conclusion);
    } catch (error) {
      this.#options.log.error('what was decided about a command could not be told', { error });
    }
  }

  #listenTo(link: AbortSignal): void {
    if (this.#links.has(link)) return;
    this.#links.add(link);
    const onGone = (): void => {
      for (const command of this.#inHand) this.#letGo(command, link);
    };
    link.addEventListener('abort', onGone, { once: true });
  }

  /** Deliveries of a link that is gone need no outcome; what has begun goes on, for the next delivery. */
  #letGo(command: CommandInHand, link: AbortSignal): void {
    const { key, deliveries } = command;
    command.deliveries = deliveries.filter((delivery) => delivery.link !== link);
    for (const delivery of deliveries) if (delivery.link === link) this.#tell(delivery, key, linkGone);
  }
}
