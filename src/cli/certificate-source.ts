import type { CertificateConfig } from '../daemon/config-hub.js';
import type { SecretSource } from '../daemon/config-secret.js';
import { AgentError } from '../errors.js';
import type { ClientCertificate } from '../identity/certificate.js';
import { Secret } from '../secret.js';
import { readSecret } from './identity-source.js';
import type { Io } from './io.js';
import { readSmallFile } from './small-file.js';

/** The certificate of a device, which is read anew for every connection: it is renewed on disk. */
export interface CertificatePlace {
  /** Errors: `config`, `no-input`, `io`; each names the file. */
  read: () => Promise<ClientCertificate>;
  /** How long before it expires people are told. */
  warnBeforeMs: number;
}

const defaultWarnBeforeMs = 30 * 86_400_000;

export function certificatePlace(
  io: Pick<Io, 'env'>,
  said: Omit<CertificateConfig, 'warnBeforeMs'> & {
    warnBeforeMs?: number | undefined;
    insecurePermissions: boolean;
  },
): CertificatePlace {
  const { file, insecurePermissions, warnBeforeMs = defaultWarnBeforeMs } = said;
  const key = remembered(said.key ?? { from: 'file', path: file });
  const passphrase = said.passphrase && remembered(said.passphrase);

  return {
    warnBeforeMs,
    async read() {
      const { readClientCertificate } = await import('../identity/certificate.js');
      const certificates = await readSmallFile(file, 'the certificate');
      const { text, from } = await key('the private key of the device');
      const phrase = passphrase && firstLine((await passphrase('the passphrase of the key')).text);
      try {
        return readClientCertificate({ certificates, key: text, passphrase: phrase });
      } catch (error) {
        if (!(error instanceof AgentError)) throw error;
        const where = from === file ? file : `${file} and ${from}`;
        throw new AgentError(error.code, `${where}: ${error.message}`, {
          hint: error.hint,
          cause: error.cause,
        });
      }
    },
  };

  /** A variable is gone from the environment once it is read. */
  function remembered(source: SecretSource) {
    let inMemory: Awaited<ReturnType<typeof readSecret>> | undefined;
    return async (what: string) => {
      const found = inMemory ?? (await readSecret(io, source, { what, insecurePermissions }));
      if (source.from === 'env') inMemory = found;
      return found;
    };
  }
}

function firstLine(text: string): Secret {
  return new Secret(text.replace(/\r?\n[^]*$/, ''));
}
