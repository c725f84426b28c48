import type { KeyObject, X509Certificate } from 'node:crypto';

import { readPem, type PemFile } from '../certificates/pem.js';
import { AgentError } from '../errors.js';
import { readCertificates, readPrivateKey } from '../identity/certificate.js';
import { Secret } from '../secret.js';
import { readSmallBytes, readSmallFile } from './small-file.js';

/** A PEM file with what is wrong with it. Errors: `no-input`, `io`. */
export async function openPem(file: string, what: string): Promise<PemFile> {
  return readPem(await readSmallBytes(file, what));
}

/** The certificates of a PEM file, in its order. Errors: `no-input`, `io`, `data` that names file and line. */
export async function certificatesOf(file: string): Promise<X509Certificate[]> {
  const { blocks, faults } = await openPem(file, 'the certificate');
  const fatal = faults.find(({ isFatal }) => isFatal);
  if (fatal !== undefined) {
    const where = fatal.line === undefined ? file : `${file}:${String(fatal.line)}`;
    throw new AgentError('data', `${where}: ${fatal.what}`, {
      hint: `iothub-service cert verify ${file} tells everything that is wrong with it`,
    });
  }
  const pem = blocks
    .filter(({ label }) => label.endsWith('CERTIFICATE'))
    .map(({ der }) => pemOf('CERTIFICATE', der))
    .join('');
  return named(file, () => readCertificates(pem));
}

/** The private key of a PEM file. Errors: `no-input`, `io`, `config` that names the file. */
export async function privateKeyOf(file: string, passphraseFile: string | undefined): Promise<KeyObject> {
  const text = await readSmallFile(file, 'the private key');
  const passphrase = await passphraseOf(passphraseFile);
  return named(file, () => readPrivateKey(text, passphrase));
}

/** The first line of a file; undefined when there is no file. */
export async function passphraseOf(file: string | undefined): Promise<Secret | undefined> {
  if (file === undefined) return undefined;
  const [line = ''] = (await readSmallFile(file, 'the passphrase')).split(/\r?\n/, 1);
  if (line === '') throw new AgentError('config', `${file} has no passphrase in its first line`);
  return new Secret(line);
}

function pemOf(label: string, der: Buffer): string {
  const lines = der.toString('base64').replace(/.{1,64}/g, '$&\n');
  return `-----BEGIN ${label}-----\n${lines}-----END ${label}-----\n`;
}

/** Thumbprints as the hub registers them, in hex without colons. */
export function thumbprintsOf({ fingerprint, fingerprint256 }: X509Certificate): {
  sha1: string;
  sha256: string;
} {
  return { sha1: fingerprint.replaceAll(':', ''), sha256: fingerprint256.replaceAll(':', '') };
}

/** `CN=dev1, O=Acme`; Node.js writes a line for each part. */
export function oneLine(name: string): string {
  return name.split('\n').join(', ');
}

function named<T>(file: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    const { code, hint, cause } = error;
    throw new AgentError(code, `${file}: ${error.message}`, { hint, cause });
  }
}
