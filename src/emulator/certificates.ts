import 'reflect-metadata';

import { webcrypto } from 'node:crypto';
import { X509CertificateGenerator, X509Certificate, cryptoProvider } from '@peculiar/x509';
import * as x509 from '@peculiar/x509';

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
  usage: 'authority' | 'server' | 'client';
  /** Default ten years; server certificates get 397 days at most from some clients' point of view. */
  days?: number;
  now: number;
}

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const dayMs = 86_400_000;

export async function makeCertificate(request: NewCertificate): Promise<CertificateAndKey> {
  cryptoProvider.set(webcrypto as never);
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const issuer = request.issuer && (await readIssuer(request.issuer));
  const subject = `CN=${escapeName(request.commonName)}`;
  const certificate = await X509CertificateGenerator.create({
    subject,
    issuer: issuer?.certificate.subject ?? subject,
    notBefore: new Date(request.now - dayMs),
    notAfter: new Date(request.now + (request.days ?? 3650) * dayMs),
    signingAlgorithm: algorithm,
    publicKey: keys.publicKey as never,
    signingKey: (issuer?.key ?? keys.privateKey) as never,
    extensions: await extensions(request, keys.publicKey, issuer?.certificate),
  });
  return { certificate: `${certificate.toString('pem')}\n`, key: await exportKey(keys.privateKey) };
}

async function readIssuer({ certificate, key }: CertificateAndKey) {
  const bytes = Buffer.from(key.replace(/-----[^-]+-----|\s/g, ''), 'base64');
  return {
    certificate: new X509Certificate(certificate),
    key: await webcrypto.subtle.importKey('pkcs8', bytes, algorithm, false, ['sign']),
  };
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  const base64 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key)).toString('base64');
  return `-----BEGIN PRIVATE KEY-----\n${base64.replace(/.{1,64}/g, '$&\n')}-----END PRIVATE KEY-----\n`;
}

async function extensions(
  { usage, hostNames = [] }: NewCertificate,
  publicKey: webcrypto.CryptoKey,
  issuer: X509Certificate | undefined,
): Promise<x509.Extension[]> {
  const authority = usage === 'authority';
  const list: x509.Extension[] = [
    new x509.BasicConstraintsExtension(authority, undefined, true),
    new x509.KeyUsagesExtension(
      authority ? x509.KeyUsageFlags.keyCertSign : x509.KeyUsageFlags.digitalSignature,
      true,
    ),
    await x509.SubjectKeyIdentifierExtension.create(publicKey),
  ];
  if (issuer) list.push(await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey));
  if (usage === 'server') list.push(new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]));
  if (usage === 'client') list.push(new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth]));
  if (hostNames.length > 0) {
    const names = hostNames.map((value) => ({ type: isAddress(value) ? 'ip' : 'dns', value }) as const);
    list.push(new x509.SubjectAlternativeNameExtension(names));
  }
  return list;
}

function isAddress(name: string): boolean {
  return name.includes(':') || /^\d+(\.\d+){3}$/.test(name);
}

/** RFC 4514: these would end the value or start another one. */
function escapeName(value: string): string {
  return value.replace(/[\\",+<>;=]/g, String.raw`\$&`);
}
