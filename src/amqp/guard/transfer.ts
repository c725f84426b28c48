/**
 * A transfer that we send, read no further than matters: nearly all frames that leave are one, and reading them whole
 * would double what the guard costs. Knows them as rhea writes them, and only so.
 */
export class SentTransfer {
  channel = 0;
  deliveryId = 0;
  /** Where the delivery tag lies, its type code first. */
  tagAt = 0;

  /** Whether `bytes` are one transfer and nothing else. */
  read(bytes: Buffer): boolean {
    if (bytes.length < shortest || bytes.readUInt32BE(0) !== bytes.length) return false;
    if (bytes.readUInt16BE(4) !== noExtendedHeader || bytes.readUInt32BE(8) !== transferList) return false;
    const idAt = firstFieldAt + uintBytes(bytes[firstFieldAt]);
    const idBytes = uintBytes(bytes[idAt]);
    if (idAt === firstFieldAt || idBytes === 0) return false;
    this.channel = bytes.readUInt16BE(6);
    this.tagAt = idAt + idBytes;
    if (idBytes === 1) this.deliveryId = 0;
    else if (idBytes === 2) this.deliveryId = bytes.readUInt8(idAt + 1);
    else this.deliveryId = bytes.readUInt32BE(idAt + 1);
    return true;
  }
}

/** Data offset of 8 bytes, AMQP frame. */
const noExtendedHeader = 0x0200;
/** Descriptor 0x14 as a small ulong, and the code of a list with four bytes of size. */
const transferList = 0x005314d0;
/** Behind frame header, descriptor, and size and count of the list. */
const firstFieldAt = 20;
const shortest = 30;

/** How long the uint is that starts with this code; 0 when it is none. */
function uintBytes(code: number | undefined): number {
  if (code === 0x43) return 1;
  if (code === 0x52) return 2;
  return code === 0x70 ? 5 : 0;
}
