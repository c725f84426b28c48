import {
  composites,
  type Composite,
  type Field,
  type Layer,
  type PerformativeName,
} from './performatives.js';
import { cutOff, describedCode, mismatch, nullCode, typeOf, Violation, type Walker } from './values.js';

/**
 * One frame, read in place: where its fields are, not what is in them. The same object reads every frame of a
 * direction, so nothing is allocated per frame. AMQP 1.0 part 2 (transport), section 2.3.
 *
 * ```
 * size u32 | data offset u8 | type u8 | channel u16 | extended header | performative | payload
 * ```
 */
export class Frame {
  readonly #walker: Walker;
  readonly #fieldAt: number[] = new Array<number>(mostFields).fill(0);
  #fieldCount = 0;
  #listAt = 0;
  /** What the frame lies in, from `start` to `end`. */
  bytes: Buffer = Buffer.alloc(0);
  start = 0;
  end = 0;
  layer: Layer = 'amqp';
  channel = 0;
  /** `empty` is a heartbeat. */
  performative: PerformativeName | 'empty' = 'empty';
  /** Where the payload of a transfer starts. */
  payloadAt = 0;

  constructor(walker: Walker) {
    this.#walker = walker;
  }

  get size(): number {
    return this.end - this.start;
  }

  /** Reads the frame of `size` bytes (8 at least) at `start`, which is wholly there. Throws a Violation. */
  read(bytes: Buffer, start: number, size: number): void {
    this.bytes = bytes;
    this.start = start;
    this.end = start + size;
    this.channel = bytes.readUInt16BE(start + 6);
    this.performative = 'empty';
    this.#fieldCount = 0;
    const headerSize = bytes.readUInt8(start + 4) * 4;
    if (headerSize < 8) throw new Violation('the data offset points into the frame header');
    if (headerSize > size) throw new Violation('the data offset points behind the frame');
    this.layer = layerOf(bytes.readUInt8(start + 5));
    this.payloadAt = start + headerSize;
    if (this.payloadAt < this.end) this.#readPerformative(this.payloadAt);
    else if (this.layer === 'sasl') throw new Violation('a SASL frame is empty');
  }

  /** Whether the performative has this field (its number in the specification's order) and it is not null. */
  has(field: number): boolean {
    return field < this.#fieldCount && this.bytes[this.at(field)] !== nullCode;
  }

  /** Where a field that the frame `has` starts, its type code first. */
  at(field: number): number {
    return this.#fieldAt[field] ?? 0;
  }

  /** The value of a ubyte, ushort or uint that the frame `has`. */
  uint(field: number): number {
    const at = this.at(field);
    switch (this.bytes.readUInt8(at)) {
      case 0x70:
        return this.bytes.readUInt32BE(at + 1);
      case 0x60:
        return this.bytes.readUInt16BE(at + 1);
      case 0x43:
        return 0;
      default:
        return this.bytes.readUInt8(at + 1);
    }
  }

  /** A boolean; false when it is missing, which is the default of all that are asked for. */
  flag(field: number): boolean {
    if (!this.has(field)) return false;
    const at = this.at(field);
    const code = this.bytes[at];
    return code === 0x41 || (code === 0x56 && this.bytes[at + 1] !== 0);
  }

  /** The value of a string that the frame `has`. */
  text(field: number): string {
    return this.binary(field).toString('utf8');
  }

  /** The value of a binary that the frame `has`, in the bytes that the frame lies in. */
  binary(field: number): Buffer {
    const at = this.at(field);
    const { width } = typeOf(this.bytes.readUInt8(at));
    const start = at + 1 + width;
    const length = width === 1 ? this.bytes.readUInt8(at + 1) : this.bytes.readUInt32BE(at + 1);
    return this.bytes.subarray(start, start + length);
  }

  /** This frame with another payload: a new one, except that a payload of nothing leaves it where it is. */
  withPayload(payload: Buffer): Buffer {
    const head = this.bytes.subarray(this.start, this.payloadAt);
    return sized(payload.length === 0 ? head : Buffer.concat([head, payload]));
  }

  /** This frame with other values in some of its uint fields, all of which it `has`. A new one: they may be wider. */
  withUints(values: ReadonlyMap<number, number>): Buffer {
    const listEnd = this.payloadAt;
    const elements: Buffer[] = [];
    for (let i = 0; i < this.#fieldCount; i++) {
      const value = values.get(i);
      elements.push(
        value === undefined
          ? this.bytes.subarray(this.at(i), i + 1 < this.#fieldCount ? this.at(i + 1) : listEnd)
          : uintBytes(0x70, value),
      );
    }
    const list = Buffer.concat(elements);
    return sized(
      Buffer.concat([
        this.bytes.subarray(this.start, this.#listAt),
        uintBytes(0xd0, list.length + 4),
        Buffer.from([0, 0, 0, this.#fieldCount]),
        list,
        this.bytes.subarray(listEnd, this.end),
      ]),
    );
  }

  #readPerformative(at: number): void {
    this.#walker.over(this.bytes, this.end - this.start);
    if (this.bytes[at] !== describedCode) throw new Violation('it starts with no performative');
    const listAt = this.#walker.descriptor(at + 1, this.end);
    const definition = composites[this.#walker.named(at)];
    if (definition?.layer !== this.layer) {
      throw new Violation(
        `it starts with no performative of the ${this.layer === 'sasl' ? 'SASL' : 'AMQP'} layer`,
      );
    }
    this.performative = definition.name as PerformativeName;
    this.#listAt = listAt;
    this.payloadAt = this.#readFields(definition, listAt, this.end, 0);
    if (this.payloadAt < this.end && this.performative !== 'transfer') throw new Violation('bytes follow it');
  }

  /** Reads a list of fields and remembers where those of the performative itself (depth 0) are. Returns where it ends. */
  #readFields(definition: Composite, at: number, end: number, depth: number): number {
    const { fields } = definition;
    const limit = this.#walker.enterList(at, end);
    const { count } = this.#walker;
    let next = this.#walker.elementsAt;
    // rhea servers give an empty target the eleven fields of a source: types.List0 shares one array among all its lists.
    if (count > fields.length && depth === 0)
      throw new Violation(`${definition.name} has ${count} fields of at most ${fields.length}`);
    for (let i = 0; i < fields.length; i++) {
      const field = fields[i];
      if (field === undefined) break;
      if (i < count) {
        if (depth === 0) this.#fieldAt[i] = next;
        next = this.#readField(field, next, limit, depth + 1);
      } else if (field.required) throw missing(field);
    }
    for (let i = fields.length; i < count; i++) next = this.#walker.value(next, limit, depth + 1);
    if (next !== limit) throw mismatch('list');
    if (depth === 0) this.#fieldCount = count;
    return limit;
  }

  #readField(field: Field, at: number, end: number, depth: number): number {
    if (at >= end) throw cutOff();
    const code = this.bytes.readUInt8(at);
    if (code === nullCode) {
      if (field.required) throw missing(field);
      return at + 1;
    }
    if (field.holds === 'anything') return this.#walker.value(at, end, depth);
    if (typeof field.holds === 'string') {
      if (code === describedCode)
        throw new Violation(`${field.name} is a described value where ${field.holds} belongs`);
      const { kind } = typeOf(code);
      if (kind !== field.holds)
        throw new Violation(`${field.name} is a ${kind} where ${field.holds} belongs`);
      return this.#walker.value(at, end, depth);
    }
    if (code !== describedCode) throw new Violation(`${field.name} is not a described list`);
    const listAt = this.#walker.descriptor(at + 1, end);
    const descriptor = this.#walker.named(at);
    const definition = field.holds.includes(descriptor) ? composites[descriptor] : undefined;
    // rhea prints what it does not know here to the console.
    if (definition === undefined)
      throw new Violation(`${field.name} is of a kind that does not belong there`);
    return this.#readFields(definition, listAt, end, depth);
  }
}

const mostFields = 16;

function layerOf(type: number): Layer {
  if (type === 0) return 'amqp';
  if (type === 1) return 'sasl';
  throw new Violation(`there is no frame type ${type}`);
}

function missing(field: Field): Violation {
  return new Violation(`${field.name} is missing`);
}

/** Writes the size of the frame in `bytes` into it. */
function sized(bytes: Buffer): Buffer {
  bytes.writeUInt32BE(bytes.length, 0);
  return bytes;
}

/** A type code and four bytes: a uint, or the size of a list. */
function uintBytes(code: number, value: number): Buffer {
  const bytes = Buffer.alloc(5);
  bytes.writeUInt8(code, 0);
  bytes.writeUInt32BE(value, 1);
  return bytes;
}
