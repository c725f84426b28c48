import type { DeviceId } from '../model.js';
import type { Stamp } from './age.js';
import { kinds, priorities, type Priority } from './kinds.js';
import type { PutOperation, Ref } from './log/record.js';

/**
 * Telemetry as it lies in the log: an encoded AMQP message, never looked into, behind a small header.
 *
 *     offset  bytes
 *      0      1      1: version of this layout
 *      1      1      priority
 *      2      8      wall clock when it was stored, milliseconds (float64, little-endian)
 *     10      8      time since boot, milliseconds (float64)
 *     18      4      which boot
 *     22      2      length of the message id, UTF-8
 *     24      2      length of the device id
 *     26      2      length of the module id
 *     28      …      message id, device id, module id, then the encoded message
 */

/** A message to be stored. */
export interface NewMessage extends DeviceId {
  readonly messageId: string;
  /** The AMQP message, as it will be sent. */
  readonly encoded: Buffer;
  /** 0 is sent first, 7 last. Default 4. */
  readonly priority?: Priority | undefined;
}

/** A message that is stored. */
export interface SpooledMessage extends DeviceId {
  /** What the log calls it. */
  readonly ref: Ref;
  readonly messageId: string;
  readonly priority: Priority;
  /** When it was stored. */
  readonly storedAt: Stamp;
  readonly encoded: Buffer;
}

export const defaultPriority: Priority = 4;
const version = 1;
const fixedBytes = 28;

export function kindOf(priority: Priority): number {
  return kinds.telemetry + priority;
}

export function putMessage(message: NewMessage, storedAt: Stamp): PutOperation {
  const { messageId, deviceId, moduleId = '', encoded, priority = defaultPriority } = message;
  const idBytes = Buffer.byteLength(messageId);
  const deviceBytes = Buffer.byteLength(deviceId);
  const moduleBytes = Buffer.byteLength(moduleId);
  const header = Buffer.allocUnsafe(fixedBytes + idBytes + deviceBytes + moduleBytes);
  header.writeUInt8(version, 0);
  header.writeUInt8(priority, 1);
  header.writeDoubleLE(storedAt.wallMs, 2);
  header.writeDoubleLE(storedAt.uptimeMs, 10);
  header.writeUInt32LE(storedAt.boot, 18);
  header.writeUInt16LE(idBytes, 22);
  header.writeUInt16LE(deviceBytes, 24);
  header.writeUInt16LE(moduleBytes, 26);
  header.write(messageId + deviceId + moduleId, fixedBytes);
  return { put: { kind: kindOf(priority), value: [header, encoded] } };
}

export function decodeMessage(ref: Ref, value: Buffer): SpooledMessage {
  const headerBytes = fixedBytes + value.readUInt16LE(22) + value.readUInt16LE(24) + value.readUInt16LE(26);
  return new StoredMessage(ref, value, value.subarray(headerBytes));
}

/** The message out of the parts that `putMessage` made of it. */
export function freshMessage(ref: Ref, [header, encoded]: readonly Buffer[]): SpooledMessage {
  if (!header || !encoded) throw new Error('a message has two parts');
  return new StoredMessage(ref, header, encoded);
}

/** Looks into the header only when it is asked: most messages are sent and removed without. */
class StoredMessage implements SpooledMessage {
  constructor(
    readonly ref: Ref,
    private readonly header: Buffer,
    readonly encoded: Buffer,
  ) {}

  get messageId(): string {
    return this.header.toString('utf8', fixedBytes, this.#idEnd);
  }

  get deviceId(): string {
    return this.header.toString('utf8', this.#idEnd, this.#deviceEnd);
  }

  get moduleId(): string | undefined {
    const bytes = this.header.readUInt16LE(26);
    return bytes > 0 ? this.header.toString('utf8', this.#deviceEnd, this.#deviceEnd + bytes) : undefined;
  }

  get priority(): Priority {
    return priorities[this.header.readUInt8(1)] ?? defaultPriority;
  }

  get storedAt(): Stamp {
    return {
      wallMs: this.header.readDoubleLE(2),
      uptimeMs: this.header.readDoubleLE(10),
      boot: this.header.readUInt32LE(18),
    };
  }

  get #idEnd(): number {
    return fixedBytes + this.header.readUInt16LE(22);
  }

  get #deviceEnd(): number {
    return this.#idEnd + this.header.readUInt16LE(24);
  }
}
