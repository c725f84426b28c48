import type { KeyObject } from 'node:crypto';

import { keyPem, newKey } from '../../../certificates/keys.js';
import { makeSigningRequest } from '../../../certificates/signing-request.js';
import { AgentError } from '../../../errors.js';
import type { Io } from '../../io.js';
import { writeNewFiles } from '../../new-files.js';
import { passphraseOf, privateKeyOf } from '../../pem-files.js';
import type { RequestFlags } from '../cert.js';

/** `cert csr`: prints the request, or writes it into a file. */
export async function requestCertificate(io: Io, commonName: string, flags: RequestFlags): Promise<void> {
  const { out, force = false } = flags;
  const pem = await makeSigningRequest(commonName, await keyFor(flags));
  if (out === undefined) await io.stdout.write(pem);
  else await writeNewFiles([{ path: out, content: pem, isSecret: false }], { force });
}

/** The key that is there, or a new one. One that is there is never replaced. */
async function keyFor({ key: path, keyPassphraseFile, rsa }: RequestFlags): Promise<KeyObject> {
  try {
    return await privateKeyOf(path, keyPassphraseFile);
  } catch (error) {
    if (!(error instanceof AgentError) || error.code !== 'no-input') throw error;
  }
  const passphrase = await passphraseOf(keyPassphraseFile);
  const key = await newKey(rsa === undefined ? 'ec-p256' : rsa === true ? 'rsa-2048' : `rsa-${rsa}`);
  await writeNewFiles([{ path, content: keyPem(key, passphrase), isSecret: true }], {});
  return key;
}
