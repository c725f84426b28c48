import type { WriteBuffer } from './write-buffer.js';

/** Writes the frames of one channel that do not come from rhea. */
export class FrameWriter {
  readonly #channel: number;
  readonly #out: WriteBuffer;
  readonly #trace: ((at: number, length: number) => void) | undefined;

  /** `trace` is told of every frame, where it lies in the bytes of `out`. */
  constructor(channel: number, out: WriteBuffer, trace?: (at: number, length: number) => void) {
    this.#channel = channel;
    this.#out = out;
    this.#trace = trace;
  }

  /** What `start` points into, until the next frame is started. */
  get bytes(): Buffer {
    return this.#out.bytes;
  }

  /** Room for a frame of `length` bytes, whose header of eight is written; returns where the frame starts. */
  start(length: number): number {
    const start = this.#out.reserve(length);
    const { bytes } = this.#out;
    bytes.writeUInt32BE(length, start);
    bytes.writeUInt16BE(0x0200, start + 4); // data offset of 8 bytes, AMQP frame
    bytes.writeUInt16BE(this.#channel, start + 6);
    return start;
  }

  /** A uint of five bytes; returns where it ends. */
  uint(at: number, value: number): number {
    const { bytes } = this.#out;
    bytes[at] = 0x70;
    return bytes.writeUInt32BE(value, at + 1);
  }

  /** The frame that was started is whole. */
  end(start: number, length: number): void {
    this.#trace?.(start, length);
  }
}
