import { X509Certificate, type KeyObject } from 'node:crypto';
import { beforeAll, describe, expect, test } from 'vitest';

import { examine, type Expectations, type Remark } from '../../src/certificates/examine.js';
import { issueCertificate, type CertificateToIssue } from '../../src/certificates/issue.js';
import { keyPem, newKey } from '../../src/certificates/keys.js';
import { makeSigningRequest } from '../../src/certificates/signing-request.js';
import { readPem } from '../../src/certificates/pem.js';
import { Secret } from '../../src/secret.js';
import { hasOpenssl, openssl } from './openssl.js';

const dayMs = 86_400_000;
const now = Date.now();
let key: KeyObject;
let root: string, line: string, device: string, chain: string;

async function issue(fields: Partial<CertificateToIssue> & { commonName: string }): Promise<string> {
  const validity = { validFrom: now - dayMs, validUntil: now + 90 * dayMs };
  // One key for all: the names alone make the chain here.
  return issueCertificate({ usage: 'client', key, ...validity, ...fields });
}

beforeAll(async () => {
  key = await newKey('ec-p256');
  root = await issue({ commonName: 'Root', usage: 'authority' });
  line = await issue({
    commonName: 'Line',
    usage: 'authority',
    pathLength: 0,
    issuer: { certificate: root, key },
  });
  device = await issue({ commonName: 'dev1', issuer: { certificate: line, key } });
  chain = device + line;
});

function remarks(text: string | Buffer, expected: Partial<Expectations> = {}): Remark[] {
  const authorities = [new X509Certificate(root)];
  return examine(readPem(Buffer.from(text)), { now, warnBeforeMs: 30 * dayMs, authorities, ...expected });
}

/** The lines of what is wrong, as `4: text`. */
function wrong(text: string | Buffer, expected: Partial<Expectations> = {}): string[] {
  return remarks(text, expected)
    .filter(({ level }) => level === 'wrong')
    .map(({ line: at, text: what }) => `${at ?? '-'}: ${what}`);
}

test('of a chain that is right there is nothing to say', () => {
  expect(remarks(chain, { usage: 'client', commonName: 'dev1', key: { pem: keyPem(key) } })).toEqual([]);
  expect(remarks(chain, { authorities: undefined })).toMatchObject([
    { level: 'note', text: /leads to CN=Root/ },
  ]);
});

describe('a file that cannot be read is explained by its line, where OpenSSL says "no start line"', () => {
  const lines = (): string[] => device.trimEnd().split('\n');
  const changed = (n: number, to: string): string =>
    lines()
      .with(n - 1, to)
      .join('\n');
  const cases: [name: string, text: () => string | Buffer, says: RegExp][] = [
    ['a blank line', () => changed(4, `\n${lines()[3]!}`), /^4: a blank line inside of the CERTIFICATE$/],
    ['spaces before BEGIN', () => ` ${device}`, /^1: spaces before BEGIN/],
    ['four dashes', () => device.replace('-----BEGIN', '----BEGIN'), /^1: BEGIN has five dashes/],
    [
      'no END',
      () => lines().slice(0, -1).join('\n'),
      /^\d+: the CERTIFICATE that begins in line 1 has no END line/,
    ],
    [
      'another END',
      () => device.replace('END CERTIFICATE', 'END PRIVATE KEY'),
      /^\d+: BEGIN CERTIFICATE \(line 1\) ends with END PRIVATE KEY/,
    ],
    [
      'a character that is none of base64',
      () => changed(3, `${lines()[2]!.slice(0, 10)}#${lines()[2]!.slice(11)}`),
      /^3: "#" is not base64$/,
    ],
    [
      'no line break between two',
      () => device.trimEnd() + line,
      /^\d+: something follows END on the same line/,
    ],
    [
      'a BEGIN too many',
      () => `-----BEGIN CERTIFICATE-----\n${device}`,
      /^2: the CERTIFICATE that begins in line 1 has no END line/,
    ],
    ['UTF-16', () => Buffer.from(`\ufeff${device}`, 'utf16le'), /^-: the file is UTF-16/],
    ['DER', () => readPem(Buffer.from(device)).blocks[0]!.der, /^-: the file is DER or PFX, not PEM/],
    ['nothing', () => '', /^-: the file is empty/],
    ['no PEM', () => 'hello', /^-: there is no certificate in it/],
    ['a damaged certificate', () => changed(2, 'AAAA'), /^1: this certificate is damaged/],
    ['a key', () => keyPem(key), /^1: a private key where a certificate is wanted/],
  ];

  test.for(cases)('%s', ([, text, says]) => {
    expect(wrong(text())[0]).toMatch(says);
    if (!hasOpenssl) return;
    // And OpenSSL does not take it, with less to say.
    expect(openssl(['x509', '-noout'], Buffer.from(text()))).toMatchObject({
      ok: Buffer.isBuffer(text()) && says.source.includes('DER'),
    });
  });

  const forgiven: [name: string, text: () => string, says: RegExp | undefined][] = [
    ['line ends of Windows', () => device.replaceAll('\n', '\r\n'), undefined],
    ['no line break at the end', () => device.trimEnd(), undefined],
    ['text before and after', () => `subject=/CN=dev1\n${device}\nthe end\n`, undefined],
    ['an END too many', () => `-----END CERTIFICATE-----\n${device}`, /END CERTIFICATE without a BEGIN/],
    ['a byte order mark', () => `\ufeff${device}`, /byte order mark/],
    ['a blank line behind BEGIN', () => changed(1, `${lines()[0]!}\n`), /blank line/],
    ['spaces at the beginning of a line', () => changed(3, `  ${lines()[2]!}`), /spaces at the beginning/],
    ['spaces at the end of lines', () => device.replaceAll('\n', '  \n'), undefined],
  ];

  test.for(forgiven)('%s: no error, because OpenSSL takes it', ([, text, says]) => {
    expect(wrong(text(), { authorities: undefined })).toEqual([]);
    const warnings = remarks(text(), { authorities: undefined }).filter(({ level }) => level === 'warn');
    if (says === undefined) expect(warnings).toEqual([]);
    else expect(warnings[0]?.text).toMatch(says);
    if (hasOpenssl) expect(openssl(['x509', '-noout'], text()).ok).toBe(true);
  });
});

test('a signing request where a certificate is wanted', async () => {
  expect(wrong(await makeSigningRequest('dev1', key))).toEqual([
    '1: a signing request, which an authority has to sign first, where a certificate is wanted',
  ]);
});

test('the order, a missing intermediate, and what has nothing to do with it', async () => {
  const behind = device.split('\n').length;
  expect(wrong(line + device)).toEqual([
    expect.stringMatching(/^\d+: out of order: CN=dev1 has to come first/),
  ]);
  expect(wrong(device)).toEqual([
    '1: an intermediate is missing: CN=Line, which signed CN=dev1, is neither in the file nor an authority of --ca',
  ]);
  expect(wrong(device + root + line)).toEqual([expect.stringMatching(/out of order/)]);
  expect(remarks(root)).toEqual([]);
  expect(remarks(root, { authorities: undefined })).toMatchObject([{ level: 'note', text: /^a root/ }]);
  const other = await issue({ commonName: 'Other', usage: 'authority' });
  expect(wrong(other)).toEqual(['1: CN=Other is a root that --ca does not have']);
  expect(remarks(chain + other)).toMatchObject([
    { level: 'warn', text: 'CN=Other has nothing to do with the chain' },
  ]);
  expect(remarks(device + device + line)).toMatchObject([
    { level: 'warn', line: behind, text: 'CN=dev1 is there twice' },
  ]);
  expect(remarks(chain + root)).toMatchObject([{ level: 'note', text: /CN=Root is the root/ }]);
});

test('an issuer that did not sign, may not sign, or may not have signed an authority', async () => {
  const twin = await newKey('ec-p256');
  const forged = await issue({ commonName: 'dev1', issuer: { certificate: line, key: twin } });
  expect(wrong(forged + line)).toEqual([
    expect.stringMatching(/CN=Line as its issuer, but that has not signed it/),
  ]);
  const below = await issue({ commonName: 'dev2', issuer: { certificate: device, key } });
  expect(wrong(below + chain)).toContainEqual(expect.stringMatching(/CN=dev1 is no authority/));
  const further = await issue({
    commonName: 'Further',
    usage: 'authority',
    issuer: { certificate: line, key },
  });
  const dev3 = await issue({ commonName: 'dev3', issuer: { certificate: further, key } });
  expect(wrong(dev3 + further + line)).toEqual([
    expect.stringMatching(
      /^\d+: CN=Line allows no further authority below it \(pathlen:0\), and there are 1$/,
    ),
  ]);
});

test('time: expired, not valid yet, soon', () => {
  expect(wrong(chain, { now: now + 91 * dayMs })).toContainEqual(
    expect.stringMatching(/^1: CN=dev1 has expired, at \d{4}-/),
  );
  expect(wrong(chain, { now: 0 })).toContainEqual(
    expect.stringMatching(/^1: CN=dev1 is not valid before .*; the clock here says 1970-01-01T00:00:00Z$/),
  );
  expect(remarks(chain, { now: now + 70 * dayMs })[0]).toMatchObject({
    level: 'warn',
    line: 1,
    text: /expires soon/,
  });
});

test('what it is for', async () => {
  expect(wrong(chain, { usage: 'server' })).toEqual(['1: it is not for a server (extendedKeyUsage)']);
  expect(wrong(chain, { commonName: 'dev2' })).toEqual([
    '1: its common name is "dev1"; the hub wants the id of the device, "dev2"',
  ]);
  expect(wrong(line, { usage: 'client' })).toContain(
    '1: it is an authority, not the certificate of a client',
  );
  const server = await issue({
    commonName: 'hub',
    usage: 'server',
    names: ['hub.local', '10.0.0.1'],
    issuer: { certificate: line, key },
  });
  expect(wrong(server + line, { usage: 'server', hostName: 'hub.local' })).toEqual([]);
  expect(wrong(server + line, { hostName: '10.0.0.1' })).toEqual([]);
  expect(wrong(server + line, { hostName: 'other' })).toEqual([
    '1: it is not for the host other, but for DNS:hub.local, IP Address:10.0.0.1',
  ]);
});

test('keys: of another, encrypted, damaged; one in the same file is looked at unasked', async () => {
  const other = keyPem(await newKey('ec-p256'));
  expect(wrong(chain, { key: { pem: other } })).toEqual(['1: the key is not that of the certificate']);
  expect(wrong(chain + other)).toEqual(['1: the key is not that of the certificate']);
  expect(wrong(chain + keyPem(key))).toEqual([]);
  const passphrase = new Secret('correct horse');
  const encrypted = keyPem(key, passphrase);
  expect(wrong(chain, { key: { pem: encrypted, passphrase } })).toEqual([]);
  expect(wrong(chain, { key: { pem: encrypted } })).toEqual([
    '-: the key cannot be used: the key is encrypted, and no passphrase is given',
  ]);
  expect(wrong(chain, { key: { pem: chain } })).toEqual([
    '-: the key cannot be used: there is no private key in it',
  ]);
});

test.skipIf(!hasOpenssl)('weak ones: 1024 bits, SHA-1', () => {
  const weak = openssl([
    'req',
    '-x509',
    '-newkey',
    'rsa:1024',
    '-sha1',
    '-nodes',
    '-keyout',
    '/dev/null',
    '-subj',
    '/CN=old',
    '-days',
    '90',
  ]).out;
  const said = wrong(weak, { authorities: undefined });
  expect(said).toContainEqual(expect.stringMatching(/1024 bits is too weak/));
  expect(said).toContainEqual(expect.stringMatching(/SHA-1/));
});
