import { AgentError } from '../../../errors.js';
import type { Io } from '../../io.js';
import { createPrinter, table } from '../../output.js';
import { certificatesOf, thumbprintsOf } from '../../pem-files.js';
import type { ThumbprintFlags } from '../cert.js';

/** `cert thumbprint`: both, or the one that was asked for. */
export async function printThumbprints(io: Io, file: string, flags: ThumbprintFlags): Promise<void> {
  const [certificate] = await certificatesOf(file);
  if (certificate === undefined) throw new AgentError('data', `there is no certificate in ${file}`);
  const { sha1, sha256 } = thumbprintsOf(certificate);
  const one = flags.sha1 === true ? sha1 : flags.sha256 === true ? sha256 : undefined;
  if (one !== undefined) {
    // For a script, whatever the format.
    await io.stdout.write(`${one}\n`);
    return;
  }
  await createPrinter(io, flags).print({
    json: () => JSON.stringify({ sha1, sha256 }),
    text: () =>
      table([
        ['SHA-1', sha1],
        ['SHA-256', sha256],
      ]),
  });
}
