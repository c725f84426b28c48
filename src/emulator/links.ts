import type { SendOutcome } from '../model.js';
import type { Direction, Route } from './addresses.js';
import type { ClientConnection } from './connection.js';
import type { Device } from './device.js';
import type { LinkFacts } from './record.js';
import { bodyBytes } from './message.js';
import type { WireMessage } from './message.js';
import type { Settler } from './settle.js';
import { clientOutcome, forget, insides, newLockToken, nextUnsent } from './wire.js';
import type { Delivery, Receiver, Sender } from './wire.js';

/** What links announce as their max-message-size; a larger message closes the link. */
export const maxMessageBytes = 1024 * 1024;

/** What is known of a link from its attach on. */
export interface LinkContext {
  connection: ClientConnection;
  route: Route;
  /** Number of its session on this connection, from 1. */
  session: number;
  direction: Direction;
  /** The identity that the address names, for device links. */
  device?: Device | undefined;
  /** Link properties of the client's attach. */
  properties: Record<string, unknown>;
  /** Filters of the source, by name, as rhea reads them. */
  filter: Record<string, unknown>;
  desiredCapabilities: readonly string[];
  settler: Settler;
  facts: LinkFacts;
}

/** A transfer that arrived. */
export interface Transfer {
  /** Decoded, or the bytes of one whose format is not 0. */
  content: WireMessage | Buffer;
  /** message-format of the transfer; 0x80013700 is a batch. */
  format: number;
  settle(outcome: SendOutcome): void;
}

/** A link that the client sends on. Grants credit, takes transfers, settles them. */
export class Inlet {
  readonly context: LinkContext;
  readonly #link: Receiver;
  readonly #window: number;
  #granting: 'normally' | 'one by one' | 'nothing' = 'normally';
  readonly #unsettled = new Set<Delivery>();

  constructor(
    link: Receiver,
    context: LinkContext,
    creditWindow: number,
    take: (transfer: Transfer) => void,
  ) {
    this.#link = link;
    this.#window = creditWindow;
    this.context = context;
    link.on('message', ({ message, delivery }: { message: unknown; delivery: Delivery }) => {
      // What was under way when the hub let go of the link is not the hub's any more.
      if (!link.is_open()) {
        forget(delivery);
        return;
      }
      this.#unsettled.add(delivery);
      this.#grant();
      take(this.#transfer(message, delivery));
    });
    // In a later tick than the attach reply: rhea lets a transfer overtake it otherwise.
    setImmediate(() => {
      this.#grant();
    });
  }

  /** The link is gone: what it left unsettled concerns nobody any more. */
  closed(): void {
    for (const delivery of this.#unsettled) forget(delivery);
    this.#unsettled.clear();
  }

  #transfer(message: unknown, delivery: Delivery): Transfer {
    return {
      content: delivery.format === 0 ? (message as WireMessage) : bodyBytes(message),
      format: delivery.format,
      settle: (outcome) => {
        const { connection, route } = this.context;
        const fault = route.kind === 'cbs' ? undefined : connection.fault('disposition', this.context);
        if (fault?.act === 'say-nothing' || (fault && connection.suffer(fault, this.context))) return;
        if (fault?.act === 'delay')
          setTimeout(() => {
            this.#settle(delivery, outcome);
          }, fault.ms).unref();
        else this.#settle(delivery, outcome);
      },
    };
  }

  #settle(delivery: Delivery, outcome: SendOutcome): void {
    if (this.#unsettled.delete(delivery)) this.context.settler.settle(delivery, outcome);
  }

  #grant(): void {
    if (!this.#link.is_open()) return;
    const { connection } = this.context;
    const target = this.#granting === 'one by one' ? 1 : this.#window;
    const missing = target - insides(this.#link).credit;
    if (this.#granting === 'nothing' || missing < target / 2) return;
    const fault = connection.fault('credit', this.context, () => {
      this.#granting = 'normally';
      this.#grant();
    });
    if (fault?.act === 'withhold') this.#granting = 'nothing';
    else if (fault?.act === 'trickle') {
      this.#granting = 'one by one';
      this.#link.add_credit(1);
    } else this.#link.add_credit(missing);
  }
}

/**
 * A link that the client receives on. It sends only what the client gave credit for: rhea would hold a delivery
 * without credit back and with it every later one of the session.
 */
export class Outlet {
  readonly context: LinkContext;
  /** Called when there is room again. */
  onRoom: () => void = () => {
    this.#flush();
  };
  /** Called once when the link is gone. */
  onClosed: () => void = () => {
    // Nobody waits for it.
  };
  readonly #link: Sender;
  /** Ids of deliveries that rhea has not written yet, and which therefore still count against the credit. */
  #unsent: number[] = [];
  /** A transfer in the tick of the attach would overtake the attach's answer: rhea writes transfers first. */
  #attached = false;
  readonly #posted: WireMessage[] = [];
  readonly #unsettled = new Map<Delivery, (outcome: SendOutcome) => SendOutcome>();

  constructor(link: Sender, context: LinkContext) {
    this.#link = link;
    this.context = context;
    for (const event of ['accepted', 'rejected', 'released', 'modified'] as const) {
      link.on(event, ({ delivery }: { delivery: Delivery }) => {
        this.#settled(delivery, clientOutcome(delivery, event));
      });
    }
    // Settled without an outcome: the client let go of it.
    link.on('settled', ({ delivery }: { delivery: Delivery }) => {
      this.#settled(delivery, { outcome: 'released' });
    });
    for (const event of ['sender_flow', 'sendable'] as const) {
      link.on(event, () => {
        this.onRoom();
      });
    }
    setImmediate(() => {
      this.#attached = true;
      this.onRoom();
    });
  }

  /** How many messages may be sent now. */
  get room(): number {
    if (!this.#attached || !this.#link.is_open() || !this.#link.sendable()) return 0;
    const next = nextUnsent(this.#link.session);
    while (this.#unsent[0] !== undefined && this.#unsent[0] < next) this.#unsent.shift();
    return insides(this.#link).credit - this.#unsent.length;
  }

  /**
   * Sends, when there is room. `onOutcome` gets what the client decides and answers what the hub makes of it: a
   * client in settle mode second waits for that.
   */
  send(message: object, tag?: Buffer, onOutcome?: (outcome: SendOutcome) => SendOutcome): void {
    const delivery = this.#link.send(message as never, tag, Buffer.isBuffer(message) ? 0 : undefined);
    this.#unsent.push(delivery.id);
    if (!delivery.settled) this.#unsettled.set(delivery, onOutcome ?? ((outcome) => outcome));
  }

  /** Sends a message that was encoded before; nobody asks what became of it. */
  sendEncoded(message: Buffer): void {
    const delivery = this.#link.send(message, newLockToken().tag, 0);
    this.#unsent.push(delivery.id);
    if (!delivery.settled) this.#unsettled.set(delivery, (outcome) => outcome);
  }

  /** Sends as soon as there is room, in order. For links that only this method is used on. */
  post(message: object): void {
    this.#posted.push(message);
    this.#flush();
  }

  closed(): void {
    for (const delivery of this.#unsettled.keys()) forget(delivery);
    this.#unsettled.clear();
    this.#posted.length = 0;
    this.onClosed();
  }

  #flush(): void {
    while (this.#posted.length > 0 && this.room > 0) {
      const message = this.#posted.shift();
      if (message) this.send(message);
    }
  }

  #settled(delivery: Delivery, outcome: SendOutcome): void {
    const decide = this.#unsettled.get(delivery);
    if (decide === undefined) return;
    this.#unsettled.delete(delivery);
    const answer = decide(outcome);
    // Settle mode first: the client has settled already and expects nothing.
    if (delivery.remote_settled) delivery.update(true);
    else this.context.settler.settle(delivery, answer);
  }
}

/**
 * What pairs the two links of a method or twin channel: the text after the colon of `methods:{id}`, `twin:{id}`, or
 * all of it (C). Undefined when the client named none.
 */
export function channelOf({ properties }: LinkContext): string | undefined {
  const id = properties['com.microsoft:channel-correlation-id'];
  return typeof id === 'string' ? id.replace(/^[^:]*:/, '') : undefined;
}
