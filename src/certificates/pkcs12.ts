import { createHash, createHmac, randomBytes, type KeyObject } from 'node:crypto';

import * as asn1 from 'asn1js';

import type { Secret } from '../secret.js';

export interface Pkcs12Content {
  /** DER, the one of the key first. */
  certificates: readonly Buffer[];
  key: KeyObject;
  /** What a certificate store shows. */
  name: string;
  passphrase: Secret;
}

const oid = {
  data: '1.2.840.113549.1.7.1',
  keyBag: '1.2.840.113549.1.12.10.1.2',
  certificateBag: '1.2.840.113549.1.12.10.1.3',
  x509Certificate: '1.2.840.113549.1.9.22.1',
  friendlyName: '1.2.840.113549.1.9.20',
  localKeyId: '1.2.840.113549.1.9.21',
  sha256: '2.16.840.1.101.3.4.2.1',
};
const macIterations = 10_000;

/**
 * A key with its certificates in one file (PKCS#12, RFC 7292), as Windows, .NET and Java import it. The key is encrypted
 * (PBES2, AES-256), the certificates are not, for they are no secret; a MAC (SHA-256) covers both.
 */
export function writePkcs12({ certificates, key, name, passphrase }: Pkcs12Content): Buffer {
  const [own] = certificates;
  const localKeyId = createHash('sha1')
    .update(own ?? '')
    .digest();
  const ofKey = set(
    attribute(oid.localKeyId, octets(localKeyId)),
    attribute(oid.friendlyName, new asn1.BmpString({ value: name })),
  );
  const encrypted = key.export({
    ...{ type: 'pkcs8', format: 'der', cipher: 'aes-256-cbc', passphrase: passphrase.reveal() },
  } as { type: 'pkcs8'; format: 'der'; cipher: string; passphrase: string });
  const keys = sequence(bag(oid.keyBag, asn1.fromBER(view(encrypted)).result, ofKey));
  const bags = certificates.map((der, n) => {
    const certificate = sequence(object(oid.x509Certificate), tagged(octets(der)));
    return bag(oid.certificateBag, certificate, n === 0 ? ofKey : undefined);
  });
  const safe = bytes(sequence(dataOf(bytes(sequence(...bags))), dataOf(bytes(keys))));
  return bytes(sequence(new asn1.Integer({ value: 3 }), dataOf(safe), macOf(safe, passphrase)));
}

function bag(type: string, content: asn1.BaseBlock, attributes?: asn1.BaseBlock): asn1.BaseBlock {
  return sequence(object(type), tagged(content), ...(attributes === undefined ? [] : [attributes]));
}

function attribute(type: string, value: asn1.BaseBlock): asn1.BaseBlock {
  return sequence(object(type), set(value));
}

function dataOf(content: Buffer): asn1.BaseBlock {
  return sequence(object(oid.data), tagged(octets(content)));
}

function macOf(content: Buffer, passphrase: Secret): asn1.BaseBlock {
  const salt = randomBytes(16);
  const digest = createHmac('sha256', macKey(passphrase, salt)).update(content).digest();
  const algorithm = sequence(object(oid.sha256), new asn1.Null());
  return sequence(
    sequence(algorithm, octets(digest)),
    octets(salt),
    new asn1.Integer({ value: macIterations }),
  );
}

/** RFC 7292, appendix B.2, with SHA-256: a key as long as the hash needs the first block only. */
function macKey(passphrase: Secret, salt: Buffer): Buffer {
  const blockBytes = 64;
  const idOfMac = Buffer.alloc(blockBytes, 3);
  const password = Buffer.from(`${passphrase.reveal()}\0`, 'utf16le').swap16();
  const filled = [salt, password].map((part) =>
    Buffer.alloc(blockBytes * Math.ceil(part.length / blockBytes), part),
  );
  let hash = Buffer.concat([idOfMac, ...filled]);
  for (let n = 0; n < macIterations; n++) hash = createHash('sha256').update(hash).digest();
  return hash;
}

function sequence(...value: asn1.BaseBlock[]): asn1.Sequence {
  return new asn1.Sequence({ value });
}

function set(...value: asn1.BaseBlock[]): asn1.Set {
  return new asn1.Set({ value });
}

function object(value: string): asn1.ObjectIdentifier {
  return new asn1.ObjectIdentifier({ value });
}

function octets(content: Buffer): asn1.OctetString {
  return new asn1.OctetString({ valueHex: view(content) });
}

/** `[0] EXPLICIT` */
function tagged(value: asn1.BaseBlock): asn1.Constructed {
  return new asn1.Constructed({ idBlock: { tagClass: 3, tagNumber: 0 }, value: [value] });
}

function bytes(block: asn1.BaseBlock): Buffer {
  return Buffer.from(block.toBER());
}

/** A copy of its own: Node.js keeps several buffers in one. */
function view(content: Buffer): Uint8Array<ArrayBuffer> {
  return new Uint8Array(content);
}
