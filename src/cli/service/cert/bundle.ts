import { join } from 'node:path';

import { keyPem } from '../../../certificates/keys.js';
import { AgentError } from '../../../errors.js';
import { visible } from '../../../visible.js';
import type { Io } from '../../io.js';
import { writeNewFiles, type NewFile } from '../../new-files.js';
import { createPrinter } from '../../output.js';
import { certificatesOf, passphraseOf, privateKeyOf } from '../../pem-files.js';
import type { BundleFlags } from '../cert.js';

/** `cert bundle`: certificate, chain and key in the form that somebody wants them in. */
export async function writeBundle(io: Io, name: string, flags: BundleFlags): Promise<void> {
  const { dir, format, as = name, force } = flags;
  const certificates = await certificatesOf(join(dir, `${name}.pem`));
  const keyFile = join(dir, `${name}.key`);
  const key = await privateKeyOf(keyFile, flags.keyPassphraseFile);
  const [own] = certificates;
  if (own?.checkPrivateKey(key) !== true)
    throw new AgentError('data', `${keyFile} is not the key of the first certificate in ${name}.pem`);
  const passphrase = await passphraseOf(flags.passphraseFile);
  const files = await filesOf();
  await writeNewFiles(files, { force });
  for (const { path } of files) {
    await createPrinter(io, flags).print({
      json: () => JSON.stringify({ file: path }),
      text: () => visible(path),
    });
  }

  async function filesOf(): Promise<NewFile[]> {
    const base = join(dir, as);
    switch (format) {
      case 'pem': {
        const content = certificates.map(String).join('') + keyPem(key, passphrase);
        return [{ path: `${base}.bundle.pem`, content, isSecret: true }];
      }
      case 'der': {
        if (passphrase !== undefined) throw new AgentError('usage', 'DER is written without a passphrase');
        const content = key.export({ type: 'pkcs8', format: 'der' });
        return [
          { path: `${base}.key.der`, content, isSecret: true },
          { path: `${base}.der`, content: own?.raw ?? Buffer.alloc(0), isSecret: false },
        ];
      }
      case 'pfx': {
        if (passphrase === undefined) {
          throw new AgentError('usage', 'a PFX needs a passphrase', {
            hint: 'name a file with --passphrase-file',
          });
        }
        const { writePkcs12 } = await import('../../../certificates/pkcs12.js');
        const content = writePkcs12({
          certificates: certificates.map(({ raw }) => raw),
          key,
          name,
          passphrase,
        });
        return [{ path: `${base}.pfx`, content, isSecret: true }];
      }
    }
  }
}
