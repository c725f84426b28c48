import { createPrivateKey, X509Certificate } from 'node:crypto';
import { beforeAll, describe, expect, test } from 'vitest';

import { makeCertificate, type CertificateAndKey } from '../../src/emulator/certificates.js';
import { AgentError } from '../../src/errors.js';
import { readClientCertificate } from '../../src/identity/certificate.js';
import { Secret } from '../../src/secret.js';

const now = Date.now();
let root: CertificateAndKey, intermediate: CertificateAndKey, device: CertificateAndKey;

beforeAll(async () => {
  root = await makeCertificate({ commonName: 'Root', usage: 'authority', now });
  intermediate = await makeCertificate({ commonName: 'Plant', usage: 'authority', issuer: root, now });
  device = await makeCertificate({
    commonName: 'dev1',
    usage: 'client',
    issuer: intermediate,
    now,
    days: 30,
  });
});

/** The common names of a chain, as it is shown to a hub. */
function namesIn(chain: string): string[] {
  return chain
    .split(/(?<=-----END CERTIFICATE-----\n)/)
    .map((pem) => new X509Certificate(pem).subject.replace('CN=', ''));
}

/** What it says of texts that it cannot use. */
function complaint(texts: Parameters<typeof readClientCertificate>[0]): string {
  try {
    readClientCertificate(texts);
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    expect(error.code).toBe('config');
    return error.message;
  }
  return 'nothing';
}

test('a chain is shown from the device upward, whatever its order in the file', () => {
  for (const order of [
    [device, intermediate, root],
    [root, intermediate, device],
    [intermediate, device, root],
  ]) {
    const certificates = order.map(({ certificate }) => certificate).join('\n');
    const read = readClientCertificate({ certificates, key: device.key });
    expect(namesIn(read.chain)).toEqual(['dev1', 'Plant', 'Root']);
  }
});

test('what the hub registers and when it ends is read from it', () => {
  const read = readClientCertificate({ certificates: device.certificate, key: device.key });
  const { fingerprint, fingerprint256, validTo } = new X509Certificate(device.certificate);
  expect(read).toMatchObject({
    subject: 'CN=dev1',
    expiresAt: Date.parse(validTo),
    thumbprints: {
      sha1: fingerprint.replaceAll(':', ''),
      sha256: fingerprint256.replaceAll(':', ''),
    },
  });
  expect(JSON.stringify(read)).not.toContain('PRIVATE KEY');
});

test('certificate and key may share a file, with words around them', () => {
  const both = `dev1, made by hand\n${device.key}\nsubject=CN = dev1\n${device.certificate}`;
  expect(readClientCertificate({ certificates: both, key: both }).subject).toBe('CN=dev1');
});

describe('what breaks TLS elsewhere', () => {
  const blankLines = (pem: string): string => pem.replace(/(.{40})/, '$1\n\n   ');
  const windows = (pem: string): string => pem.replaceAll('\n', '\r\n');
  test.each([
    ['blank lines and spaces in the base64', blankLines],
    ['line ends of Windows', windows],
    ['a byte order mark', (pem: string) => `\uFEFF${pem}`],
  ])('%s are forgiven', (_what, spoil) => {
    const read = readClientCertificate({ certificates: spoil(device.certificate), key: spoil(device.key) });
    expect(new X509Certificate(read.chain).subject).toBe('CN=dev1');
    expect(createPrivateKey(read.key.reveal()).asymmetricKeyType).toBe('ec');
  });
});

describe('an encrypted key', () => {
  const encrypted = (type: 'pkcs8' | 'sec1'): string =>
    createPrivateKey(device.key)
      .export({ type, format: 'pem', cipher: 'aes-256-cbc', passphrase: 'over the hills' })
      .toString();

  test.each(['pkcs8', 'sec1'] as const)('is opened with its passphrase: %s', (type) => {
    const texts = { certificates: device.certificate, key: encrypted(type) };
    const passphrase = new Secret('over the hills');
    expect(readClientCertificate({ ...texts, passphrase }).key.reveal()).toBe(device.key);
    expect(complaint(texts)).toBe('the key is encrypted, and no passphrase is given');
    expect(complaint({ ...texts, passphrase: new Secret('far far away') })).toBe(
      'the key cannot be decrypted: the passphrase is wrong',
    );
  });
});

test('what cannot be used is named', () => {
  const { certificate, key } = device;
  const damaged = certificate.replace(/(?<=\n)MII.{20}/, 'MIIxxxx');
  expect(complaint({ certificates: key, key })).toBe('there is no certificate in it');
  expect(complaint({ certificates: certificate, key: certificate })).toBe('there is no private key in it');
  expect(complaint({ certificates: `${root.certificate}${damaged}`, key })).toBe(
    'certificate 2 of 2 cannot be read',
  );
  expect(complaint({ certificates: certificate, key: key.replace(/MIG.{20}/, 'MIGxx') })).toMatch(
    /^the private key cannot be read/,
  );
  expect(complaint({ certificates: certificate, key: root.key })).toBe(
    'the key is not that of the certificate (CN=dev1)',
  );
  expect(complaint({ certificates: certificate + intermediate.certificate, key: root.key })).toBe(
    'the key is that of none of the 2 certificates (the first is CN=dev1)',
  );
});
