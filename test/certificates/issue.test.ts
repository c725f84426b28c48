import { createPublicKey, X509Certificate, type KeyObject } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

import { issueCertificate, type CertificateToIssue } from '../../src/certificates/issue.js';
import { keyPem, newKey } from '../../src/certificates/keys.js';
import { writePkcs12 } from '../../src/certificates/pkcs12.js';
import { readPem } from '../../src/certificates/pem.js';
import { makeSigningRequest, readSigningRequest } from '../../src/certificates/signing-request.js';
import { Secret } from '../../src/secret.js';
import { Folder } from '../cli/tool.js';
import { hasOpenssl, openssl } from './openssl.js';

interface Issued {
  certificate: string;
  key: KeyObject;
}

const dayMs = 86_400_000;

async function issue(fields: Partial<CertificateToIssue> & { commonName: string }): Promise<Issued> {
  const key = fields.key ?? (await newKey('ec-p256'));
  const [validFrom, validUntil] = [Date.now() - dayMs, Date.now() + 30 * dayMs];
  return {
    certificate: await issueCertificate({ usage: 'client', validFrom, validUntil, key, ...fields }),
    key,
  };
}

describe.skipIf(!hasOpenssl)('issued certificates', () => {
  test.for(['client', 'server'] as const)(
    'a chain of a root, an intermediate and a %s passes openssl verify',
    async (usage) => {
      await using folder = await Folder.make();
      const root = await issue({ commonName: 'Root', usage: 'authority' });
      const line = await issue({ commonName: 'Line', usage: 'authority', pathLength: 0, issuer: root });
      const end = await issue({
        commonName: 'dev#1, "x"',
        usage,
        issuer: line,
        names: ['hub.local', '127.0.0.1'],
      });
      const ca = await folder.write('ca.pem', root.certificate);
      const untrusted = await folder.write('line.pem', line.certificate);
      const leaf = await folder.write('end.pem', end.certificate);
      const purpose = usage === 'client' ? 'sslclient' : 'sslserver';
      const good = openssl([
        'verify',
        '-x509_strict',
        '-purpose',
        purpose,
        '-CAfile',
        ca,
        '-untrusted',
        untrusted,
        leaf,
      ]);
      expect(good.text).toBe(`${leaf}: OK\n`);
      const other = usage === 'client' ? 'sslserver' : 'sslclient';
      expect(
        openssl(['verify', '-purpose', other, '-CAfile', ca, '-untrusted', untrusted, leaf]).text,
      ).toMatch(/unsuitable certificate purpose/);
      expect(openssl(['verify', '-CAfile', ca, leaf]).text).toMatch(/unable to get local issuer/);
      const text = openssl(['x509', '-in', leaf, '-noout', '-text']).text;
      expect(text).toMatch(/Signature Algorithm: ecdsa-with-SHA256/);
      expect(text).toMatch(/Basic Constraints: critical\s+CA:FALSE/);
      expect(text).toMatch(/DNS:hub.local, IP Address:127.0.0.1/);
      expect(text).toContain('CN = "dev#1, \\"x\\""');
    },
  );

  test('an authority below one that allows none (pathlen:0) is refused by openssl verify', async () => {
    await using folder = await Folder.make();
    const root = await issue({ commonName: 'Root', usage: 'authority' });
    const line = await issue({ commonName: 'Line', usage: 'authority', pathLength: 0, issuer: root });
    const below = await issue({ commonName: 'Below', usage: 'authority', issuer: line });
    const device = await issue({ commonName: 'dev1', issuer: below });
    const ca = await folder.write('ca.pem', root.certificate);
    const untrusted = await folder.write('lines.pem', line.certificate + below.certificate);
    const leaf = await folder.write('dev1.pem', device.certificate);
    const { ok, text } = openssl(['verify', '-CAfile', ca, '-untrusted', untrusted, leaf]);
    expect([ok, text]).toEqual([false, expect.stringMatching(/path length constraint exceeded/)]);
  });

  test('RSA keys sign and are signed', async () => {
    await using folder = await Folder.make();
    const root = await issue({ commonName: 'Root', usage: 'authority', key: await newKey('rsa-2048') });
    const server = await issue({
      commonName: 'hub',
      usage: 'server',
      issuer: root,
      key: await newKey('rsa-2048'),
    });
    const ca = await folder.write('ca.pem', root.certificate);
    const leaf = await folder.write('hub.pem', server.certificate);
    expect(openssl(['verify', '-x509_strict', '-purpose', 'sslserver', '-CAfile', ca, leaf]).text).toBe(
      `${leaf}: OK\n`,
    );
    expect(openssl(['x509', '-in', leaf, '-noout', '-text']).text).toMatch(
      /Digital Signature, Key Encipherment/,
    );
  });

  test('a key is encrypted with a passphrase, and openssl opens it with that alone', async () => {
    const key = await newKey('ec-p256');
    const pem = keyPem(key, new Secret('correct horse'));
    expect(pem).toMatch(/^-----BEGIN ENCRYPTED PRIVATE KEY-----/);
    expect(openssl(['pkey', '-passin', 'pass:correct horse', '-pubout'], pem).out.toString()).toBe(
      createPublicKey(key).export({ type: 'spki', format: 'pem' }),
    );
    expect(openssl(['pkey', '-passin', 'pass:wrong'], pem).ok).toBe(false);
  });

  test('a signing request passes openssl, and one of openssl is read; a forged one is not', async () => {
    const key = await newKey('ec-p256');
    const pem = await makeSigningRequest('dev1', key);
    expect(openssl(['req', '-verify', '-noout', '-subject'], pem)).toMatchObject({
      ok: true,
      text: expect.stringContaining('CN = dev1') as string,
    });
    const theirs = openssl([
      'req',
      '-new',
      '-newkey',
      'rsa:2048',
      '-nodes',
      '-keyout',
      '/dev/null',
      '-subj',
      '/O=Acme/CN=dev2',
      '-outform',
      'DER',
    ]).out;
    expect(await readSigningRequest(theirs)).toMatchObject({
      commonName: 'dev2',
      key: { asymmetricKeyType: 'rsa' },
    });
    const forged = Buffer.from(
      readPem(Buffer.from(pem)).blocks[0]!.der.toString('latin1').replace('dev1', 'dev2'),
      'latin1',
    );
    await expect(readSigningRequest(forged)).rejects.toMatchObject({
      code: 'data',
      message: /not signed with its own key/,
    });
    await expect(readSigningRequest(Buffer.from('nonsense'))).rejects.toMatchObject({ code: 'data' });
  });

  test.for(['correct horse', 'Grüße, 世界'])(
    'a PFX loads in openssl pkcs12 with its passphrase "%s" alone',
    async (passphrase) => {
      await using folder = await Folder.make();
      const root = await issue({ commonName: 'Root', usage: 'authority' });
      const device = await issue({ commonName: 'dev1', issuer: root, key: await newKey('rsa-2048') });
      const certificates = [device, root].map(({ certificate }) => new X509Certificate(certificate).raw);
      const pfx = writePkcs12({
        certificates,
        key: device.key,
        name: 'dev1',
        passphrase: new Secret(passphrase),
      });
      const file = join(folder.path, 'dev1.pfx');
      await writeFile(file, pfx);
      const opened = openssl(['pkcs12', '-in', file, '-passin', `pass:${passphrase}`, '-nodes', '-info']);
      expect(opened.ok, opened.text).toBe(true);
      expect(opened.text).toMatch(/MAC: sha256, Iteration 10000/);
      expect(opened.text).toMatch(/friendlyName: dev1/);
      const { blocks } = readPem(opened.out);
      expect(blocks.filter(({ label }) => label === 'CERTIFICATE').map(({ der }) => der)).toEqual(
        certificates,
      );
      expect(openssl(['pkey', '-pubout'], opened.out).out.toString()).toBe(
        createPublicKey(device.key).export({ type: 'spki', format: 'pem' }),
      );
      expect(openssl(['pkcs12', '-in', file, '-passin', 'pass:wrong', '-nodes']).text).toMatch(
        /invalid password/,
      );
    },
  );
});
