import { createPrivateKey, X509Certificate, type KeyObject } from 'node:crypto';

import { AgentError, errorText, systemErrorCode } from '../errors.js';
import { Secret } from '../secret.js';

/** What a device shows in the TLS handshake instead of a token: its certificate, and the key that proves it. */
export interface ClientCertificate {
  /** PEM: the device's own certificate first, then the intermediates that lead to an authority that the hub knows. */
  chain: string;
  /** PEM, not encrypted. */
  key: Secret;
  /** As `CN=dev1,O=Acme`. */
  subject: string;
  /** Milliseconds since the epoch. */
  validFrom: number;
  /** Milliseconds since the epoch. */
  expiresAt: number;
  /** SHA-1 and SHA-256 in hex, in capitals and without colons, as the hub registers them. */
  thumbprints: { sha1: string; sha256: string };
}

/** The texts of the files that hold it. */
export interface CertificateTexts {
  /** PEM, one certificate or more in any order. */
  certificates: string;
  /** PEM; may be the same text. */
  key: string;
  /** Of an encrypted key. */
  passphrase?: Secret | undefined;
}

/**
 * Reads a device's certificate with its chain and its key. Forgives what OpenSSL does not, because it can be told what
 * was meant: blank lines and spaces in the base64, text between the certificates, and any order of them.
 * @throws AgentError `config` that says what is wrong with which of the two
 */
export function readClientCertificate({
  certificates,
  key,
  passphrase,
}: CertificateTexts): ClientCertificate {
  const found = readCertificates(certificates);
  const privateKey = readPrivateKey(key, passphrase);
  const own = found.find((certificate) => certificate.checkPrivateKey(privateKey));
  if (own === undefined) {
    const [first] = found;
    throw broken(
      found.length === 1
        ? `the key is not that of the certificate (${subjectOf(first)})`
        : `the key is that of none of the ${String(found.length)} certificates (the first is ${subjectOf(first)})`,
      { hint: 'the two files do not belong together; one of them may have been renewed without the other' },
    );
  }
  return {
    chain: chainFrom(own, found).map(String).join(''),
    key: new Secret(privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()),
    subject: subjectOf(own),
    validFrom: Date.parse(own.validFrom),
    expiresAt: Date.parse(own.validTo),
    thumbprints: {
      sha1: own.fingerprint.replaceAll(':', ''),
      sha256: own.fingerprint256.replaceAll(':', ''),
    },
  };
}

/** All certificates of a PEM text, in its order. Errors: `config` when there is none, or one is broken. */
export function readCertificates(pem: string): X509Certificate[] {
  const blocks = [...pem.matchAll(/-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----([^-]*)-----END /g)];
  if (blocks.length === 0) {
    throw broken('there is no certificate in it', {
      hint: 'it has to be PEM: text that begins with -----BEGIN CERTIFICATE-----',
    });
  }
  return blocks.map(([, base64 = ''], index) => {
    try {
      return new X509Certificate(Buffer.from(base64, 'base64'));
    } catch (cause) {
      throw broken(`certificate ${String(index + 1)} of ${String(blocks.length)} cannot be read`, {
        cause,
        hint: 'the base64 between its BEGIN and END lines is damaged; copy the file again',
      });
    }
  });
}

export function readPrivateKey(pem: string, passphrase: Secret | undefined): KeyObject {
  const [block] = /-----BEGIN [A-Z ]*PRIVATE KEY-----[^]*?-----END [A-Z ]*PRIVATE KEY-----/.exec(pem) ?? [];
  if (block === undefined) {
    throw broken('there is no private key in it', {
      hint: 'it has to be PEM: text with a line -----BEGIN PRIVATE KEY-----, or one like it',
    });
  }
  // OpenSSL takes no blank line inside the base64; the one after the headers of an old encrypted key it wants.
  const tidy = block.includes('Proc-Type:')
    ? block
    : block.replace(/\n\s*\n/g, '\n').replace(/^[ \t]+/gm, '');
  try {
    return createPrivateKey({ key: tidy, passphrase: passphrase?.reveal() ?? '' });
  } catch (cause) {
    const encrypted = block.includes('ENCRYPTED');
    if (encrypted && passphrase === undefined) {
      throw broken('the key is encrypted, and no passphrase is given', {
        cause,
        hint: 'name the file that holds it: --key-passphrase-file FILE',
      });
    }
    if (encrypted) {
      throw broken('the key cannot be decrypted: the passphrase is wrong', {
        cause,
        hint: 'the first line of the passphrase file counts, without its line break',
      });
    }
    const code = systemErrorCode(cause) ?? errorText(cause);
    throw broken(`the private key cannot be read (${code})`, {
      cause,
      hint: 'the base64 between its BEGIN and END lines is damaged; copy the file again',
    });
  }
}

/** From the device's own certificate upward, each signed by the next, as TLS wants them (RFC 8446, 4.4.2). */
function chainFrom(own: X509Certificate, all: readonly X509Certificate[]): X509Certificate[] {
  const chain = [own];
  for (;;) {
    const last = chain.at(-1) ?? own;
    const issuer = all.find((candidate) => !chain.includes(candidate) && last.checkIssued(candidate));
    if (issuer === undefined) return chain;
    chain.push(issuer);
  }
}

/** Node.js writes a line for each part. */
function subjectOf(certificate: X509Certificate | undefined): string {
  return (certificate?.subject ?? '').split('\n').join(',');
}

function broken(why: string, options: { hint?: string; cause?: unknown } = {}): AgentError {
  return new AgentError('config', why, options);
}
