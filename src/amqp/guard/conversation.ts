import type { Frame } from './frame.js';
import type { FrameWriter } from './frame-writer.js';
import { fieldOf, type Layer } from './performatives.js';
import type { ReceivedDeliveries, ReceivingLink } from './received-deliveries.js';
import type { SentDeliveries, SendingLink } from './sent-deliveries.js';
import { Session, type SessionLimits, type Verdict } from './session.js';
import { Violation, type Walker } from './values.js';

/**
 * What both sides have said on one connection, so far as it decides what the peer may say next: rhea believes what it
 * is told. The peer of a client never begins a session or attaches a link of its own, so everything kept here is
 * bounded by what we opened.
 */
export class Conversation {
  readonly #limits: SessionLimits & { maxFrameBytes: number };
  readonly #walker: Walker;
  readonly #writerOn: (channel: number) => FrameWriter;
  /** The largest frame that both sides take. */
  #frameBytes: number;
  /** Our sessions by our channel, and those that the peer answered by its own. */
  readonly #byOwnChannel = new Map<number, Session>();
  readonly #byChannel = new Map<number, Session>();
  #mechanismsOffered = false;
  /** The peer's open came: what goes wrong from now on may go right on the next connection. */
  opened = false;
  /** The layers that we and the peer are in, by the last header of each. */
  ownLayer: Layer | undefined;
  layer: Layer | undefined;
  /** What comes next from the peer. After its last word nothing is heard any more. */
  expects: 'header' | 'frames' | 'nothing' = 'header';

  constructor(
    limits: SessionLimits & { maxFrameBytes: number },
    walker: Walker,
    writerOn: (channel: number) => FrameWriter,
  ) {
    this.#limits = limits;
    this.#frameBytes = limits.maxFrameBytes;
    this.#walker = walker;
    this.#writerOn = writerOn;
  }

  /** We send this frame. Returns the frame that has to leave in its place, if any. */
  sent(frame: Frame): Buffer | undefined {
    if (frame.performative === 'begin') {
      this.#byOwnChannel.set(
        frame.channel,
        new Session(this.#limits, this.#walker, this.#writerOn(frame.channel)),
      );
      return undefined;
    }
    if (frame.performative === 'close') {
      for (const session of this.#byOwnChannel.values()) session.close();
    }
    return this.#byOwnChannel.get(frame.channel)?.sent(frame);
  }

  /** The link of this name that we send on, for who sends on it beside rhea; undefined when there is none. */
  sendingLink(name: string): { link: SendingLink; deliveries: SentDeliveries } | undefined {
    for (const session of this.#byOwnChannel.values()) {
      const link = session.sendingLink(name);
      if (link !== undefined) return { link, deliveries: session.sending };
    }
    return undefined;
  }

  /** The link of this name that we receive on, for who receives on it beside rhea; undefined when there is none. */
  receivingLink(name: string): { link: ReceivingLink; deliveries: ReceivedDeliveries } | undefined {
    for (const session of this.#byOwnChannel.values()) {
      const link = session.receivingLink(name);
      if (link !== undefined) return { link, deliveries: session.receiving };
    }
    return undefined;
  }

  /** The peer sent this header. */
  receivedHeader(layer: Layer): void {
    this.layer = layer;
    this.expects = 'frames';
  }

  /** The peer sent this frame. Throws a Violation when it may not. */
  received(frame: Frame): Verdict {
    if (frame.layer !== this.layer) throw new Violation('it is of another layer than the connection');
    if (frame.performative === 'empty') return 'pass';
    if (frame.layer === 'sasl') return this.#receivedSasl(frame);
    if (!this.opened && frame.performative !== 'open') throw new Violation('it came before open');
    switch (frame.performative) {
      case 'open':
        return this.#receivedOpen(frame);
      case 'begin':
        return this.#receivedBegin(frame);
      case 'end':
        this.#session(frame).close();
        this.#byChannel.delete(frame.channel);
        return 'pass';
      case 'close':
        this.expects = 'nothing';
        return 'pass';
      default:
        return this.#session(frame).received(frame);
    }
  }

  #receivedSasl(frame: Frame): Verdict {
    switch (frame.performative) {
      case 'sasl-mechanisms':
        if (this.#mechanismsOffered) throw new Violation('it came before');
        this.#mechanismsOffered = true;
        return 'pass';
      case 'sasl-challenge':
      case 'sasl-outcome':
        if (!this.#mechanismsOffered) throw new Violation('it came before sasl-mechanisms');
        if (frame.performative === 'sasl-outcome') {
          this.expects = frame.uint(fieldOf.outcome.code) === 0 ? 'header' : 'nothing';
          this.ownLayer = 'amqp';
        }
        return 'pass';
      default:
        throw new Violation('only a client sends it');
    }
  }

  #receivedOpen(frame: Frame): Verdict {
    if (this.opened) throw new Violation('it came before');
    this.opened = true;
    const { maxFrameSize, idleTimeOut } = fieldOf.open;
    if (frame.has(maxFrameSize) && frame.uint(maxFrameSize) < smallestMaxFrameSize) {
      // rhea cuts a message into pieces of this less some fifty bytes: below that it never comes to an end.
      throw new Violation(
        `it allows frames of ${frame.uint(maxFrameSize)} bytes, where ${smallestMaxFrameSize} is the least`,
      );
    }
    if (frame.has(maxFrameSize)) this.#frameBytes = Math.min(this.#frameBytes, frame.uint(maxFrameSize));
    if (frame.has(idleTimeOut)) {
      const milliseconds = frame.uint(idleTimeOut);
      if (milliseconds > 0 && milliseconds < shortestIdleMs) {
        throw new Violation(`it wants to hear from us every ${milliseconds} ms`);
      }
      // Half of it is rhea's heartbeat, and what Node's timers cannot hold they fire every millisecond.
      if (milliseconds > 0x7fffffff) frame.bytes.writeUInt32BE(0x7fffffff, frame.at(idleTimeOut) + 1);
    }
    return 'pass';
  }

  #receivedBegin(frame: Frame): Verdict {
    const { remoteChannel } = fieldOf.begin;
    if (!frame.has(remoteChannel)) throw new Violation('it begins a session that we did not ask for');
    const session = this.#byOwnChannel.get(frame.uint(remoteChannel));
    if (session === undefined || session.answered) throw new Violation('it answers no begin of ours');
    if (this.#byChannel.has(frame.channel)) throw new Violation('the channel is in use');
    session.begun(frame, this.#frameBytes);
    this.#byChannel.set(frame.channel, session);
    return 'pass';
  }

  #session(frame: Frame): Session {
    const session = this.#byChannel.get(frame.channel);
    if (session === undefined) throw new Violation('no session has this channel');
    return session;
  }
}

/** MIN-MAX-FRAME-SIZE, part 2 section 2.8.1. */
const smallestMaxFrameSize = 512;
/** A peer that wants heartbeats more often than this wants to keep us busy. */
const shortestIdleMs = 100;
