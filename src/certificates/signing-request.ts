import 'reflect-metadata';

import { createPublicKey, webcrypto, type KeyObject } from 'node:crypto';

import * as x509 from '@peculiar/x509';

import { AgentError } from '../errors.js';
import { nameOf } from './issue.js';
import { signingKey } from './keys.js';

/** A request for a certificate (PKCS#10), signed with the key that it is for, as PEM. */
export async function makeSigningRequest(commonName: string, key: KeyObject): Promise<string> {
  x509.cryptoProvider.set(webcrypto as never);
  const { algorithm, key: privateKey } = await signingKey(key);
  const spki = createPublicKey(key).export({ type: 'spki', format: 'der' });
  const publicKey = await webcrypto.subtle.importKey('spki', spki, algorithm, true, ['verify']);
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: nameOf(commonName),
    keys: { privateKey, publicKey } as never,
    signingAlgorithm: algorithm,
  });
  return `${request.toString('pem')}\n`;
}

/**
 * What a request asks for. Only its name and its key count: what else it wants is for the authority to decide. Errors:
 * `data` when it cannot be read, or is not signed with the key that it names.
 */
export async function readSigningRequest(der: Buffer): Promise<{ commonName: string; key: KeyObject }> {
  x509.cryptoProvider.set(webcrypto as never);
  const request = parsed(der);
  if (!(await request.verify().catch(() => false))) {
    throw new AgentError('data', 'the signing request is not signed with its own key');
  }
  const [commonName] = request.subjectName.getField('CN');
  if (commonName === undefined) throw new AgentError('data', 'the signing request has no common name');
  const spki = Buffer.from(request.publicKey.rawData);
  return { commonName, key: createPublicKey({ key: spki, type: 'spki', format: 'der' }) };
}

function parsed(der: Buffer): x509.Pkcs10CertificateRequest {
  try {
    return new x509.Pkcs10CertificateRequest(new Uint8Array(der));
  } catch (cause) {
    throw new AgentError('data', 'the signing request cannot be read', { cause });
  }
}
