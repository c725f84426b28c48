import type { KeyObject, X509Certificate } from 'node:crypto';

import * as x509 from '@peculiar/x509';

import { AgentError } from '../../../errors.js';

/** An authority that may sign. */
export interface Issuer {
  file: string;
  certificate: X509Certificate;
  key: KeyObject;
  /** What leads from it towards the root, itself first, without the root. */
  chain: readonly X509Certificate[];
}

/**
 * The path length of an authority below this one: what was asked for, if it may be had. Errors: `data` when no authority
 * may stand below it.
 */
export function allowedBelow({ file, certificate }: Issuer, wanted: number | undefined): number | undefined {
  const parsed = new x509.X509Certificate(new Uint8Array(certificate.raw));
  const limit = parsed.getExtension(x509.BasicConstraintsExtension)?.pathLength;
  if (limit === undefined) return wanted;
  if (limit === 0) {
    throw new AgentError('data', `${file} may sign no further authority (pathlen:0)`, {
      hint: 'name the one above it with --issuer, or make it anew with a higher --path-length',
    });
  }
  return Math.min(limit - 1, wanted ?? Infinity);
}
