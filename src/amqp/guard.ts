import { EventEmitter } from 'node:events';
import type { Duplex } from 'node:stream';
import type { PeerCertificate } from 'node:tls';
import { AgentError, errorText } from '../errors.js';
import { Conversation } from './guard/conversation.js';
import { describeFrame, type FrameFields } from './guard/describe.js';
import { Frame } from './guard/frame.js';
import { FrameWriter } from './guard/frame-writer.js';
import { layerOfHeader } from './guard/header.js';
import { Intake } from './guard/intake.js';
import type { PerformativeName } from './guard/performatives.js';
import type { ReceivedDeliveries, ReceivingLink } from './guard/received-deliveries.js';
import type { SentDeliveries, SendingLink } from './guard/sent-deliveries.js';
import { Violation, Walker } from './guard/values.js';
import { WriteBuffer } from './guard/write-buffer.js';

export { unreadableReason } from './guard/message.js';

export interface GuardOptions {
  /** The largest frame that the peer may send, as our open says. */
  maxFrameBytes: number;
  /** Deliveries of one session that can be unsettled at a time: as many may be settled by one frame. */
  maxOutstandingDeliveries: number;
  /** Bytes of one message, all its sections together. A larger one arrives as unreadable. */
  maxMessageBytes: number;
  /** How deep values may be nested. Default 32. */
  maxDepth?: number | undefined;
  /** Is told of every frame. */
  trace?: ((direction: 'in' | 'out', frame: TracedFrame) => void) | undefined;
  /** Is told whenever anything arrives, be it a part of a frame: a peer that sends is alive. */
  onBytes?: (() => void) | undefined;
}

export interface TracedFrame {
  /** `empty` is a heartbeat. */
  performative: PerformativeName | 'empty';
  channel: number;
  bytes: number;
  /** What is in it, but for the payload; to be asked for at once or not at all. */
  describe: () => FrameFields;
}

/**
 * Stands between a connected socket and rhea, and offers rhea what it uses of a socket. rhea trusts its peer: thirty
 * bytes can make it run out of memory, loop for seconds, or throw where nobody catches. So rhea gets whole frames
 * only, and only those that it can take; what the guard keeps meanwhile is bounded by its options.
 *
 * When the peer breaks the protocol, rhea hears no more of it: one `error` says why (an AgentError `protocol`) and
 * the socket is destroyed. A message that rhea must not decode is no reason for that, because it can come from anyone
 * who writes to the hub and would come again: it arrives as an empty one, see `unreadableReason`.
 *
 * What rhea writes in one turn of the event loop leaves in one piece.
 */
export function guard(socket: GuardableSocket, options: GuardOptions): GuardedSocket {
  return new GuardedSocket(socket, options);
}

/** A stream, with whatever it has of a TLS socket. */
export interface GuardableSocket extends Duplex {
  readonly encrypted?: boolean;
  readonly authorized?: boolean;
  readonly localAddress?: string | undefined;
  readonly localPort?: number | undefined;
  readonly remoteAddress?: string | undefined;
  readonly remotePort?: number | undefined;
  getPeerCertificate?: () => PeerCertificate;
  setNoDelay?: (on?: boolean) => unknown;
}

interface GuardedSocketEvents {
  /** Whole frames that rhea can take. */
  data: [bytes: Buffer];
  /** The last event but `close`. */
  error: [error: Error];
  end: [];
  close: [];
}

export class GuardedSocket extends EventEmitter<GuardedSocketEvents> {
  readonly #socket: GuardableSocket;
  readonly #conversation: Conversation;
  readonly #intake: Intake;
  readonly #outgoing: Frame;
  /** What does not come from rhea, when it is traced: it can be written while a frame of rhea's is looked at. */
  readonly #written: Frame;
  readonly #trace: GuardOptions['trace'];
  readonly #onBytes: GuardOptions['onBytes'];
  /** `ended`: rhea says no more, but hears. `over`: nothing passes any more. */
  #state: 'open' | 'ended' | 'over' = 'open';
  readonly #unsent: WriteBuffer;

  constructor(socket: GuardableSocket, options: GuardOptions) {
    super();
    const walker = new Walker(options.maxDepth ?? defaultMaxDepth);
    this.#socket = socket;
    this.#trace = options.trace;
    this.#onBytes = options.onBytes;
    this.#outgoing = new Frame(walker);
    this.#written = new Frame(walker);
    this.#unsent = new WriteBuffer((bytes, taken) => {
      if (this.#state === 'open') socket.write(bytes, taken);
    });
    const trace = options.trace === undefined ? undefined : this.#traceSent;
    this.#conversation = new Conversation(
      options,
      walker,
      (channel) => new FrameWriter(channel, this.#unsent, trace),
    );
    this.#intake = new Intake({
      conversation: this.#conversation,
      frame: new Frame(walker),
      maxFrameBytes: options.maxFrameBytes,
      seen: (frame) => this.#trace?.('in', traced(frame)),
      handOver: (bytes) => {
        if (this.#state !== 'over') this.emit('data', bytes);
      },
    });
    socket.on('error', (error) => {
      this.#fail(error);
    });
    socket.on('end', () => {
      if (this.#state !== 'over') this.emit('end');
    });
    socket.on('close', () => {
      this.emit('close');
    });
  }

  /** The link of this name that rhea attached to send on, for who sends beside rhea: see `SentDeliveries`. */
  sendingLink(name: string): { link: SendingLink; deliveries: SentDeliveries } {
    const found = this.#conversation.sendingLink(name);
    if (found === undefined) throw new AgentError('bug', `there is no link ${name} to send on`);
    return found;
  }

  /** The link of this name that rhea attached to receive on, for who receives beside rhea: see `ReceivedDeliveries`. */
  receivingLink(name: string): { link: ReceivingLink; deliveries: ReceivedDeliveries } {
    const found = this.#conversation.receivingLink(name);
    if (found === undefined) throw new AgentError('bug', `there is no link ${name} to receive on`);
    return found;
  }

  /** Whether the socket has more than it can send at once. */
  get congested(): boolean {
    return this.#socket.writableNeedDrain;
  }

  /** Resolves when the socket can take more, or never will again. */
  async drained(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (!this.congested) return;
    await new Promise<void>((resolve, reject) => {
      const stop = () => {
        this.#socket.off('drain', onDrain).off('close', onDrain);
        signal.removeEventListener('abort', onAbort);
      };
      const onDrain = () => {
        stop();
        resolve();
      };
      const onAbort = () => {
        stop();
        reject(signal.reason as Error);
      };
      this.#socket.on('drain', onDrain).on('close', onDrain);
      signal.addEventListener('abort', onAbort);
    });
  }

  /** As of any emitter; the first listener for `data` starts the reading, so that nothing said early is lost. */
  override on<E extends keyof GuardedSocketEvents>(
    event: E,
    listener: (...args: GuardedSocketEvents[E]) => void,
  ): this {
    if (event === 'data' && this.listenerCount('data') === 0) this.#socket.on('data', this.#receive);
    return super.on(event, listener as never);
  }

  /** Takes the protocol header, or one or more whole frames. False when the socket has more than it can send at once. */
  write(bytes: Buffer): boolean {
    if (this.#state !== 'open') return false;
    const layer = layerOfHeader(bytes);
    if (layer === undefined) this.#sendFrames(bytes);
    else {
      this.#conversation.ownLayer = layer;
      this.#unsent.copy(bytes);
    }
    return !this.#socket.writableNeedDrain;
  }

  end(): void {
    if (this.#state !== 'open') return;
    this.#unsent.flush();
    this.#state = 'ended';
    this.#socket.end();
  }

  destroy(error?: Error): void {
    this.#state = 'over';
    this.#unsent.drop();
    this.#socket.destroy(error);
  }

  setNoDelay(on?: boolean): void {
    this.#socket.setNoDelay?.(on);
  }

  getPeerCertificate(): PeerCertificate | undefined {
    return this.#socket.getPeerCertificate?.();
  }

  get encrypted(): boolean {
    return this.#socket.encrypted ?? false;
  }

  get authorized(): boolean {
    return this.#socket.authorized ?? false;
  }

  get localAddress(): string | undefined {
    return this.#socket.localAddress;
  }

  get localPort(): number | undefined {
    return this.#socket.localPort;
  }

  get remoteAddress(): string | undefined {
    return this.#socket.remoteAddress;
  }

  get remotePort(): number | undefined {
    return this.#socket.remotePort;
  }

  readonly #receive = (chunk: Buffer): void => {
    if (this.#state === 'over') return;
    this.#onBytes?.();
    try {
      this.#intake.take(chunk);
    } catch (error) {
      if (error instanceof Violation) this.#fail(this.#broken(error));
      else this.#fail(error instanceof AgentError ? error : bug(error));
    }
  };

  #broken(violation: Violation): AgentError {
    if (this.#conversation.layer === undefined) {
      return new AgentError('protocol', `the peer cannot be talked to: ${violation.message}`, {
        hint: 'check the host name and the port: IoT Hub speaks AMQP over TLS on port 5671',
      });
    }
    // A peer that could open a connection is worth another one soon.
    const retry = this.#conversation.opened ? 'soon' : 'late';
    return new AgentError('protocol', `the peer broke the AMQP protocol: ${violation.message}`, { retry });
  }

  #fail(error: Error): void {
    if (this.#state === 'over') return;
    this.destroy();
    if (this.listenerCount('error') > 0) this.emit('error', error);
  }

  #sendFrames(bytes: Buffer): void {
    for (let at = 0; at < bytes.length;) {
      const end = at + bytes.readUInt32BE(at);
      this.#sendFrame(at === 0 && end === bytes.length ? bytes : bytes.subarray(at, end));
      at = end;
    }
  }

  #sendFrame(bytes: Buffer): void {
    const frame = this.#outgoing;
    frame.read(bytes, 0, bytes.length);
    const leaving = this.#conversation.sent(frame) ?? bytes;
    this.#unsent.copy(leaving);
    if (this.#trace === undefined) return;
    frame.read(leaving, 0, leaving.length);
    this.#trace('out', traced(frame));
  }

  /** A frame that did not come from rhea has been written. */
  readonly #traceSent = (at: number, length: number): void => {
    this.#written.read(this.#unsent.bytes, at, length);
    this.#trace?.('out', traced(this.#written));
  };
}

const defaultMaxDepth = 32;

function traced(frame: Frame): TracedFrame {
  const { performative, channel, size: bytes } = frame;
  return { performative, channel, bytes, describe: () => describeFrame(frame) };
}

function bug(error: unknown): AgentError {
  return new AgentError('bug', `what arrived could not be handled: ${errorText(error)}`, { cause: error });
}
