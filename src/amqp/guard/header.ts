import type { Layer } from './performatives.js';
import { Violation } from './values.js';

/** Bytes of a protocol header: `AMQP`, protocol id, version 1.0.0 (AMQP 1.0 part 2, section 2.2). */
export const headerBytes = 8;

/** Which layer the protocol header at `at` starts; undefined when there is none of AMQP 1.0. */
export function layerOfHeader(bytes: Buffer, at = 0): Layer | undefined {
  if (
    bytes.length - at < headerBytes ||
    !startsLikeHeader(bytes, at) ||
    bytes.readUIntBE(at + 5, 3) !== 0x010000
  )
    return undefined;
  const id = bytes[at + 4];
  return id === 0 ? 'amqp' : id === 3 ? 'sasl' : undefined;
}

/** Refuses a peer by its first four bytes: some strangers say no more than that before they hang up. */
export function checkStranger(bytes: Buffer, at: number): void {
  if (startsLikeHeader(bytes, at)) return;
  const start = bytes.toString('ascii', at, at + 4);
  const stranger = strangers.find(({ pattern }) => pattern.test(start));
  throw new Violation(`it is no AMQP peer: ${stranger?.answer ?? 'its answer is of no protocol known here'}`);
}

/** Refuses a header that is not the answer to ours. */
export function checkHeader(bytes: Buffer, at: number, ours: Layer | undefined): Layer {
  const layer = layerOfHeader(bytes, at);
  if (layer === undefined) {
    const [protocol = 0, ...version] = bytes.subarray(at + 4, at + headerBytes);
    throw new Violation(`it speaks AMQP ${version.join('.')} (protocol ${protocol}) where 1.0.0 is needed`);
  }
  if (ours !== undefined && layer !== ours)
    throw new Violation(ours === 'sasl' ? 'it offers no SASL' : 'it insists on SASL');
  return layer;
}

const strangers = [
  { pattern: /^HTTP/, answer: 'an HTTP server answered' },
  { pattern: /^\u0015\u0003/, answer: 'it answered with a TLS alert' },
  { pattern: /^\u0016\u0003/, answer: 'it speaks TLS inside of this connection' },
  { pattern: /^\u0020\u0002/, answer: 'an MQTT broker answered' },
  { pattern: /^SSH-/, answer: 'an SSH server answered' },
];

function startsLikeHeader(bytes: Buffer, at: number): boolean {
  return bytes.readUInt32BE(at) === 0x414d5150;
}
