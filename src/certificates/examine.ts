import 'reflect-metadata';

import { X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';

import * as x509 from '@peculiar/x509';

import { readPrivateKey } from '../identity/certificate.js';
import type { Secret } from '../secret.js';
import type { CertificateUsage } from './issue.js';
import type { PemBlock, PemFile } from './pem.js';

export interface Expectations {
  /** Milliseconds since the epoch. */
  now: number;
  /** How long before its end a certificate deserves a word. */
  warnBeforeMs: number;
  /** Authorities that the other side knows; without them the end of the chain is taken on trust. */
  authorities?: readonly X509Certificate[] | undefined;
  /** PEM of the key that should belong to it; undefined does not ask, unless the file has one itself. */
  key?: { pem: string; passphrase?: Secret | undefined } | undefined;
  usage?: CertificateUsage | undefined;
  /** The id of a device, which has to be the common name. */
  commonName?: string | undefined;
  /** What clients know a server by. */
  hostName?: string | undefined;
}

/** One thing that is to be said about a file with certificates. */
export interface Remark {
  level: 'wrong' | 'warn' | 'note';
  /** Where, from 1. */
  line?: number | undefined;
  text: string;
}

/** A certificate with where it stands. */
interface Found {
  /** Undefined of one that is not in the file. */
  line: number | undefined;
  block: PemBlock;
  certificate: X509Certificate;
}

/**
 * Looks at a PEM file as the other side of a TLS connection will: can it be read, is it what is wanted, does each
 * certificate lead to the next, are they valid now, may they be used for this, is the key theirs.
 */
export function examine(file: PemFile, expected: Expectations): Remark[] {
  const remarks: Remark[] = file.faults.map(({ line, what, isFatal }) => ({
    level: isFatal ? 'wrong' : 'warn',
    line,
    text: what,
  }));
  const tell: Tell = (level, text, line) => remarks.push({ level, text, line });
  const found = certificatesIn(file, tell);
  const own = ownOf(found, tell);
  if (own === undefined) return remarks;
  const chain = chainOf(own, found, tell);
  const anchor = anchorOf(chain, expected, tell);
  const path = anchor === undefined ? chain : [...chain, anchor];
  for (const [n, each] of path.entries()) {
    validity(each, expected, tell);
    strength(each, tell);
    const issuer = path[n + 1];
    if (issuer !== undefined) mayIssue(issuer, { issued: each, below: path.slice(1, n + 1) }, tell);
  }
  purpose(own, expected, tell);
  keyOf(file, own, expected, tell);
  return remarks;
}

type Tell = (level: Remark['level'], text: string, line?: number) => unknown;

function certificatesIn({ blocks, faults }: PemFile, tell: Tell): Found[] {
  const wanted = blocks.filter(({ label }) => /^(?:TRUSTED |X509 )?CERTIFICATE$/.test(label));
  if (wanted.length === 0) {
    const [other] = blocks;
    if (other !== undefined)
      tell('wrong', `${insteadOf(other.label)} where a certificate is wanted`, other.line);
    else if (faults.length === 0) tell('wrong', 'there is no certificate in it, nor anything else in PEM');
  }
  return wanted.flatMap((block) => {
    try {
      return [{ line: block.line, block, certificate: new X509Certificate(block.der) }];
    } catch {
      tell('wrong', 'this certificate is damaged: what stands between BEGIN and END is none', block.line);
      return [];
    }
  });
}

function insteadOf(label: string): string {
  if (label.endsWith('PRIVATE KEY')) return 'a private key';
  if (label === 'CERTIFICATE REQUEST' || label === 'NEW CERTIFICATE REQUEST')
    return 'a signing request, which an authority has to sign first,';
  return `a ${label.toLowerCase()}`;
}

/** The certificate of the device or server itself: the first. When an authority stands there, that is a mistake. */
function ownOf(found: readonly Found[], tell: Tell): Found | undefined {
  const [first] = found;
  const end = found.find(({ certificate }) => !certificate.ca);
  if (first === undefined || end === undefined || end === first) return first;
  tell('wrong', `out of order: ${nameOf(end)} has to come first, before those that signed it`, end.line);
  return end;
}

/** From the own certificate upward, as far as the file goes. */
function chainOf(own: Found, found: readonly Found[], tell: Tell): Found[] {
  const chain = [own];
  const rest = found.filter((each) => each !== own);
  for (;;) {
    const last = chain.at(-1) ?? own;
    const issuer = issuerIn(rest, last);
    if (issuer === undefined || isSelfIssued(last)) break;
    rest.splice(rest.indexOf(issuer), 1);
    if (issuer.block.line < last.block.line && last !== own)
      tell(
        'wrong',
        `out of order: ${nameOf(issuer)} has to come behind ${nameOf(last)}, which it signed`,
        issuer.line,
      );
    chain.push(issuer);
  }
  for (const other of rest) {
    const isTwice = chain.some(({ block }) => block.der.equals(other.block.der));
    tell(
      'warn',
      isTwice ? `${nameOf(other)} is there twice` : `${nameOf(other)} has nothing to do with the chain`,
      other.line,
    );
  }
  const root = chain.at(-1);
  if (root !== undefined && chain.length > 1 && isSelfIssued(root))
    tell(
      'note',
      `${nameOf(root)} is the root: the other side has it already, so it need not be sent`,
      root.line,
    );
  return chain;
}

/** The authority that the other side knows and that the chain has to lead to; undefined when nothing is missing. */
function anchorOf(chain: readonly Found[], { authorities }: Expectations, tell: Tell): Found | undefined {
  const last = chain.at(-1);
  if (last === undefined) return undefined;
  const issuer = last.certificate.issuer;
  const known = authorities?.map((certificate) => ({
    line: undefined,
    block: { label: 'CERTIFICATE', line: 0, headers: [], der: certificate.raw },
    certificate,
  }));
  if (known?.some(({ block }) => block.der.equals(last.block.der)) === true) return undefined;
  if (isSelfIssued(last)) {
    if (chain.length === 1 && last.certificate.ca) {
      if (known === undefined) tell('note', 'a root: the other side has to trust it', last.line);
      else tell('wrong', `${nameOf(last)} is a root that --ca does not have`, last.line);
    } else if (chain.length === 1)
      tell('note', 'self-signed: the other side has to know it by its thumbprint', last.line);
    else if (known !== undefined)
      tell('wrong', `${nameOf(last)} is a root that --ca does not have`, last.line);
    return undefined;
  }
  const anchor = known === undefined ? undefined : issuerIn(known, last);
  if (anchor !== undefined) return anchor;
  if (known === undefined)
    tell(
      'note',
      `it leads to ${oneLine(issuer)}, which the other side has to know (--ca FILE checks that)`,
      last.line,
    );
  else
    tell(
      'wrong',
      `an intermediate is missing: ${oneLine(issuer)}, which signed ${nameOf(last)}, is neither in the file nor an authority of --ca`,
      last.line,
    );
  return undefined;
}

/** By its name, and if there are several of one name, by its signature. */
function issuerIn(candidates: readonly Found[], { certificate }: Found): Found | undefined {
  const named = candidates.filter((each) => each.certificate.subject === certificate.issuer);
  return named.find((each) => certificate.verify(each.certificate.publicKey)) ?? named[0];
}

function mayIssue(
  issuer: Found,
  { issued, below }: { issued: Found; below: readonly Found[] },
  tell: Tell,
): void {
  const { line } = issued;
  if (!issued.certificate.verify(issuer.certificate.publicKey)) {
    tell(
      'wrong',
      `${nameOf(issued)} names ${nameOf(issuer)} as its issuer, but that has not signed it: another key of the same name has`,
      line,
    );
    return;
  }
  const parsed = new x509.X509Certificate(new Uint8Array(issuer.block.der));
  const constraints = parsed.getExtension(x509.BasicConstraintsExtension);
  if (constraints?.ca !== true) {
    tell(
      'wrong',
      `${nameOf(issuer)} is no authority (basicConstraints), and has signed ${nameOf(issued)}`,
      line,
    );
    return;
  }
  const usages = parsed.getExtension(x509.KeyUsagesExtension);
  if (usages !== null && (usages.usages & x509.KeyUsageFlags.keyCertSign) === 0)
    tell('wrong', `${nameOf(issuer)} may not sign certificates (keyUsage)`, line);
  const { pathLength } = constraints;
  const between = below.filter((each) => !isSelfIssued(each)).length;
  if (pathLength !== undefined && between > pathLength) {
    const allowed =
      pathLength === 0 ? 'no further authority' : `${String(pathLength)} further authorities at most`;
    tell(
      'wrong',
      `${nameOf(issuer)} allows ${allowed} below it (pathlen:${String(pathLength)}), and there are ${String(between)}`,
      line,
    );
  }
}

function validity(found: Found, { now, warnBeforeMs }: Expectations, tell: Tell): void {
  const { validFrom, validTo } = found.certificate;
  const [from, until] = [Date.parse(validFrom), Date.parse(validTo)];
  const { line } = found;
  if (now < from)
    tell('wrong', `${nameOf(found)} is not valid before ${iso(from)}; the clock here says ${iso(now)}`, line);
  else if (now > until) tell('wrong', `${nameOf(found)} has expired, at ${iso(until)}`, line);
  else if (until - now < warnBeforeMs) tell('warn', `${nameOf(found)} expires soon, at ${iso(until)}`, line);
}

function strength({ line, block, certificate }: Found, tell: Tell): void {
  const { asymmetricKeyType, asymmetricKeyDetails } = certificate.publicKey;
  const bits = asymmetricKeyDetails?.modulusLength ?? Infinity;
  if (asymmetricKeyType === 'rsa' && bits < 2048)
    tell('wrong', `an RSA key of ${String(bits)} bits is too weak: TLS refuses it`, line);
  const hash: unknown = new x509.X509Certificate(new Uint8Array(block.der)).signatureAlgorithm.hash;
  if ((hash as { name?: string } | undefined)?.name === 'SHA-1')
    tell('wrong', 'it is signed with SHA-1, which TLS refuses', line);
}

function purpose(own: Found, { usage, commonName, hostName }: Expectations, tell: Tell): void {
  const { certificate, line } = own;
  const parsed = new x509.X509Certificate(new Uint8Array(own.block.der));
  const extended = parsed.getExtension(x509.ExtendedKeyUsageExtension)?.usages.map(String);
  const wanted = usage === 'server' ? x509.ExtendedKeyUsage.serverAuth : x509.ExtendedKeyUsage.clientAuth;
  if (usage === 'authority' && !certificate.ca) tell('wrong', 'it is no authority', line);
  if (usage !== undefined && usage !== 'authority') {
    if (certificate.ca && !isSelfIssued(own))
      tell('wrong', `it is an authority, not the certificate of a ${usage}`, line);
    if (extended !== undefined && !extended.includes(wanted))
      tell('wrong', `it is not for a ${usage} (extendedKeyUsage)`, line);
  }
  const [name = ''] = parsed.subjectName.getField('CN');
  if (commonName !== undefined && name !== commonName)
    tell('wrong', `its common name is "${name}"; the hub wants the id of the device, "${commonName}"`, line);
  if (hostName !== undefined && !isFor(certificate, hostName))
    tell(
      'wrong',
      `it is not for the host ${hostName}, but for ${certificate.subjectAltName ?? 'none that it names'}`,
      line,
    );
}

function isFor(certificate: X509Certificate, host: string): boolean {
  return (isIP(host) === 0 ? certificate.checkHost(host) : certificate.checkIP(host)) !== undefined;
}

function keyOf(file: PemFile, { certificate, line }: Found, { key }: Expectations, tell: Tell): void {
  const inFile = file.blocks.find(({ label }) => label.endsWith('PRIVATE KEY'));
  if (key === undefined && inFile === undefined) return;
  try {
    const pem = key?.pem ?? pemOf(inFile);
    const privateKey = readPrivateKey(pem, key?.passphrase);
    if (!certificate.checkPrivateKey(privateKey))
      tell('wrong', 'the key is not that of the certificate', line);
  } catch (error) {
    tell(
      'wrong',
      `the key cannot be used: ${error instanceof Error ? error.message : String(error)}`,
      inFile?.line,
    );
  }
}

function pemOf(block: PemBlock | undefined): string {
  if (block === undefined) return '';
  const { label, headers, der } = block;
  const lines = der.toString('base64').replace(/.{1,64}/g, '$&\n');
  const head = headers.length === 0 ? '' : `${headers.join('\n')}\n\n`;
  return `-----BEGIN ${label}-----\n${head}${lines}-----END ${label}-----\n`;
}

function isSelfIssued({ certificate }: Found): boolean {
  return certificate.subject === certificate.issuer;
}

function nameOf({ certificate }: Found): string {
  return oneLine(certificate.subject);
}

/** Node.js writes a line for each part. */
function oneLine(name: string): string {
  return name === '' ? 'a certificate without a name' : name.split('\n').join(', ');
}

function iso(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}
