/** Where the socket takes bytes, and says when it has. */
type Write = (bytes: Buffer, taken: () => void) => void;

/**
 * Gathers what is written in one turn of the event loop, so that it leaves in one piece: TLS makes a record, and the
 * kernel a packet, of each write.
 *
 * Buffers are used again once the socket has taken what is in them. A new one for each write would have V8 collect its
 * garbage in the middle of sending, every few megabytes: it counts them although they are not in its heap.
 */
export class WriteBuffer {
  readonly #write: Write;
  readonly #free: Buffer[] = [];
  #bytes: Buffer = nothing;
  #used = 0;
  #willFlush = false;

  constructor(write: Write) {
    this.#write = write;
  }

  /** What `reserve` points into. */
  get bytes(): Buffer {
    return this.#bytes;
  }

  /** Room for `length` bytes, to be filled at once; returns where it starts. */
  reserve(length: number): number {
    if (this.#used >= mostAtOnce || this.#used + length > this.#bytes.length) this.#turnOver(length);
    if (!this.#willFlush) {
      this.#willFlush = true;
      process.nextTick(this.#flushLater);
    }
    const at = this.#used;
    this.#used += length;
    return at;
  }

  /** Copies these bytes to where there is room. */
  copy(bytes: Buffer): void {
    const at = this.reserve(bytes.length);
    bytes.copy(this.#bytes, at);
  }

  flush(): void {
    const bytes = this.#bytes;
    const used = this.#used;
    this.#bytes = nothing;
    this.#used = 0;
    if (used === 0) return;
    if (used <= fewBytes) {
      // The socket may keep it for long: let it not be a slab for each.
      this.#write(Buffer.from(bytes.subarray(0, used)), () => undefined);
      this.#release(bytes);
    } else {
      this.#write(bytes.subarray(0, used), () => {
        this.#release(bytes);
      });
    }
  }

  /** What has not been handed to the socket never will be. */
  drop(): void {
    this.#bytes = nothing;
    this.#used = 0;
  }

  #release(bytes: Buffer): void {
    if (bytes.length === slabBytes && this.#free.length < mostFree) this.#free.push(bytes);
  }

  #turnOver(length: number): void {
    this.flush();
    this.#bytes =
      length > slabBytes
        ? Buffer.allocUnsafeSlow(length)
        : (this.#free.pop() ?? Buffer.allocUnsafeSlow(slabBytes));
  }

  readonly #flushLater = (): void => {
    this.#willFlush = false;
    this.flush();
  };
}

const nothing = Buffer.alloc(0);
const slabBytes = 128 * 1024;
const mostFree = 4;
const fewBytes = 4 * 1024;
/** Joining more than this costs more than it saves. */
const mostAtOnce = 64 * 1024;
