import 'reflect-metadata';

import { createPublicKey, webcrypto, type KeyObject } from 'node:crypto';
import { isIP } from 'node:net';

import * as x509 from '@peculiar/x509';

import { signingKey } from './keys.js';

/** What a certificate may be used for. */
export type CertificateUsage = 'authority' | 'server' | 'client';

export interface CertificateToIssue {
  commonName: string;
  usage: CertificateUsage;
  /**
   * Of an authority: how many further authorities may stand between it and a device (RFC 5280, 4.2.1.9). Undefined is
   * any number.
   */
  pathLength?: number | undefined;
  /** DNS names and IP addresses of a server. */
  names?: readonly string[] | undefined;
  /** Milliseconds since the epoch. */
  validFrom: number;
  /** Milliseconds since the epoch. */
  validUntil: number;
  /** Public, or private: then its public half. */
  key: KeyObject;
  /** Who signs it; by default its own key, which has to be private then. */
  issuer?: { certificate: string; key: KeyObject } | undefined;
}

/** Issues a certificate (X.509 v3) and returns it as PEM. */
export async function issueCertificate(request: CertificateToIssue): Promise<string> {
  const { commonName, issuer, key, validFrom, validUntil } = request;
  x509.cryptoProvider.set(webcrypto as never);
  const signing = await signingKey(issuer?.key ?? key);
  const subject = nameOf(commonName);
  const parent = issuer && new x509.X509Certificate(issuer.certificate);
  const publicKey = key.type === 'private' ? createPublicKey(key) : key;
  const spki = new Uint8Array(publicKey.export({ type: 'spki', format: 'der' }));
  const certificate = await x509.X509CertificateGenerator.create({
    subject,
    issuer: parent?.subjectName ?? subject,
    notBefore: new Date(validFrom),
    notAfter: new Date(validUntil),
    signingAlgorithm: signing.algorithm,
    publicKey: spki,
    signingKey: signing.key as never,
    extensions: await extensions(request, { spki, isRsa: key.asymmetricKeyType === 'rsa', parent }),
  });
  return `${certificate.toString('pem')}\n`;
}

/** The common name alone, whatever characters it has. */
export function nameOf(commonName: string): x509.Name {
  return new x509.Name([{ CN: [{ utf8String: commonName }] }]);
}

async function extensions(
  { usage, pathLength, names = [] }: CertificateToIssue,
  {
    spki,
    isRsa,
    parent,
  }: { spki: Uint8Array<ArrayBuffer>; isRsa: boolean; parent: x509.X509Certificate | undefined },
): Promise<x509.Extension[]> {
  const { keyCertSign, cRLSign, digitalSignature, keyEncipherment } = x509.KeyUsageFlags;
  const isAuthority = usage === 'authority';
  // Old TLS sends a secret that is encrypted with an RSA key.
  const ofEnd = isRsa ? digitalSignature | keyEncipherment : digitalSignature;
  // eslint-disable-next-line @typescript-eslint/no-unsafe-enum-assignment -- they are made to be combined
  const flags = (isAuthority ? keyCertSign | cRLSign : ofEnd) as x509.KeyUsageFlags;
  const list: x509.Extension[] = [
    new x509.BasicConstraintsExtension(isAuthority, isAuthority ? pathLength : undefined, true),
    new x509.KeyUsagesExtension(flags, true),
    await x509.SubjectKeyIdentifierExtension.create(spki),
  ];
  if (parent) list.push(await x509.AuthorityKeyIdentifierExtension.create(parent.publicKey));
  if (!isAuthority) {
    const { serverAuth, clientAuth } = x509.ExtendedKeyUsage;
    list.push(new x509.ExtendedKeyUsageExtension([usage === 'server' ? serverAuth : clientAuth]));
  }
  if (names.length > 0) {
    const general = names.map((value) => ({ type: isIP(value) === 0 ? 'dns' : 'ip', value }) as const);
    list.push(new x509.SubjectAlternativeNameExtension(general));
  }
  return list;
}
