import { AgentError, errorText } from '../errors.js';
import type { Log } from '../log.js';
import type { Command, CommandOutcome, CommandReply } from '../model.js';
import type { CommandEvent } from './contract.js';
import type { Conclusion, Delivery } from './delivery.js';
import type { AllFields, Answer, Handler, Order } from './handler.js';
import type { HandlersInForce } from './in-force.js';
import type { CommandInbox } from './inbox.js';
import { laneOf } from './lane.js';
import type { CommandLedger, KnownCommand, UndecidedCommand } from './ledger.js';
import { outcomeAfterCrash, outcomeOf, replyTo } from './outcome.js';
import type { Runner } from './runner.js';
import type { SharedWait } from './shared-wait.js';
import type { Lanes, Limit } from './slots.js';

/** What a command meets on its way; the same for all of them. */
export interface Way {
  readonly ledger: CommandLedger;
  readonly inbox: CommandInbox | undefined;
  readonly inForce: HandlersInForce;
  readonly runner: Runner;
  readonly lanes: Lanes;
  readonly places: Limit;
  /** Those that wait until it is on record that they begin. */
  readonly beginning: SharedWait<CommandInHand>;
  /** Those that wait until it is on record what was decided. */
  readonly deciding: SharedWait<CommandInHand>;
  readonly order: Order;
  readonly unmatched: 'reject' | 'release';
  readonly releaseDelay: { readonly firstMs: number; readonly mostMs: number };
  readonly log: Log;
  concluded(command: CommandInHand, conclusion: Conclusion): void;
}

/**
 * How a command becomes an outcome: known already? → which handler? → its turn, and a place → it begins, on record →
 * it runs → it is decided, on record. Where the handler has an inbox: → kept, and run from there (`inbox.ts`).
 *
 * Each step goes on to the next, at once where there is nothing to wait for: there may be a hundred thousand commands
 * a second, and to wait for one promise takes as long as all of these steps.
 */
export class CommandInHand {
  /** See `ByKey`. */
  next: CommandInHand | undefined;
  readonly #event: CommandEvent;
  #known: UndecidedCommand = neverSeen;
  #lane: string | undefined;
  #turn: Disposable | undefined;
  #place: Disposable | undefined;
  /** That it was given to, as long as it is in its hands. */
  #handler: Handler | undefined;
  #conclusion: Conclusion | undefined;

  constructor(
    private readonly way: Way,
    readonly key: string,
    private readonly command: Command,
    public deliveries: readonly Delivery[],
  ) {
    this.#event = eventOf(command);
  }

  begin(): void {
    try {
      this.#then(this.way.ledger.received(this.key), (known) => {
        this.#recognised(known);
      });
    } catch (error) {
      this.failed(error);
    }
  }

  #recognised(known: KnownCommand): void {
    if (known.state === 'decided') {
      this.#conclude({ outcome: known.outcome, from: 'record', attempt: 0, holdMs: 0 });
    } else {
      this.#known = known;
      this.#findHandler();
    }
  }

  #findHandler(): void {
    const handler = this.way.inForce.find(this.#event);
    if (handler === undefined) this.#nobodyTakesIt();
    else if (this.#isForInbox(handler)) void this.#keepFor(handler);
    else this.#queueUp(this.#laneFor(handler));
  }

  #queueUp(lane: string | undefined): void {
    const { lanes, places } = this.way;
    this.#lane = lane;
    this.#then(lanes.enter(lane), (turn) => {
      this.#turn = turn;
      this.#then(places.enter(), (place) => {
        this.#place = place;
        this.#haveItsTurn();
      });
    });
  }

  #haveItsTurn(): void {
    const { runner, inForce } = this.way;
    // Handlers may have been replaced while it waited, which costs it no turn in its lane.
    const handler = inForce.find(this.#event);
    if (runner.stopping.aborted) {
      this.#conclude(stopping);
    } else if (this.deliveries.length === 0) {
      this.#conclude(linkGone); // it comes again, and takes its turn then
    } else if (handler && !this.#isForInbox(handler) && this.#laneFor(handler) === this.#lane) {
      this.#giveTo(handler);
    } else {
      this.#leave();
      this.#findHandler();
    }
  }

  #giveTo(handler: Handler): void {
    const { ledger, inForce, beginning } = this.way;
    const { state, attempts, faults } = this.#known;
    this.#handler = handler;
    inForce.runBegins(handler);
    const outcome = state === 'unknown' ? outcomeAfterCrash(handler, faults) : undefined;
    if (outcome === undefined) {
      beginning.wait(ledger.started(this.key, { handler: handler.name, attempt: attempts + 1 }), this);
    } else {
      this.#decide(handler, outcome, attempts);
    }
  }

  /** It is on record that it begins. */
  run(): void {
    const handler = this.#handler;
    if (handler === undefined) return;
    const attempt = this.#known.attempts + 1;
    this.#then(this.way.runner.run(handler, this.#event, attempt, handler.timeoutMs), (answer) => {
      const faults = this.#known.faults + (answer.decidedBy === 'fault' ? 1 : 0);
      this.#decide(handler, outcomeOf(answer, handler, faults), attempt, answer);
    });
  }

  #decide(handler: Handler, outcome: CommandOutcome, attempt: number, answer: Partial<Answer> = {}): void {
    const { key, command } = this;
    const holdMs = answer.decidedBy === 'stopping' ? 0 : this.#releaseDelayMs(outcome, attempt);
    this.#conclusion = { outcome, from: 'handler', handler: handler.name, attempt, holdMs };
    const fault = answer.decidedBy === 'fault';
    const reply = this.#replyOf(handler, outcome, answer);
    const { ledger, deciding } = this.way;
    deciding.wait(ledger.finished(key, { outcome, fault, command, reply }), this);
  }

  /** It is on record what was decided. */
  decided(): void {
    if (this.#conclusion !== undefined) this.#conclude(this.#conclusion);
  }

  /** What cannot be recorded must not happen; nor is there anything else that we could say to the hub. */
  failed(error: unknown): void {
    const { log, releaseDelay } = this.way;
    const { messageId: message } = this.command;
    log.error('a command could not be handled and goes back to the hub', { error, message });
    this.#conclude(nothingRan({ outcome: 'release', reason: errorText(error) }, releaseDelay.firstMs));
  }

  #conclude(conclusion: Conclusion): void {
    this.#leave();
    this.way.concluded(this, conclusion);
  }

  /** Whoever comes next in its lane, or waits for its place, goes on. */
  #leave(): void {
    if (this.#handler !== undefined) this.way.inForce.runEnds(this.#handler);
    this.#handler = undefined;
    this.#place?.[Symbol.dispose]();
    this.#place = undefined;
    this.#turn?.[Symbol.dispose]();
    this.#turn = undefined;
  }

  /** Goes on when the value is there, which may be at once. */
  #then<T>(value: T | Promise<T>, goOn: (value: T) => void): void {
    if (!(value instanceof Promise)) {
      goOn(value);
      return;
    }
    value.then(goOn).catch((error: unknown) => {
      this.failed(error);
    });
  }

  #nobodyTakesIt(): void {
    const { log, unmatched: outcome, releaseDelay } = this.way;
    log.warn('no handler for a command', { message: this.command.messageId, outcome });
    this.#conclude(nothingRan({ outcome, reason: 'no handler' }, releaseDelay.firstMs));
  }

  async #keepFor({ name }: Handler): Promise<void> {
    const { inbox, log, releaseDelay } = this.way;
    try {
      if (inbox === undefined) throw new AgentError('config', 'there is no inbox');
      await inbox.take(this.key, this.command, name);
      this.#conclude({ outcome: accept, from: 'inbox', handler: name, attempt: 0, holdMs: 0 });
    } catch (error) {
      const reason = `the inbox cannot take it: ${errorText(error)}`;
      const { messageId: message } = this.command;
      log.warn('a command goes back to the hub', { handler: name, message, reason });
      this.#conclude(nothingRan({ outcome: 'release', reason }, releaseDelay.mostMs));
    }
  }

  #isForInbox({ inbox }: Handler): boolean {
    return inbox !== undefined && this.#known.state === 'open';
  }

  #laneFor(handler: Handler): string | undefined {
    return laneOf(handler.order ?? this.way.order, handler, this.command);
  }

  #replyOf(handler: Handler, outcome: CommandOutcome, answer: Partial<Answer>): CommandReply | undefined {
    return replyTo(outcome, handler, answer, (bytes) => {
      const { messageId: message } = this.command;
      this.way.log.error('the reply is too large: it goes out cut', {
        handler: handler.name,
        message,
        bytes,
      });
    });
  }

  #releaseDelayMs({ outcome }: CommandOutcome, attempt: number): number {
    const { firstMs, mostMs } = this.way.releaseDelay;
    return outcome === 'release' ? Math.min(mostMs, firstMs * 2 ** Math.min(attempt - 1, 20)) : 0;
  }
}

const accept: CommandOutcome = { outcome: 'accept' };
const neverSeen: UndecidedCommand = { state: 'open', attempts: 0, faults: 0 };

function nothingRan(outcome: CommandOutcome, releaseHoldMs = 0): Conclusion {
  return { outcome, from: 'none', attempt: 0, holdMs: outcome.outcome === 'release' ? releaseHoldMs : 0 };
}

const stopping = nothingRan({ outcome: 'release', reason: 'the agent is stopping' });
/** Nobody waits for it any more, and there is no link on which it could be settled. */
export const linkGone = nothingRan({ outcome: 'release', reason: 'the link is gone' });

/** Field by field: a copy that leaves something out takes V8 ten times as long. */
function eventOf(command: Command): CommandEvent {
  const event: AllFields<CommandEvent> = {
    event: 'command',
    deviceId: command.deviceId,
    moduleId: command.moduleId,
    messageId: command.messageId,
    correlationId: command.correlationId,
    userId: command.userId,
    contentType: command.contentType,
    contentEncoding: command.contentEncoding,
    ack: command.ack,
    enqueuedAt: command.enqueuedAt,
    expiresAt: command.expiresAt,
    sequenceNumber: command.sequenceNumber,
    deliveryCount: command.deliveryCount,
    properties: command.properties,
    body: command.body,
  };
  return event;
}
