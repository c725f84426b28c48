import { checkHeader, checkStranger, headerBytes } from './header.js';
import type { Conversation } from './conversation.js';
import type { Frame } from './frame.js';
import type { Verdict } from './session.js';
import { Violation } from './values.js';

/**
 * Cuts what arrives into protocol headers and frames, checks each and hands on whole ones only: in the bytes they
 * arrived in, as many at a time as came together. In place of frames that are kept from rhea it hears a heartbeat: its
 * timer for a silent peer runs on. What arrived of a frame is kept until the rest comes: one frame at
 * most, and none larger than allowed.
 */
export class Intake {
  readonly #conversation: Conversation;
  readonly #frame: Frame;
  readonly #maxFrameBytes: number;
  readonly #handOver: (bytes: Buffer) => void;
  readonly #seen: ((frame: Frame) => void) | undefined;
  /** The start of a frame, and how much of it is there. Until its size is known, that is four bytes long. */
  #partial: Buffer | undefined;
  #filled = 0;
  #lastBeatAt = -Infinity;

  constructor(parts: {
    conversation: Conversation;
    frame: Frame;
    maxFrameBytes: number;
    /** Takes whole frames. */
    handOver: (bytes: Buffer) => void;
    /** Is told of each frame before it is judged. */
    seen: ((frame: Frame) => void) | undefined;
  }) {
    this.#conversation = parts.conversation;
    this.#frame = parts.frame;
    this.#maxFrameBytes = parts.maxFrameBytes;
    this.#handOver = parts.handOver;
    this.#seen = parts.seen;
  }

  /** Takes what arrived. Throws a Violation, after handing over what came before it. */
  take(chunk: Buffer): void {
    let at = this.#complete(chunk);
    /** From here to `at` all is checked, but not handed over. */
    let passed = at;
    let isAnyDropped = false;
    try {
      while (chunk.length - at >= sizeBytes && this.#conversation.expects !== 'nothing') {
        const size = this.#sizeAt(chunk, at);
        if (chunk.length - at < size) break;
        const verdict = this.#judge(chunk, at, size);
        const next = at + size;
        if (verdict !== 'pass') {
          this.#pass(chunk, passed, at);
          if (verdict === 'drop') isAnyDropped = true;
          else this.#handOver(verdict);
          passed = next;
        } else if (this.#conversation.expects === 'header') {
          // After the SASL layer rhea looks for the next header in new bytes only.
          this.#pass(chunk, passed, next);
          passed = next;
        }
        at = next;
      }
    } finally {
      this.#pass(chunk, passed, at);
    }
    if (isAnyDropped) this.#beat();
    this.#keep(chunk, at);
  }

  /** Fills the frame that has started. Returns how many bytes of the chunk that took. */
  #complete(chunk: Buffer): number {
    let used = 0;
    while (this.#partial !== undefined && used < chunk.length) {
      const copied = chunk.copy(this.#partial, this.#filled, used);
      used += copied;
      this.#filled += copied;
      if (this.#filled < this.#partial.length) break;
      const start: Buffer = this.#partial;
      if (start.length === sizeBytes) {
        this.#partial = Buffer.allocUnsafe(this.#sizeAt(start, 0));
        start.copy(this.#partial);
        continue;
      }
      this.#partial = undefined;
      const verdict = this.#judge(start, 0, start.length);
      if (verdict === 'drop') this.#beat();
      else this.#handOver(verdict === 'pass' ? start : verdict);
    }
    return used;
  }

  /** Now and then is enough, and with very many small frames it shows. */
  #beat(): void {
    const now = performance.now();
    if (now - this.#lastBeatAt < beatEveryMs) return;
    this.#lastBeatAt = now;
    this.#handOver(heartbeat);
  }

  /** Keeps the start of a frame. */
  #keep(chunk: Buffer, at: number): void {
    const rest = chunk.length - at;
    if (rest === 0 || this.#conversation.expects === 'nothing') return;
    this.#partial = Buffer.allocUnsafe(rest < sizeBytes ? sizeBytes : this.#sizeAt(chunk, at));
    this.#filled = chunk.copy(this.#partial, 0, at);
  }

  /** How many bytes the header or frame has that starts with the four bytes at `at`. */
  #sizeAt(bytes: Buffer, at: number): number {
    if (this.#conversation.expects === 'header') {
      checkStranger(bytes, at);
      return headerBytes;
    }
    const size = bytes.readUInt32BE(at);
    if (size < smallestFrame) throw new Violation(`a frame of ${size} bytes is too small`);
    if (size > this.#maxFrameBytes) {
      throw new Violation(`a frame of ${size} bytes is larger than the ${this.#maxFrameBytes} that we allow`);
    }
    return size;
  }

  #judge(bytes: Buffer, at: number, size: number): Verdict {
    if (this.#conversation.expects === 'header') {
      this.#conversation.receivedHeader(checkHeader(bytes, at, this.#conversation.ownLayer));
      return 'pass';
    }
    try {
      this.#frame.read(bytes, at, size);
      this.#seen?.(this.#frame);
      return this.#conversation.received(this.#frame);
    } catch (error) {
      if (!(error instanceof Violation)) throw error;
      const { performative, channel } = this.#frame;
      throw new Violation(
        `${performative === 'empty' ? 'a frame' : performative} on channel ${channel}: ${error.message}`,
      );
    }
  }

  #pass(chunk: Buffer, from: number, to: number): void {
    if (from < to) this.#handOver(from === 0 && to === chunk.length ? chunk : chunk.subarray(from, to));
  }
}

/** An empty frame: part 2, section 2.4.5. */
const heartbeat = Buffer.from([0, 0, 0, 8, 2, 0, 0, 0]);
/** Far below any idle time-out. */
const beatEveryMs = 20;
/** A frame starts with its size. */
const sizeBytes = 4;
/** The frame header alone. */
const smallestFrame = 8;
