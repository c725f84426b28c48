import { crc32 } from 'node:zlib';

import { crc32Of } from './crc32.js';

/**
 * A record: what one commit puts and removes, whole or not at all. Little-endian.
 *
 *     offset  bytes
 *      0      4      mark         the segment's own random bytes: nothing else in the world starts with them
 *      4      4      length       of the payload
 *      8      6      sequence     id of the first item put here; when there is none, the id the next one will have
 *     14      2      operations   how many, at least one
 *     16      4      CRC32 of the payload
 *     20      4      CRC32 of the 20 bytes above
 *     24      length payload: the operations, one after the other
 *
 *     put     1      1 = put       remove  1      2 = remove
 *             1      kind                  1      kind
 *             4      length of value       6      id
 *             …      value                 4      bytes that the put had taken
 *
 * The header has a checksum of its own so that a damaged payload still tells where the next record starts. The n-th
 * put of a record has the id `sequence + n`. A removal repeats the kind and size of what it removes: replaying it
 * keeps the accounts right without looking the item up.
 */

/** One stored item. Made by the log when it stores the item, and the only way to remove it. */
export interface Ref {
  readonly kind: number;
  /** Ascending over the life of a store, in the order of commits. */
  readonly id: number;
  /** What the item takes on disk when it is alone in its record. */
  readonly bytes: number;
}

/** One stored item, read. */
export interface Item {
  readonly ref: Ref;
  readonly value: Buffer;
}

export interface Put {
  /** What the item is, 0 to 15; see `kinds.ts`. */
  readonly kind: number;
  /** Its parts are stored one after the other. They must not change before the commit is over. */
  readonly value: readonly Buffer[];
}

export interface PutOperation {
  readonly put: Put;
}

export interface RemoveOperation {
  readonly remove: Ref;
}

export type Operation = PutOperation | RemoveOperation;

export interface RecordHeader {
  readonly sequence: number;
  readonly operations: number;
  /** Of header and payload. */
  readonly bytes: number;
}

export interface RecordVisitor {
  put(ref: Ref, valueStart: number, valueEnd: number): void;
  remove(ref: Ref): void;
}

export const kindCount = 16;
export const headerBytes = 24;
const putBytes = 6;
export const removeBytes = 12;
const put = 1;
const remove = 2;

export function recordBytes(operations: readonly Operation[]): number {
  let bytes = headerBytes;
  for (const operation of operations) bytes += 'put' in operation ? putSize(operation.put) : removeBytes;
  return bytes;
}

/** Writes one record and returns where it ends. */
export function encodeRecord(
  into: Buffer,
  at: number,
  mark: number,
  sequence: number,
  operations: readonly Operation[],
): number {
  let end = at + headerBytes;
  for (const operation of operations) {
    end =
      'put' in operation ? encodePut(into, end, operation.put) : encodeRemove(into, end, operation.remove);
  }
  into.writeUInt32LE(mark, at);
  into.writeUInt32LE(end - at - headerBytes, at + 4);
  into.writeUIntLE(sequence, at + 8, 6);
  into.writeUInt16LE(operations.length, at + 14);
  into.writeUInt32LE(crc32Of(into, at + headerBytes, end), at + 16);
  into.writeUInt32LE(crc32Of(into, at, at + 20), at + 20);
  return end;
}

/** What a put is called once it is stored. */
export function refOf(put: Put, id: number): Ref {
  return { kind: put.kind, id, bytes: headerBytes + putSize(put) };
}

/** The header at `at`, if one is there and undamaged; the payload is not looked at. */
export function readHeader(bytes: Buffer, at: number, mark: number): RecordHeader | undefined {
  if (!isHeader(bytes, at, mark)) return undefined;
  return {
    sequence: bytes.readUIntLE(at + 8, 6),
    operations: bytes.readUInt16LE(at + 14),
    bytes: headerBytes + bytes.readUInt32LE(at + 4),
  };
}

/** Whether all of the record is there and undamaged. */
export function payloadIsSound(bytes: Buffer, at: number, header: RecordHeader): boolean {
  const end = at + header.bytes;
  return end <= bytes.length && crc32Of(bytes, at + headerBytes, end) === bytes.readUInt32LE(at + 16);
}

/** The item with this id out of the record at `at`, its value a view of `bytes`; undefined when it puts no such item. */
export function readItem(bytes: Buffer, at: number, mark: number, id: number): Item | 'damaged' | undefined {
  if (!isHeader(bytes, at, mark)) return 'damaged';
  const start = at + headerBytes;
  const end = start + bytes.readUInt32LE(at + 4);
  if (end > bytes.length) return 'damaged';
  const sum = bytes.readUInt32LE(at + 16);
  if (bytes.readUInt16LE(at + 14) === 1 && bytes[start] === put) {
    // Alone, as telemetry is: the view that is checked is the one that is handed out.
    const value = bytes.subarray(start + putBytes, end);
    if (crc32(value, crc32Of(bytes, start, start + putBytes)) !== sum) return 'damaged';
    if (bytes.readUIntLE(at + 8, 6) !== id) return undefined;
    return { ref: { kind: bytes.readUInt8(start + 1), id, bytes: end - at }, value };
  }
  if (crc32Of(bytes, start, end) !== sum) return 'damaged';
  let position = start;
  for (let next = bytes.readUIntLE(at + 8, 6); position < end;) {
    if (bytes[position] === remove) {
      position += removeBytes;
      continue;
    }
    const valueStart = position + putBytes;
    const valueEnd = valueStart + bytes.readUInt32LE(position + 2);
    if (next === id) {
      const ref = { kind: bytes.readUInt8(position + 1), id, bytes: headerBytes + valueEnd - position };
      return { ref, value: bytes.subarray(valueStart, valueEnd) };
    }
    next++;
    position = valueEnd;
  }
  return undefined;
}

function isHeader(bytes: Buffer, at: number, mark: number): boolean {
  if (at + headerBytes > bytes.length || bytes.readUInt32LE(at) !== mark) return false;
  return crc32Of(bytes, at, at + 20) === bytes.readUInt32LE(at + 20);
}

/** Walks through the operations of a sound record. */
export function visitRecord(bytes: Buffer, at: number, header: RecordHeader, visitor: RecordVisitor): void {
  let id = header.sequence;
  let position = at + headerBytes;
  for (let i = 0; i < header.operations; i++) {
    const kind = bytes.readUInt8(position + 1);
    if (bytes.readUInt8(position) === put) {
      const valueStart = position + putBytes;
      const valueEnd = valueStart + bytes.readUInt32LE(position + 2);
      visitor.put({ kind, id, bytes: headerBytes + valueEnd - position }, valueStart, valueEnd);
      id++;
      position = valueEnd;
    } else {
      visitor.remove(decodeRemove(bytes, position));
      position += removeBytes;
    }
  }
}

export function encodeRemove(into: Buffer, at: number, ref: Ref): number {
  into.writeUInt8(remove, at);
  into.writeUInt8(ref.kind, at + 1);
  into.writeUIntLE(ref.id, at + 2, 6);
  into.writeUInt32LE(ref.bytes, at + 8);
  return at + removeBytes;
}

export function decodeRemove(bytes: Buffer, at: number): Ref {
  return {
    kind: bytes.readUInt8(at + 1),
    id: bytes.readUIntLE(at + 2, 6),
    bytes: bytes.readUInt32LE(at + 8),
  };
}

function encodePut(into: Buffer, at: number, { kind, value }: Put): number {
  let end = at + putBytes;
  for (const part of value) {
    into.set(part, end);
    end += part.length;
  }
  into.writeUInt8(put, at);
  into.writeUInt8(kind, at + 1);
  into.writeUInt32LE(end - at - putBytes, at + 2);
  return end;
}

function putSize({ value }: Put): number {
  let bytes = putBytes;
  for (const part of value) bytes += part.length;
  return bytes;
}
