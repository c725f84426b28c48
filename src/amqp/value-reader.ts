import { readValue } from './guard/describe.js';
import { describedCode, mismatch, typeOf, Violation, Walker, type Kind, type Type } from './guard/values.js';

/**
 * Reads encoded AMQP values one after the other, out of bytes that may be anything: each is checked before it is read, and
 * one that is skipped is checked too. AMQP 1.0 part 1 (types), section 1.6. One reader serves message after message.
 *
 * All throw a `Violation` when there is no such value.
 */
export class ValueReader {
  readonly #walker = new Walker(mostNested);
  #bytes: Buffer = Buffer.alloc(0);
  /** Where the next value starts. */
  #at = 0;
  /** Where the values end, or those of the list or map that it is in, and behind that all. */
  #end = 0;
  #endOfAll = 0;
  #inside: 'list' | 'map' = 'list';

  /** Turns to what is from `start` to `end` in these bytes. */
  over(bytes: Buffer, start: number, end: number): void {
    this.#walker.over(bytes, end - start);
    this.#bytes = bytes;
    this.#at = start;
    this.#end = this.#endOfAll = end;
  }

  get isAtEnd(): boolean {
    return this.#at === this.#end;
  }

  /** The descriptor of the described value that comes next, as a number; -1 for one that we do not know. */
  descriptor(): number {
    const at = this.#at;
    if (this.#bytes[at] !== describedCode) throw new Violation('it holds something that is no section');
    this.#at = this.#walker.descriptor(at + 1, this.#end);
    return this.#walker.named(at);
  }

  /** Goes into the list or map that comes next, and not into another one there; returns of how many values it is made. */
  enter(kind: 'list' | 'map'): number {
    this.#inside = kind;
    this.#end =
      kind === 'list'
        ? this.#walker.enterList(this.#at, this.#endOfAll)
        : this.#walker.enterMap(this.#at, this.#endOfAll);
    this.#at = this.#walker.elementsAt;
    return this.#walker.count;
  }

  /** Goes out again, after the last of them. */
  leave(): void {
    if (!this.isAtEnd) throw mismatch(this.#inside);
    this.#end = this.#endOfAll;
  }

  skip(): void {
    this.#next();
  }

  /** The next value as text, whatever plain value it is; undefined when it is null, or not plain. */
  text(): string | undefined {
    const bytes = this.#bytes;
    const at = this.#next();
    const end = this.#at;
    switch (bytes[at]) {
      case 0xa0:
      case 0xa1:
      case 0xa3: // symbols are ASCII
        return bytes.toString('utf8', at + 2, end);
      case 0xb0:
      case 0xb1:
      case 0xb3:
        return bytes.toString('utf8', at + 5, end);
      case 0x98:
        return uuidText(bytes.toString('hex', at + 1, end));
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
    const at = this.#next();
    const time = Number(numberAt(this.#bytes, at));
    return Math.abs(time) <= latestTime ? time : undefined;
  }

  /** The next value as a whole number from 0; undefined when it is none, or one that a `number` would round. */
  count(): number | undefined {
    const count = wholeNumberAt(this.#bytes, this.#next());
    return typeof count === 'number' && count >= 0 ? count : undefined;
  }

  /** The bytes of the binary that comes next; where they are, not a copy. */
  binary(): Buffer {
    const at = this.#next();
    const { kind, width } = this.#typeAt(at);
    if (kind !== 'binary') throw new Violation(`its data are a ${kind} and no binary`);
    return this.#bytes.subarray(at + 1 + width, this.#at);
  }

  /** The next value as bytes: binary as it is, and not a copy; a string as UTF-8; null as nothing; others as JSON. */
  asBytes(): Buffer {
    const at = this.#next();
    const { kind, width } = this.#typeAt(at);
    if (kind === 'null') return nothing;
    if (kind === 'binary' || kind === 'string') return this.#bytes.subarray(at + 1 + width, this.#at);
    return Buffer.from(JSON.stringify(readValue(this.#bytes, at)));
  }

  #typeAt(at: number): Pick<Type, 'width'> & { kind: Kind | 'described value' } {
    const code = this.#bytes.readUInt8(at);
    return code === describedCode ? { kind: 'described value', width: 0 } : typeOf(code);
  }

  /** Checks the next value and goes on behind it; returns where it starts. */
  #next(): number {
    const at = this.#at;
    this.#at = this.#walker.value(at, this.#end);
    return at;
  }
}

const nothing = Buffer.alloc(0);
/** Far more than anything that is sent. */
const mostNested = 32;
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
