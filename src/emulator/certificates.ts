import { createPrivateKey } from 'node:crypto';

import { issueCertificate, type CertificateUsage } from '../certificates/issue.js';
import { keyPem, newKey } from '../certificates/keys.js';

/** Certificates of the emulator's own making: EC P-256, SHA-256. PEM throughout. */
export interface CertificateAndKey {
  certificate: string;
  key: string;
}

export interface NewCertificate {
  commonName: string;
  /** Who signs it; itself when absent. */
  issuer?: CertificateAndKey;
  /** DNS names and IP addresses of a server. */
  hostNames?: readonly string[];
  usage: CertificateUsage;
  /** Default ten years; server certificates get 397 days at most from some clients' point of view. */
  days?: number;
  now: number;
}

const dayMs = 86_400_000;

export async function makeCertificate({
  commonName,
  issuer,
  hostNames,
  usage,
  days = 3650,
  now,
}: NewCertificate): Promise<CertificateAndKey> {
  const key = await newKey('ec-p256');
  const certificate = await issueCertificate({
    ...{ commonName, usage, names: hostNames, key },
    // A client's clock may be behind.
    validFrom: now - dayMs,
    validUntil: now + days * dayMs,
    issuer: issuer && { certificate: issuer.certificate, key: createPrivateKey(issuer.key) },
  });
  return { certificate, key: keyPem(key) };
}
