import type { PeerCertificate } from 'node:tls';

import type { Meaning } from './errors.js';

/** What is known of a TLS handshake that failed. */
export interface TlsFacts {
  /** Whom the certificate has to name. */
  serverName: string;
  /** What the peer showed; undefined when it did not come to that. */
  shown: PeerCertificate | undefined;
  /** By the clock of this machine, milliseconds since the epoch. */
  now: number;
}

/** What a failure of TLS means, by its code and its text; undefined when it is none. */
export function tlsMeaning(code: string, text: string, facts?: TlsFacts): Meaning | undefined {
  const known = verification[code];
  if (known !== undefined) return known(facts);
  if (/too weak|too small/.test(text)) {
    return {
      ...distrust,
      text: `${untrusted}: ${text.toLowerCase()}, as SHA-1 and short keys are`,
      hint: 'it has to be signed with SHA-256 or better, all of its chain',
    };
  }
  if (code.startsWith('ERR_SSL_') || code === 'EPROTO') return alertMeaning(`${code} ${text}`);
  return isVerification(code) ? { ...distrust, text: `${untrusted}: ${text}`, hint: ownHub } : undefined;
}

const distrust = { code: 'protocol', retry: 'late' } as const;
const untrusted = 'shows a certificate that is not trusted';
const ownHub = 'a hub of your own needs its CA: --ca FILE';
const clockMayBeWrong = "check this machine's clock, then the certificate of the hub";

/** By the codes that Node.js gives to what OpenSSL finds wrong with a certificate. */
const verification: Record<string, (facts: TlsFacts | undefined) => Meaning> = {
  CERT_HAS_EXPIRED: (facts) => ({
    ...distrust,
    text: `shows an expired certificate${expiredText(facts)}`,
    hint: clockMayBeWrong,
  }),
  CERT_NOT_YET_VALID: (facts) => ({
    ...distrust,
    text: `shows a certificate that is not valid yet${notYetText(facts)}`,
    hint: clockMayBeWrong,
  }),
  ERR_TLS_CERT_ALTNAME_INVALID: (facts) => ({
    ...distrust,
    text: `shows a certificate for another name${namesText(facts)}`,
    hint: 'check HostName in the connection string',
  }),
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: unknownIssuer,
  UNABLE_TO_GET_ISSUER_CERT: unknownIssuer,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: unknownIssuer,
  SELF_SIGNED_CERT_IN_CHAIN: () => ({
    ...distrust,
    text: `${untrusted}: it leads to an authority that is not known here`,
    hint: `${ownHub}\nwhere a firewall looks into TLS, it is the authority of the firewall`,
  }),
  DEPTH_ZERO_SELF_SIGNED_CERT: () => ({ ...distrust, text: `${untrusted}: it signed itself`, hint: ownHub }),
};

function unknownIssuer(facts: TlsFacts | undefined): Meaning {
  return {
    ...distrust,
    text: `${untrusted}: its issuer${issuerText(facts)} is neither sent along nor known here`,
    hint: 'an intermediate certificate is missing there; or it is a hub of your own, which needs its CA: --ca FILE',
  };
}

/** By names, as OpenSSL gives them to what a peer says in an alert (RFC 8446, 6) and to what it does wrong. */
function alertMeaning(said: string): Meaning | undefined {
  if (/ALERT_PROTOCOL_VERSION|alert protocol version|UNSUPPORTED_PROTOCOL/.test(said)) {
    return {
      ...distrust,
      text: 'speaks no TLS 1.2 or later',
      hint: 'older versions are not safe; something very old stands there, or in between',
    };
  }
  if (said.includes('ALERT_CERTIFICATE_REQUIRED')) {
    return {
      ...{ code: 'refused', retry: 'late', text: 'wants a certificate of this device' },
      hint: 'name it with --cert FILE --key FILE',
    };
  }
  if (/ALERT_(BAD_CERTIFICATE|UNKNOWN_CA|CERTIFICATE_|UNSUPPORTED_CERTIFICATE|ACCESS_DENIED)/.test(said)) {
    return {
      ...{ code: 'refused', retry: 'late', text: 'refused the certificate of this device' },
      hint: 'it may have expired or been revoked, or the hub does not know the authority that signed it',
    };
  }
  if (said.includes('HANDSHAKE_FAILURE')) {
    return {
      ...distrust,
      text: 'ended the TLS handshake',
      hint: 'it may want a certificate of this device (--cert FILE --key FILE), or know none of the ciphers',
    };
  }
  if (/WRONG_VERSION_NUMBER|wrong version number|^EPROTO|PACKET_LENGTH|RECORD_TYPE/.test(said))
    return { ...distrust, text: 'does not speak TLS', hint: 'AMQP over TLS is on port 5671' };
  return undefined;
}

function isVerification(code: string): boolean {
  return (
    code === 'UNSPECIFIED' || /CERT|SIGNATURE|ISSUER|CRL|ALTNAME|INVALID_(CA|PURPOSE)|PATH_LENGTH/.test(code)
  );
}

function expiredText(facts: TlsFacts | undefined): string {
  if (facts?.shown === undefined) return '';
  const end = Date.parse(facts.shown.valid_to);
  return end < facts.now
    ? `: it ended ${iso(end)}, and ${clockText(facts.now)}`
    : `: one of those that signed it has ended, and ${clockText(facts.now)}`;
}

function notYetText(facts: TlsFacts | undefined): string {
  if (facts?.shown === undefined) return '';
  const begin = Date.parse(facts.shown.valid_from);
  return begin > facts.now
    ? `: it begins ${iso(begin)}, and ${clockText(facts.now)}`
    : `: ${clockText(facts.now)}`;
}

/** Of the year in which this program was written. */
const earliestTime = Date.UTC(2026, 0);

function clockText(now: number): string {
  const says = `the clock of this machine says ${iso(now)}`;
  return now < earliestTime ? `${says}: it is not set` : says;
}

function namesText(facts: TlsFacts | undefined): string {
  if (facts?.shown === undefined) return '';
  const { shown, serverName } = facts;
  const names = (shown.subjectaltname ?? `DNS:${[shown.subject.CN].flat().join(', ')}`)
    .replace(/(DNS|IP Address):/g, '')
    .slice(0, 200);
  return `: ${names}, not ${serverName}`;
}

function issuerText(facts: TlsFacts | undefined): string {
  const name = [facts?.shown?.issuer.CN].flat()[0];
  return name === undefined ? '' : ` "${name.slice(0, 100)}"`;
}

function iso(ms: number): string {
  return Number.isFinite(ms) ? new Date(ms).toISOString().replace('.000Z', 'Z') : 'at an unknown time';
}
