import type { Frame } from './frame.js';
import { composites } from './performatives.js';
import { describedCode, descriptorBySymbol, nullCode, typeOf, type Type } from './values.js';

/** What is in a frame, as JSON can say it: fields by their names in the specification, null where there is none. */
export type FrameFields = Record<string, unknown>;

/**
 * The fields of a frame's performative; the payload of a transfer is no part of it. For a frame that has just been
 * read, and so been checked: nothing here looks at sizes again.
 */
export function describeFrame(frame: Frame): FrameFields {
  const definition = composites.find((composite) => composite?.name === frame.performative);
  const fields: FrameFields = {};
  definition?.fields.forEach(({ name }, field) => {
    if (frame.has(field)) fields[name] = readValue(frame.bytes, frame.at(field));
  });
  return fields;
}

/** The value at `at`, as `describeFrame` gives those of fields: a composite says in `is` which one it is. */
export function readValue(bytes: Buffer, at: number): unknown {
  return new ValueReader(bytes, at).read();
}

/** Builds values, one after the other, from bytes that have been checked. */
class ValueReader {
  readonly #bytes: Buffer;
  #at: number;

  constructor(bytes: Buffer, at: number) {
    this.#bytes = bytes;
    this.#at = at;
  }

  read(): unknown {
    const code = this.#bytes.readUInt8(this.#at++);
    if (code !== describedCode) return this.#content(code, typeOf(code));
    const descriptor = this.read();
    const value = this.read();
    const number = typeof descriptor === 'string' ? descriptorBySymbol.get(descriptor) : descriptor;
    const definition = typeof number === 'number' ? composites[number] : undefined;
    if (definition === undefined || !Array.isArray(value)) return { descriptor, value };
    const named = definition.fields.map(({ name }, at) => [name, value[at] as unknown] as const);
    return {
      is: definition.name,
      ...Object.fromEntries(named.filter(([, field]) => field !== undefined && field !== null)),
    };
  }

  #content(code: number, type: Type): unknown {
    switch (type.shape) {
      case 'fixed':
        return this.#fixed(code, type);
      case 'variable':
        return this.#variable(type);
      case 'compound':
        return this.#compound(type);
      case 'array':
        return this.#array(type);
    }
  }

  #fixed(code: number, { kind, width }: Type): unknown {
    const at = this.#at;
    this.#at += width;
    if (code === nullCode) return null;
    if (kind === 'boolean') return width === 0 ? code === 0x41 : this.#bytes[at] !== 0;
    if (kind === 'list') return [];
    if (width === 0) return 0;
    const isSigned = ['byte', 'short', 'int', 'long', 'timestamp'].includes(kind);
    if (isSigned || ['ubyte', 'ushort', 'uint', 'ulong'].includes(kind))
      return this.#integer(at, width, isSigned);
    if (kind === 'float') return this.#bytes.readFloatBE(at);
    if (kind === 'double') return this.#bytes.readDoubleBE(at);
    return this.#bytes.toString('hex', at, at + width);
  }

  /** A number; as text where JSON would round it. */
  #integer(at: number, width: number, isSigned: boolean): number | string {
    if (width < 8) return isSigned ? this.#bytes.readIntBE(at, width) : this.#bytes.readUIntBE(at, width);
    const whole = isSigned ? this.#bytes.readBigInt64BE(at) : this.#bytes.readBigUInt64BE(at);
    return Number.isSafeInteger(Number(whole)) ? Number(whole) : String(whole);
  }

  #variable({ kind, width }: Type): string {
    const size = this.#size(width);
    const start = this.#at;
    this.#at += size;
    return this.#bytes.toString(kind === 'binary' ? 'hex' : 'utf8', start, this.#at);
  }

  #compound({ kind, width }: Type): unknown {
    this.#size(width);
    const values = Array.from({ length: this.#size(width) }, () => undefined).map(() => this.read());
    if (kind === 'list') return values;
    const pairs: [string, unknown][] = [];
    for (let at = 0; at < values.length; at += 2) pairs.push([String(values[at]), values[at + 1]]);
    return Object.fromEntries(pairs);
  }

  #array({ width }: Type): unknown[] {
    this.#size(width);
    const count = this.#size(width);
    if (this.#bytes[this.#at] === describedCode) {
      this.#at++;
      this.read();
    }
    const code = this.#bytes.readUInt8(this.#at++);
    return Array.from({ length: count }, () => this.#content(code, typeOf(code)));
  }

  #size(width: number): number {
    const size = width === 1 ? this.#bytes.readUInt8(this.#at) : this.#bytes.readUInt32BE(this.#at);
    this.#at += width;
    return size;
  }
}
