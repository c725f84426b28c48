/**
 * Buffers that are used again once the socket has taken what is in them. A new one for each write would have V8 collect
 * its garbage in the middle of sending, every few megabytes: it counts them although they are not in its heap.
 */
export class Slabs {
  readonly #free: Buffer[] = [];

  /** A buffer of at least so many bytes. */
  take(bytes: number): Buffer {
    return bytes <= slabBytes
      ? (this.#free.pop() ?? Buffer.allocUnsafeSlow(slabBytes))
      : Buffer.allocUnsafeSlow(bytes);
  }

  /** What was in it has been written. */
  give(slab: Buffer): void {
    if (slab.length === slabBytes && this.#free.length < mostFree) this.#free.push(slab);
  }
}

const slabBytes = 128 * 1024;
const mostFree = 4;
