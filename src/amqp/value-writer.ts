/**
 * Writes encoded AMQP values one after the other, each straight to where it stays. AMQP 1.0 part 1 (types), section 1.6.
 * One writer serves message after message; what it hands out is a copy.
 */
export class ValueWriter {
  #bytes = Buffer.allocUnsafeSlow(4096);
  #at = 0;

  restart(): void {
    this.#at = 0;
  }

  /** A copy of all that was written, and behind it `tail`. */
  followedBy(tail: Buffer): Buffer {
    const whole = Buffer.allocUnsafe(this.#at + tail.length);
    this.#bytes.copy(whole, 0, 0, this.#at);
    tail.copy(whole, this.#at);
    return whole;
  }

  nothing(): void {
    this.#room(1);
    this.#bytes[this.#at++] = 0x40;
  }

  string(value: string): void {
    this.#variable(0xa1, 0xb1, value, 'utf8');
  }

  symbol(value: string): void {
    this.#variable(0xa3, 0xb3, value, 'latin1');
  }

  /** The UTF-8 bytes of a text, as binary. */
  binary(value: string): void {
    this.#variable(0xa0, 0xb0, value, 'utf8');
  }

  /** Milliseconds since the epoch. */
  timestamp(value: number): void {
    this.#room(9);
    this.#bytes[this.#at] = 0x83;
    this.#bytes.writeBigInt64BE(BigInt(Math.trunc(value)), this.#at + 1);
    this.#at += 9;
  }

  /** What follows is described: a section, by the number that is its descriptor. */
  describe(descriptor: number): void {
    this.#room(3);
    this.#bytes[this.#at++] = 0x00;
    this.#bytes[this.#at++] = 0x53;
    this.#bytes[this.#at++] = descriptor;
  }

  /** A binary whose bytes are put behind everything by `followedBy`. */
  binaryOf(bytes: number): void {
    this.#room(5);
    this.#bytes[this.#at] = 0xb0;
    this.#bytes.writeUInt32BE(bytes, this.#at + 1);
    this.#at += 5;
  }

  /** A list or a map begins: `end` wants what this returns, and how many elements were written meanwhile. */
  begin(kind: 'list' | 'map'): number {
    this.#room(9);
    this.#bytes[this.#at] = kind === 'list' ? 0xd0 : 0xd1;
    const sizeAt = this.#at + 1;
    this.#at += 9;
    return sizeAt;
  }

  end(sizeAt: number, count: number): void {
    this.#bytes.writeUInt32BE(this.#at - sizeAt - 4, sizeAt);
    this.#bytes.writeUInt32BE(count, sizeAt + 4);
  }

  #variable(shortCode: number, longCode: number, value: string, encoding: 'utf8' | 'latin1'): void {
    this.#room(5 + 3 * value.length);
    if (value.length <= quickCharacters && this.#ascii(shortCode, value)) return;
    // A UTF-16 unit takes three bytes at most.
    if (3 * value.length <= 255) {
      const length = this.#bytes.write(value, this.#at + 2, encoding);
      this.#bytes[this.#at] = shortCode;
      this.#bytes[this.#at + 1] = length;
      this.#at += 2 + length;
    } else {
      const length = this.#bytes.write(value, this.#at + 5, encoding);
      this.#bytes[this.#at] = longCode;
      this.#bytes.writeUInt32BE(length, this.#at + 1);
      this.#at += 5 + length;
    }
  }

  /** Most texts are short and plain: handing one over to the runtime takes longer than writing it. */
  #ascii(code: number, value: string): boolean {
    const bytes = this.#bytes;
    const start = this.#at + 2;
    for (let i = 0; i < value.length; i++) {
      const character = value.charCodeAt(i);
      if (character > 0x7f) return false;
      bytes[start + i] = character;
    }
    bytes[this.#at] = code;
    bytes[this.#at + 1] = value.length;
    this.#at = start + value.length;
    return true;
  }

  #room(bytes: number): void {
    if (this.#at + bytes <= this.#bytes.length) return;
    const larger = Buffer.allocUnsafeSlow(2 * (this.#at + bytes));
    this.#bytes.copy(larger, 0, 0, this.#at);
    this.#bytes = larger;
  }
}

const quickCharacters = 64;
