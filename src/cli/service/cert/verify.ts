import type { X509Certificate } from 'node:crypto';

import { examine, type Remark } from '../../../certificates/examine.js';
import { visible } from '../../../visible.js';
import { exitCodes } from '../../exit-codes.js';
import type { Io } from '../../io.js';
import { jsonOnOneLine } from '../../json-text.js';
import { createPrinter, type Printable } from '../../output.js';
import { certificatesOf, openPem, passphraseOf } from '../../pem-files.js';
import { readSmallFile } from '../../small-file.js';
import type { VerifyFlags } from '../cert.js';

const usages = { device: 'client', server: 'server', ca: 'authority' } as const;

/** `cert verify`: prints a line for each remark, and one that says so when nothing is wrong. */
export async function verifyFile(io: Io, file: string, flags: VerifyFlags): Promise<void> {
  const { device, host, at = Date.now(), warn, key, keyPassphraseFile } = flags;
  const use = flags.for ?? (device === undefined ? (host === undefined ? undefined : 'server') : 'device');
  const remarks = examine(await openPem(file, 'the certificate'), {
    ...{ now: at, warnBeforeMs: warn, commonName: device, hostName: host },
    authorities: await authoritiesOf(flags.ca),
    usage: use && usages[use],
    key:
      key === undefined
        ? undefined
        : { pem: await readSmallFile(key, 'the key'), passphrase: await passphraseOf(keyPassphraseFile) },
  });
  const printer = createPrinter(io, flags);
  for (const remark of remarks) await printer.print(remarkLine(file, remark));
  if (remarks.some(({ level }) => level === 'wrong')) io.exitCode = exitCodes.data;
  else await printer.print(remarkLine(file, { level: 'ok', text: 'nothing is wrong with it' }));
}

async function authoritiesOf(files: readonly string[] | undefined): Promise<X509Certificate[] | undefined> {
  if (files === undefined) return undefined;
  return (await Promise.all(files.map(certificatesOf))).flat();
}

/** `{"file":"dev1.pem","line":4,"level":"wrong","text":"…"}`; for people as compilers write it. */
function remarkLine(
  file: string,
  { level, line, text }: Omit<Remark, 'level'> & { level: Remark['level'] | 'ok' },
): Printable {
  return {
    json: () => jsonOnOneLine(JSON.stringify({ file, line, level, text })),
    text: () => visible(`${file}${line === undefined ? '' : `:${String(line)}`}: ${level}: ${text}`),
  };
}
