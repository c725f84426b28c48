import { connect, type DetailedPeerCertificate } from 'node:tls';
import { isIP } from 'node:net';

import { rejectionOf } from '../signals.js';
import { toAgentError } from './errors.js';
import type { Endpoint } from './socket.js';

/** A certificate that a server shows, as people need it to say what is wrong with it. */
export interface ShownCertificate {
  /** `CN=localhost`. */
  subject: string;
  issuer: string;
  /** DNS names and addresses that it is for. */
  names: readonly string[];
  /** Milliseconds since the epoch. */
  validFrom: number;
  validTo: number;
  /** SHA-256 of it, in hex with colons. */
  fingerprint: string;
}

/**
 * What a server shows for a certificate, trusted or not, and those that signed it as far as they are known; the
 * server's own is the first. Not a byte is sent to it but those of the handshake.
 */
export async function shownCertificates(
  { host, port, serverName = host }: Endpoint,
  signal: AbortSignal,
): Promise<ShownCertificate[]> {
  signal.throwIfAborted();
  const socket = connect({
    ...{ host, port, minVersion: 'TLSv1.2' },
    ...(isIP(serverName) === 0 ? { servername: serverName } : {}),
    // To look at it is all that is done here: nothing is said to a server, nor believed, that is not trusted.
    rejectUnauthorized: false,
  });
  try {
    const greeted = new Promise<void>((resolve, reject) => {
      socket.once('secureConnect', resolve).on('error', reject);
    });
    await Promise.race([greeted, rejectionOf(signal)]);
    return chainOf(socket.getPeerCertificate(true));
  } catch (error) {
    throw toAgentError(error, { host, port });
  } finally {
    socket.destroy();
  }
}

/** A certificate with those above it, up to the one that signed itself. */
export function chainOf(certificate: DetailedPeerCertificate): ShownCertificate[] {
  const chain: ShownCertificate[] = [];
  let at: DetailedPeerCertificate | undefined = certificate;
  while (at !== undefined && Object.keys(at).length > 0 && chain.length < longestChain) {
    chain.push(shown(at));
    const above: DetailedPeerCertificate | undefined = at.issuerCertificate;
    at = above === at ? undefined : above;
  }
  return chain;
}

const longestChain = 10;

function shown(certificate: DetailedPeerCertificate): ShownCertificate {
  const { subject, issuer, subjectaltname = '', valid_from: from, valid_to: to } = certificate;
  return {
    subject: nameText(subject),
    issuer: nameText(issuer),
    names: subjectaltname
      .split(', ')
      .map((name) => name.replace(/^(DNS|IP Address):/, ''))
      .filter((name) => name !== ''),
    validFrom: Date.parse(from),
    validTo: Date.parse(to),
    fingerprint: certificate.fingerprint256,
  };
}

/** The common name, which people know it by; all of it when there is none. */
function nameText(name: object): string {
  const parts = name as Record<string, string | string[] | undefined>;
  const common = [parts['CN']].flat()[0];
  if (common !== undefined) return common;
  return Object.entries(parts)
    .map(([key, value]) => `${key}=${[value].flat().join('+')}`)
    .join(', ');
}
