import { AgentError } from '../../errors.js';

/** What a transfer carries. It writes itself where it leaves from, so that it is copied once. */
export interface Payload {
  readonly length: number;
  copyTo(target: Buffer, at: number): void;
}

/**
 * Payloads that go round rhea. It copies a payload into a buffer that starts with a KiB of zeros and doubles until
 * everything fits, which takes longer than sending it; so it gets to frame an empty one, and the guard puts the payload
 * behind that frame as it leaves. Which is whose, the delivery tag says.
 */
export class Cargo {
  readonly #payloads = new Map<number, Payload>();
  #nextNumber = 0;

  /** Keeps a payload for the transfer that will have the delivery tag that this returns. */
  load(payload: Payload): Buffer {
    const number = this.#nextNumber;
    this.#nextNumber = (number + 1) >>> 0;
    this.#payloads.set(number, payload);
    const tag = Buffer.allocUnsafe(tagBytes);
    tag[0] = tagMark;
    tag.writeUInt32BE(number, 1);
    return tag;
  }

  /**
   * Hands out the payload for the tag that lies at `tagAt`, once; undefined when the tag is not one of ours. Throws when
   * the payload is gone: a transfer without it would be a message of nothing.
   */
  unload(frame: Buffer, tagAt: number): Payload | undefined {
    if (frame[tagAt] !== 0xa0 || frame[tagAt + 1] !== tagBytes || frame[tagAt + 2] !== tagMark)
      return undefined;
    const number = frame.readUInt32BE(tagAt + 3);
    const payload = this.#payloads.get(number);
    if (payload === undefined) throw new AgentError('bug', 'a transfer has lost its payload');
    this.#payloads.delete(number);
    return payload;
  }

  /** The transfer with this tag will not leave any more. */
  drop(tag: Buffer): void {
    this.#payloads.delete(tag.readUInt32BE(1));
  }
}

/** Tags that rhea makes are digits, and those of other links of ours four bytes long. */
const tagMark = 0xff;
const tagBytes = 5;
