/**
 * Walks encoded AMQP values without building anything, so that rhea only ever decodes what is worth decoding.
 *
 * rhea goes by the counts of lists, maps and arrays and never looks at their sizes: an array of 2^32-1 nulls is
 * thirteen bytes on the wire and the end of the heap. Here a value must lie inside what contains it, its elements must
 * fill exactly the size it claims, nesting is bounded, and there are no more elements than bytes, nor more than 65 536.
 * AMQP 1.0 part 1 (types), sections 1.2 and 1.6.
 */
export class Walker {
  readonly #maxDepth: number;
  #buffer: Buffer = Buffer.alloc(0);
  /** Elements that lists, maps and arrays may still have. */
  #elementsLeft = 0;
  /** What `enterList` found. */
  count = 0;
  elementsAt = 0;

  constructor(maxDepth: number) {
    this.#maxDepth = maxDepth;
  }

  /** Turns to another frame or message, `bytes` long. */
  over(buffer: Buffer, bytes: number): void {
    this.#buffer = buffer;
    this.#elementsLeft = Math.min(bytes + spareElements, mostElements);
  }

  /** Checks the value that starts at `at` and has to end by `end`. Returns where it ends; throws a Violation. */
  value(at: number, end: number, depth = 0): number {
    if (depth > this.#maxDepth) throw new Violation(`values are nested more than ${this.#maxDepth} deep`);
    if (at >= end) throw cutOff();
    const code = this.#buffer.readUInt8(at);
    if (code !== describedCode) return this.#content(typeOf(code), at + 1, end, depth);
    const valueAt = this.descriptor(at + 1, end);
    // rhea makes an error object of it, whose getters fail unless it holds a list.
    if (this.named(at) === errorDescriptor && !isList(this.#buffer[valueAt]))
      throw new Violation('an error is not a list');
    return this.value(valueAt, end, depth + 1);
  }

  /** Checks the descriptor at `at`; returns where the described value starts. */
  descriptor(at: number, end: number): number {
    if (at >= end) throw cutOff();
    const type = typeOf(this.#buffer.readUInt8(at));
    // Others are reserved (section 1.5), and rhea recurses into them.
    if (type.kind !== 'ulong' && type.kind !== 'symbol')
      throw new Violation(`a descriptor is a ${type.kind}`);
    const next = this.#content(type, at + 1, end, 0);
    // rhea looks descriptors up in plain objects, where every object answers to `toString`. It reads a ulong of more
    // than 53 bits as eight bytes, which can spell that too.
    if (type.kind === 'symbol') {
      const name = this.#buffer.toString('ascii', at + 1 + type.width, next);
      if (name in Object.prototype)
        throw new Violation('a descriptor has the name of a method of every object');
    } else if (type.width === 8 && this.#buffer.readUInt32BE(at + 1) > 0x1fffff) {
      throw new Violation('a descriptor has more than 53 bits');
    }
    return next;
  }

  /** The descriptor of the described value at `at`, which has been checked, as a number; -1 for one we do not know. */
  named(at: number): number {
    const type = typeOf(this.#buffer.readUInt8(at + 1));
    const valueAt = at + 2;
    if (type.kind === 'symbol') {
      const nameAt = valueAt + type.width;
      const name = this.#buffer.toString('ascii', nameAt, nameAt + this.#size(type.width, valueAt, nameAt));
      return descriptorBySymbol.get(name) ?? -1;
    }
    if (type.width === 1) return this.#buffer.readUInt8(valueAt);
    return type.width === 8 && this.#buffer.readUInt32BE(valueAt) === 0
      ? this.#buffer.readUInt32BE(valueAt + 4)
      : -1;
  }

  /**
   * Goes into the list at `at`: `count` and `elementsAt` say what is in it. Returns where it ends, which is for the
   * caller to compare with the end of its last element.
   */
  enterList(at: number, end: number): number {
    const code = this.#buffer[at];
    if (at >= end || code === undefined || !isList(code)) throw new Violation('a list is missing');
    if (code === 0x45) {
      this.count = 0;
      this.elementsAt = at + 1;
      return at + 1;
    }
    return this.#enter(typeOf(code), at + 1, end);
  }

  /** The same for the map at `at`, with keys and values in turn. */
  enterMap(at: number, end: number): number {
    const code = this.#buffer[at];
    if (at >= end || (code !== 0xc1 && code !== 0xd1)) throw new Violation('a map is missing');
    return this.#enter(typeOf(code), at + 1, end);
  }

  #content(type: Type, at: number, end: number, depth: number): number {
    switch (type.shape) {
      case 'fixed': {
        if (at + type.width > end) throw cutOff();
        return at + type.width;
      }
      case 'variable': {
        const size = this.#size(type.width, at, end);
        const next = at + type.width + size;
        if (next > end) throw new Violation(`a ${type.kind} of ${size} bytes does not fit in`);
        return next;
      }
      case 'compound':
        return this.#compound(type, at, end, depth);
      case 'array':
        return this.#array(type, at, end, depth);
    }
  }

  #compound(type: Type, at: number, end: number, depth: number): number {
    const limit = this.#enter(type, at, end);
    const count = this.count;
    let next = this.elementsAt;
    if (type.kind === 'map') {
      for (let i = 0; i < count; i += 2) {
        this.#key(next, limit);
        next = this.value(next, limit, depth + 1);
        next = this.value(next, limit, depth + 1);
      }
    } else {
      for (let i = 0; i < count; i++) next = this.value(next, limit, depth + 1);
    }
    if (next !== limit) throw mismatch(type.kind);
    return limit;
  }

  #enter(type: Type, at: number, end: number): number {
    const limit = this.#limit(type, at, end);
    this.count = this.#size(type.width, at + type.width, limit);
    this.elementsAt = at + 2 * type.width;
    const room = limit - this.elementsAt;
    if (this.count > room) throw implausible(type.kind, this.count, room);
    this.#spend(type.kind, this.count, room);
    if (type.kind === 'map' && this.count % 2 !== 0) throw new Violation('a map has a key without a value');
    return limit;
  }

  #array(type: Type, at: number, end: number, depth: number): number {
    const limit = this.#limit(type, at, end);
    const count = this.#size(type.width, at + type.width, limit);
    let next = at + 2 * type.width;
    if (depth >= this.#maxDepth) throw new Violation(`values are nested more than ${this.#maxDepth} deep`);
    if (next < limit && this.#buffer[next] === describedCode) next = this.descriptor(next + 1, limit);
    if (next >= limit) throw cutOff();
    const element = typeOf(this.#buffer.readUInt8(next));
    next += 1;
    this.#spend('array', count, limit - next);
    if (element.shape === 'fixed') next += count * element.width;
    else for (let i = 0; i < count; i++) next = this.#content(element, next, limit, depth + 1);
    if (next !== limit) throw mismatch('array');
    return limit;
  }

  /** rhea makes each key a property name: that needs a plain value, and not the one name that is no property. */
  #key(at: number, end: number): void {
    if (at >= end) throw cutOff();
    const code = this.#buffer.readUInt8(at);
    if (code === describedCode) throw new Violation('the key of a map is a described value');
    const type = typeOf(code);
    if (type.shape === 'compound' || type.shape === 'array' || isList(code))
      throw new Violation(`the key of a map is a ${type.kind}`);
    if (type.shape !== 'variable') return;
    const keyAt = at + 1 + type.width;
    if (
      this.#size(type.width, at + 1, end) === 9 &&
      keyAt + 9 <= end &&
      this.#buffer.toString('ascii', keyAt, keyAt + 9) === '__proto__'
    ) {
      throw new Violation('the key of a map is __proto__');
    }
  }

  /** Where a compound or an array ends by its own size, which counts from behind the size. */
  #limit(type: Type, at: number, end: number): number {
    const size = this.#size(type.width, at, end);
    const limit = at + type.width + size;
    if (limit > end || size < type.width)
      throw new Violation(`a ${type.kind} of ${size} bytes does not fit in`);
    return limit;
  }

  #spend(kind: Kind, count: number, room: number): void {
    this.#elementsLeft -= count;
    if (this.#elementsLeft < 0) throw implausible(kind, count, room);
  }

  #size(width: number, at: number, end: number): number {
    if (at + width > end) throw cutOff();
    return width === 1 ? this.#buffer.readUInt8(at) : this.#buffer.readUInt32BE(at);
  }
}

/** What is wrong with what the peer sent, in words that show none of its bytes. */
export class Violation extends Error {}

/** Arrays of null, true or zero have more elements than bytes: odd, but a few are no attack. */
const spareElements = 256;
/** rhea makes an object of each: a message of a megabyte could hold a million. */
const mostElements = 65_536;
export const describedCode = 0x00;
export const nullCode = 0x40;
const errorDescriptor = 0x1d;

export type Kind =
  | 'null'
  | 'boolean'
  | 'ubyte'
  | 'ushort'
  | 'uint'
  | 'ulong'
  | 'byte'
  | 'short'
  | 'int'
  | 'long'
  | 'float'
  | 'double'
  | 'decimal'
  | 'char'
  | 'timestamp'
  | 'uuid'
  | 'binary'
  | 'string'
  | 'symbol'
  | 'list'
  | 'map'
  | 'array';

export interface Type {
  kind: Kind;
  shape: 'fixed' | 'variable' | 'compound' | 'array';
  /** Bytes of the value when it is fixed, else of its size (and of its count). */
  width: number;
}

/** Section 1.6. The high half of a code gives shape and width. */
const kindByCode: Record<number, Kind> = {
  0x40: 'null',
  0x41: 'boolean',
  0x42: 'boolean',
  0x43: 'uint',
  0x44: 'ulong',
  0x45: 'list',
  0x50: 'ubyte',
  0x51: 'byte',
  0x52: 'uint',
  0x53: 'ulong',
  0x54: 'int',
  0x55: 'long',
  0x56: 'boolean',
  0x60: 'ushort',
  0x61: 'short',
  0x70: 'uint',
  0x71: 'int',
  0x72: 'float',
  0x73: 'char',
  0x74: 'decimal',
  0x80: 'ulong',
  0x81: 'long',
  0x82: 'double',
  0x83: 'timestamp',
  0x84: 'decimal',
  0x94: 'decimal',
  0x98: 'uuid',
  0xa0: 'binary',
  0xa1: 'string',
  0xa3: 'symbol',
  0xb0: 'binary',
  0xb1: 'string',
  0xb3: 'symbol',
  0xc0: 'list',
  0xc1: 'map',
  0xd0: 'list',
  0xd1: 'map',
  0xe0: 'array',
  0xf0: 'array',
};

const layoutByHighHalf: Record<number, Pick<Type, 'shape' | 'width'>> = {
  0x4: { shape: 'fixed', width: 0 },
  0x5: { shape: 'fixed', width: 1 },
  0x6: { shape: 'fixed', width: 2 },
  0x7: { shape: 'fixed', width: 4 },
  0x8: { shape: 'fixed', width: 8 },
  0x9: { shape: 'fixed', width: 16 },
  0xa: { shape: 'variable', width: 1 },
  0xb: { shape: 'variable', width: 4 },
  0xc: { shape: 'compound', width: 1 },
  0xd: { shape: 'compound', width: 4 },
  0xe: { shape: 'array', width: 1 },
  0xf: { shape: 'array', width: 4 },
};

const typeByCode: (Type | undefined)[] = Array.from({ length: 256 }, (_, code) => {
  const kind = kindByCode[code];
  const layout = layoutByHighHalf[code >> 4];
  return kind && layout ? { kind, shape: layout.shape, width: layout.width } : undefined;
});

export function typeOf(code: number): Type {
  const type = typeByCode[code];
  if (type === undefined)
    throw new Violation(`there is no AMQP type 0x${code.toString(16).padStart(2, '0')}`);
  return type;
}

export function isList(code: number | undefined): boolean {
  return code === 0x45 || code === 0xc0 || code === 0xd0;
}

/** The symbolic spelling of the descriptors that matter, as rhea knows them; most peers send numbers. */
export const descriptorBySymbol: ReadonlyMap<string, number> = new Map([
  ['amqp:open:list', 0x10],
  ['amqp:begin:list', 0x11],
  ['amqp:attach:list', 0x12],
  ['amqp:flow:list', 0x13],
  ['amqp:transfer:list', 0x14],
  ['amqp:disposition:list', 0x15],
  ['amqp:detach:list', 0x16],
  ['amqp:end:list', 0x17],
  ['amqp:close:list', 0x18],
  ['amqp:error:list', 0x1d],
  ['amqp:received:list', 0x23],
  ['amqp:accepted:list', 0x24],
  ['amqp:rejected:list', 0x25],
  ['amqp:released:list', 0x26],
  ['amqp:modified:list', 0x27],
  ['amqp:source:list', 0x28],
  ['amqp:target:list', 0x29],
  ['amqp:header:list', 0x70],
  ['amqp:delivery-annotations:map', 0x71],
  ['amqp:message-annotations:map', 0x72],
  ['amqp:properties:list', 0x73],
  ['amqp:application-properties:map', 0x74],
  ['amqp:data:binary', 0x75],
  ['amqp:amqp-sequence:list', 0x76],
  ['amqp:value:*', 0x77],
  ['amqp:footer:map', 0x78],
]);

export function cutOff(): Violation {
  return new Violation('a value is cut off');
}

function implausible(kind: Kind, count: number, bytes: number): Violation {
  return new Violation(`${article(kind)} claims ${count} elements in ${bytes} bytes`);
}

export function mismatch(kind: Kind): Violation {
  return new Violation(`the elements of ${article(kind)} do not fill its size`);
}

function article(kind: Kind): string {
  return kind === 'array' ? 'an array' : `a ${kind}`;
}
