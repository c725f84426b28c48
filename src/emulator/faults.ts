import type { Direction, LinkKind } from './addresses.js';

/**
 * Trouble on demand. A fault waits at a moment of a connection's life and acts when that moment comes:
 *
 *     faults.add({ at: 'put-token', do: { act: 'refuse', status: 401 } })
 *     faults.add({ at: 'transfer', link: 'telemetry', after: 2, do: { act: 'detach' } })
 *
 * `faults.now` does one of the endings at once, to every connection or link that matches.
 */
export interface Fault extends FaultFilter {
  at: Moment;
  do: FaultAction;
  /** How often it acts. Default 1; `always` until it is cleared. */
  times?: number | 'always';
  /** So many moments pass untouched first. Default 0. */
  after?: number;
}

/**
 * `connect`: a TCP connection was accepted. `open`: the AMQP open arrived. `put-token`: a token arrived. `attach`: a
 * link was asked for. `credit`: credit is about to be granted. `transfer`: a message arrived, and the hub has not
 * taken it. `disposition`: the hub has taken it and is about to say so. `delivery`: a message is about to be sent to
 * the client.
 */
export type Moment =
  'connect' | 'open' | 'put-token' | 'attach' | 'credit' | 'transfer' | 'disposition' | 'delivery';

export interface FaultFilter {
  link?: LinkKind | undefined;
  /** As the client sees it: `out` links send. */
  direction?: Direction | undefined;
  deviceId?: string | undefined;
  connection?: number | undefined;
}

export type FaultAction =
  /** Accepts and never answers: the TCP connection, the token, the attach, the transfer. Swallows a delivery. */
  | { act: 'say-nothing' }
  /** Answers, but so much later. */
  | { act: 'delay'; ms: number }
  /** No: `put-token` with a status, `attach` and `transfer` (rejected) with a condition. */
  | ({ act: 'refuse'; status?: number } & ConditionFields)
  /** What a transfer is answered with. */
  | ({ act: 'answer'; outcome: 'accepted' | 'rejected' | 'released' | 'modified' } & ConditionFields)
  /** Sends these bytes, in hexadecimal, in place of the message that is about to be delivered. */
  | { act: 'garble'; hex: string }
  /** Grants no credit until it is cleared. */
  | { act: 'withhold' }
  /** Grants credit one by one. */
  | { act: 'trickle' }
  | Ending;

/** `detach` the link, `end` its session, `close` the connection (all with an error if one is given), `drop` or `freeze` the socket. */
export type Ending =
  | ({ act: 'detach' | 'end' | 'close' } & ConditionFields)
  | { act: 'drop' }
  /** The socket stays open; nothing is read or written any more. */
  | { act: 'freeze' };

export interface ConditionFields {
  condition?: string;
  description?: string;
}

export function isEnding(action: FaultAction): action is Ending {
  return ['detach', 'end', 'close', 'drop', 'freeze'].includes(action.act);
}

/** What a moment is about. */
export interface Facts {
  link?: LinkKind;
  direction?: Direction;
  deviceId?: string | undefined;
  connection?: number;
}

export interface ActiveFault {
  readonly fault: Fault;
  /** How often it has acted. */
  readonly hits: number;
  clear(): void;
}

/** Does an ending to all that match; returns how many did. */
export type EndNow = (ending: Ending, filter: FaultFilter) => number;

export class Faults {
  readonly #active = new Set<Waiting>();
  readonly #endNow: EndNow;
  readonly #onHit: (fault: Fault) => void;

  constructor(endNow: EndNow, onHit: (fault: Fault) => void) {
    this.#endNow = endNow;
    this.#onHit = onHit;
  }

  add(fault: Fault): ActiveFault {
    const waiting: Waiting = { fault, hits: 0, seen: 0, whenCleared: [] };
    this.#active.add(waiting);
    return {
      fault,
      get hits() {
        return waiting.hits;
      },
      clear: () => {
        this.#clear(waiting);
      },
    };
  }

  /** Ends what matches now, e.g. `now({ act: 'detach' }, { link: 'telemetry' })`. */
  now(ending: Ending, filter: FaultFilter = {}): number {
    return this.#endNow(ending, filter);
  }

  /** Takes all faults away; withheld credit is then granted. */
  clear(): void {
    for (const waiting of [...this.#active]) this.#clear(waiting);
  }

  get active(): readonly Fault[] {
    return [...this.#active].map(({ fault }) => fault);
  }

  /** The action for this moment, if a fault waits for it. `whenCleared` runs when that fault is taken away. */
  at(moment: Moment, facts: Facts, whenCleared?: () => void): FaultAction | undefined {
    if (this.#active.size === 0) return undefined;
    for (const waiting of this.#active) {
      const { fault } = waiting;
      if (fault.at !== moment || !matches(fault, facts)) continue;
      if (waiting.seen++ < (fault.after ?? 0)) continue;
      waiting.hits++;
      if (whenCleared) waiting.whenCleared.push(whenCleared);
      // A withheld grant lasts until someone clears the fault, however often it was asked for.
      const times = fault.do.act === 'withhold' ? 'always' : (fault.times ?? 1);
      if (times !== 'always' && waiting.hits >= times) this.#active.delete(waiting);
      this.#onHit(fault);
      return fault.do;
    }
    return undefined;
  }

  #clear(waiting: Waiting): void {
    this.#active.delete(waiting);
    for (const act of waiting.whenCleared.splice(0)) act();
  }
}

export function matches(filter: FaultFilter, facts: Facts): boolean {
  return (
    (filter.link === undefined || filter.link === facts.link) &&
    (filter.direction === undefined || filter.direction === facts.direction) &&
    (filter.deviceId === undefined || filter.deviceId === facts.deviceId) &&
    (filter.connection === undefined || filter.connection === facts.connection)
  );
}

interface Waiting {
  fault: Fault;
  hits: number;
  seen: number;
  whenCleared: (() => void)[];
}
