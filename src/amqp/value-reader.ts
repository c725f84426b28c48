import { describedCode, descriptorBySymbol, typeOf } from './guard/values.js';

/**
 * Reads encoded AMQP values one after the other, out of bytes that the guard has checked: nothing here looks whether
 * they are all there. AMQP 1.0 part 1 (types), section 1.6. One reader serves message after message.
 */
export class ValueReader {
  #bytes: Buffer = Buffer.alloc(0);
  /** Where the next value starts. */
  at = 0;

  /** Turns to what starts at `at` in these bytes. */
  over(bytes: Buffer, at: number): void {
    this.#bytes = bytes;
    this.at = at;
  }

  /** The descriptor of the described value that comes next, as a number; -1 for one that we do not know. */
  descriptor(): number {
    this.at++;
    const isNumber = typeOf(this.#bytes.readUInt8(this.at)).kind === 'ulong';
    return isNumber ? (this.count() ?? -1) : (descriptorBySymbol.get(this.text() ?? '') ?? -1);
  }

  /** Goes into the list or map that comes next; returns of how many values it is made. */
  enter(): number {
    const { width } = typeOf(this.#bytes.readUInt8(this.at));
    this.at += 1 + 2 * width;
    if (width === 0) return 0;
    return width === 1 ? this.#bytes.readUInt8(this.at - 1) : this.#bytes.readUInt32BE(this.at - 4);
  }

  skip(): void {
    this.at = this.#end(this.at);
  }

  /** The next value as text, whatever plain value it is; undefined when it is null, or not plain. */
  text(): string | undefined {
    const bytes = this.#bytes;
    const at = this.at;
    this.at = this.#end(at);
    switch (bytes[at]) {
      case 0xa0:
      case 0xa1:
      case 0xa3: // symbols are ASCII
        return bytes.toString('utf8', at + 2, this.at);
      case 0xb0:
      case 0xb1:
      case 0xb3:
        return bytes.toString('utf8', at + 5, this.at);
      case 0x98:
        return uuidText(bytes.toString('hex', at + 1, this.at));
      case 0x83:
        return isoText(wholeNumberAt(bytes, at));
      case 0x41:
        return 'true';
      case 0x42:
        return 'false';
      case 0x56:
        return String(bytes[at + 1] !== 0);
      default:
        return numberAt(bytes, at)?.toString();
    }
  }

  /** The next value as a time in milliseconds since the epoch; undefined when it is no number that a Date can hold. */
  time(): number | undefined {
    const at = this.at;
    this.at = this.#end(at);
    const time = Number(numberAt(this.#bytes, at));
    return Math.abs(time) <= latestTime ? time : undefined;
  }

  /** The next value as a whole number from 0; undefined when it is none, or one that a `number` would round. */
  count(): number | undefined {
    const at = this.at;
    this.at = this.#end(at);
    const count = wholeNumberAt(this.#bytes, at);
    return typeof count === 'number' && count >= 0 ? count : undefined;
  }

  /** The bytes of the binary that comes next; where they are, not a copy. */
  binary(): Buffer {
    const { width } = typeOf(this.#bytes.readUInt8(this.at));
    const start = this.at + 1 + width;
    this.at = this.#end(this.at);
    return this.#bytes.subarray(start, this.at);
  }

  /** Where the value at `at` ends. */
  #end(at: number): number {
    const code = this.#bytes.readUInt8(at);
    if (code === describedCode) return this.#end(this.#end(at + 1));
    const { shape, width } = typeOf(code);
    const next = at + 1 + width;
    if (shape === 'fixed') return next;
    return next + (width === 1 ? this.#bytes.readUInt8(at + 1) : this.#bytes.readUInt32BE(at + 1));
  }
}

/** ECMA-262, 21.4.1.1. */
const latestTime = 8.64e15;

function numberAt(bytes: Buffer, at: number): number | bigint | undefined {
  switch (bytes[at]) {
    case 0x72:
      return bytes.readFloatBE(at + 1);
    case 0x82:
      return bytes.readDoubleBE(at + 1);
    default:
      return wholeNumberAt(bytes, at);
  }
}

/** A `bigint` only where a `number` would round it. */
function wholeNumberAt(bytes: Buffer, at: number): number | bigint | undefined {
  switch (bytes[at]) {
    case 0x43:
    case 0x44:
      return 0;
    case 0x50:
    case 0x52:
    case 0x53:
      return bytes.readUInt8(at + 1);
    case 0x51:
    case 0x54:
    case 0x55:
      return bytes.readInt8(at + 1);
    case 0x60:
      return bytes.readUInt16BE(at + 1);
    case 0x61:
      return bytes.readInt16BE(at + 1);
    case 0x70:
      return bytes.readUInt32BE(at + 1);
    case 0x71:
      return bytes.readInt32BE(at + 1);
    case 0x80: {
      const high = bytes.readUInt32BE(at + 1);
      return high < 0x20_0000 ? high * 2 ** 32 + bytes.readUInt32BE(at + 5) : bytes.readBigUInt64BE(at + 1);
    }
    case 0x81:
    case 0x83: {
      const high = bytes.readInt32BE(at + 1);
      return high < 0x20_0000 && high >= -0x20_0000
        ? high * 2 ** 32 + bytes.readUInt32BE(at + 5)
        : bytes.readBigInt64BE(at + 1);
    }
    default:
      return undefined;
  }
}

function uuidText(hex: string): string {
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}

/** Undefined for a time that no Date can hold. */
function isoText(time: number | bigint | undefined): string | undefined {
  const date = new Date(Number(time));
  return Number.isFinite(date.getTime()) ? date.toISOString() : undefined;
}
