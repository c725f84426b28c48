import { generateKeyPair, webcrypto, type KeyObject } from 'node:crypto';
import { promisify } from 'node:util';

import { AgentError } from '../errors.js';
import type { Secret } from '../secret.js';

/** Kinds of keys that can be made. The hub takes all of them; EC P-256 is small and fast on any device. */
export const keyKinds = ['ec-p256', 'rsa-2048', 'rsa-3072', 'rsa-4096'] as const;
export type KeyKind = (typeof keyKinds)[number];

const generate = promisify(generateKeyPair);

/** A new private key. */
export async function newKey(kind: KeyKind): Promise<KeyObject> {
  const { privateKey } =
    kind === 'ec-p256'
      ? await generate('ec', { namedCurve: 'prime256v1' })
      : await generate('rsa', { modulusLength: Number(kind.slice('rsa-'.length)) });
  return privateKey;
}

/** PKCS#8 as PEM; with a passphrase encrypted (PBES2, AES-256). */
export function keyPem(key: KeyObject, passphrase?: Secret): string {
  const encryption =
    passphrase === undefined ? {} : { cipher: 'aes-256-cbc', passphrase: passphrase.reveal() };
  return key.export({ type: 'pkcs8', format: 'pem', ...encryption }).toString();
}

/** The key as the Web Crypto API has it, for signing, with the algorithm that it signs certificates with. */
export async function signingKey(key: KeyObject): Promise<{ key: webcrypto.CryptoKey; algorithm: Signing }> {
  const algorithm = signingAlgorithm(key);
  const der = key.export({ type: 'pkcs8', format: 'der' });
  return { key: await webcrypto.subtle.importKey('pkcs8', der, algorithm, false, ['sign']), algorithm };
}

interface Signing {
  name: string;
  hash: string;
  namedCurve?: string;
}

function signingAlgorithm({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject): Signing {
  if (asymmetricKeyType === 'rsa') return { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' };
  const curve = curves[asymmetricKeyDetails?.namedCurve ?? ''];
  if (asymmetricKeyType === 'ec' && curve !== undefined) return { name: 'ECDSA', ...curve };
  throw new AgentError(
    'data',
    `a key of type ${asymmetricKeyType ?? 'unknown'} cannot sign certificates here`,
    {
      hint: 'use an EC key (P-256, P-384, P-521) or an RSA key',
    },
  );
}

const curves: Record<string, { namedCurve: string; hash: string }> = {
  prime256v1: { namedCurve: 'P-256', hash: 'SHA-256' },
  secp384r1: { namedCurve: 'P-384', hash: 'SHA-384' },
  secp521r1: { namedCurve: 'P-521', hash: 'SHA-512' },
};
