import 'reflect-metadata';

import type { X509Certificate } from 'node:crypto';

import * as x509 from '@peculiar/x509';

import { visible } from '../../../visible.js';
import type { Io } from '../../io.js';
import { jsonOnOneLine } from '../../json-text.js';
import { createPrinter, table } from '../../output.js';
import { certificatesOf, oneLine, thumbprintsOf } from '../../pem-files.js';
import type { ShowFlags } from '../cert.js';
import { needed } from './needed.js';

/** `cert show`: one after the other, as they stand in the file. */
export async function showCertificates(io: Io, file: string | undefined, flags: ShowFlags): Promise<void> {
  const printer = createPrinter(io, flags);
  for (const [n, certificate] of (await certificatesOf(needed(file))).entries()) {
    const facts = factsOf(certificate);
    await printer.print({
      json: () => jsonOnOneLine(JSON.stringify(facts)),
      text: () => {
        const rows = Object.entries(facts).flatMap(([name, value]) =>
          value === undefined ? [] : [[name, visible(value)] as const],
        );
        return `${n === 0 ? '' : '\n'}${table(rows)}`;
      },
    });
  }
}

function factsOf(certificate: X509Certificate): Record<string, string | undefined> {
  const { subject, issuer, validFrom, validTo, serialNumber, subjectAltName } = certificate;
  const parsed = new x509.X509Certificate(new Uint8Array(certificate.raw));
  const constraints = parsed.getExtension(x509.BasicConstraintsExtension);
  const { pathLength } = constraints ?? {};
  const uses = parsed.getExtension(x509.ExtendedKeyUsageExtension)?.usages.map(useOf);
  return {
    subject: oneLine(subject),
    issuer: subject === issuer ? 'itself' : oneLine(issuer),
    validFrom: new Date(validFrom).toISOString(),
    expires: new Date(validTo).toISOString(),
    key: keyOf(certificate),
    authority:
      constraints?.ca === true
        ? pathLength === undefined
          ? 'yes'
          : `pathlen:${String(pathLength)}`
        : undefined,
    for: uses?.join(', '),
    names: subjectAltName,
    serial: serialNumber,
    ...thumbprintsOf(certificate),
  };
}

function keyOf({ publicKey: { asymmetricKeyType, asymmetricKeyDetails } }: X509Certificate): string {
  const { namedCurve, modulusLength } = asymmetricKeyDetails ?? {};
  const size = namedCurve ?? (modulusLength === undefined ? '' : String(modulusLength));
  return `${asymmetricKeyType ?? 'unknown'} ${size}`.trim();
}

function useOf(oid: x509.ExtendedKeyUsageType): string {
  if (oid === x509.ExtendedKeyUsage.clientAuth) return 'client';
  return oid === x509.ExtendedKeyUsage.serverAuth ? 'server' : String(oid);
}
