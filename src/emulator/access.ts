import { createHash, createHmac, timingSafeEqual } from 'node:crypto';

import { errorText } from '../errors.js';
import { isSignedBy, parseSasToken } from '../identity/sas.js';
import { decoded, pathOf } from './addresses.js';
import type { Device } from './device.js';

/** Who may do what: policies with their rights, and the tokens that their keys or a device's own key signed. */
export type Right = 'DeviceConnect' | 'ServiceConnect' | 'RegistryRead' | 'RegistryWrite';

export interface Policy {
  name: string;
  primaryKey: string;
  secondaryKey: string;
  rights: readonly Right[];
}

/** The policies that every hub has ("Control access to IoT Hub with shared access signatures"). */
export const policyRights: Readonly<Record<string, readonly Right[]>> = {
  iothubowner: ['DeviceConnect', 'ServiceConnect', 'RegistryRead', 'RegistryWrite'],
  service: ['ServiceConnect'],
  device: ['DeviceConnect'],
  registryRead: ['RegistryRead'],
  registryReadWrite: ['RegistryRead', 'RegistryWrite'],
};

/** What a verified token allows. */
export interface Grant {
  /** Path below the host that it covers, with all that is below it. */
  scope: readonly string[];
  holder: { kind: 'policy'; rights: readonly Right[] } | { kind: 'device'; device: Device };
  /** Milliseconds since the epoch. */
  expiresAt: number;
}

export type Verdict = { ok: true; grant: Grant } | { ok: false; reason: string };

/** What a token is checked against. */
export interface KeyRing {
  policies: ReadonlyMap<string, Policy>;
  find(deviceId: string, moduleId?: string): Device | undefined;
  /** Whether the hub answers to this host name. */
  knowsHost(host: string): boolean;
  now(): number;
  /** How long after its expiry a token still works, in milliseconds. */
  tokenGraceMs: number;
}

/** Verifies a SAS token: its form, its host, its signature over `sr` verbatim, its expiry. */
export function verifyToken(token: string, ring: KeyRing): Verdict {
  let fields;
  try {
    fields = parseSasToken(token);
  } catch (error) {
    return { ok: false, reason: errorText(error) };
  }
  const resource = decoded(fields.encodedResource);
  const [host = '', ...scope] = pathOf(resource.replace(/^[a-z]+:\/\//i, ''));
  if (!ring.knowsHost(host)) return { ok: false, reason: `the token is for another host, "${host}"` };
  const signer = signerOf(fields.policyName, scope, ring);
  if ('reason' in signer) return { ok: false, reason: signer.reason };
  if (!isSignedBy(fields, signer.keys)) {
    return {
      ok: false,
      reason:
        'the SAS token has an invalid signature: it does not match either the primary or the secondary key',
    };
  }
  const expiresAt = Number(fields.expiry) * 1000;
  if (expiresAt + ring.tokenGraceMs <= ring.now()) {
    return { ok: false, reason: `the SAS token expired at ${isoTime(expiresAt)}` };
  }
  return { ok: true, grant: { scope: scope.map(decoded), holder: signer.holder, expiresAt } };
}

type Signer = { keys: Buffer[]; holder: Grant['holder'] } | { reason: string };

function signerOf(policyName: string | undefined, scope: readonly string[], ring: KeyRing): Signer {
  if (policyName !== undefined) {
    const policy = ring.policies.get(policyName);
    if (policy === undefined) return { reason: `there is no policy "${policyName}"` };
    const texts = [policy.primaryKey, policy.secondaryKey];
    // Event Hubs libraries sign with the text of the key, IoT Hub's with what it decodes to.
    const keys = texts.flatMap((key) => [Buffer.from(key, 'base64'), Buffer.from(key, 'utf8')]);
    return { keys, holder: { kind: 'policy', rights: policy.rights } };
  }
  const device = deviceOfScope(scope, ring);
  if (device === undefined) return { reason: `the hub has no device for "${scope.join('/')}"` };
  if (device.authentication.type !== 'sas') return { reason: 'this device does not use SAS tokens' };
  const { primaryKey, secondaryKey } = device.authentication;
  const keys = [primaryKey, secondaryKey].map((key) => Buffer.from(key, 'base64'));
  return { keys, holder: { kind: 'device', device } };
}

/** SDKs encode the id once more before they encode the whole, or do not; both are tried. */
function deviceOfScope(scope: readonly string[], ring: KeyRing): Device | undefined {
  const [devices, id, modules, module] = scope;
  if (devices?.toLowerCase() !== 'devices' || id === undefined) return undefined;
  if (modules?.toLowerCase() === 'modules' && module !== undefined) {
    return ring.find(id, module) ?? ring.find(decoded(id), decoded(module));
  }
  return ring.find(id) ?? ring.find(decoded(id));
}

/** Whether `scope` is `path` or one of its parents. Ids are compared as they are, all other words without case. */
export function covers(scope: readonly string[], path: readonly string[]): boolean {
  return (
    scope.length <= path.length &&
    scope.every((segment, i) => sameSegment(segment, path[i] ?? '', path[i - 1] ?? ''))
  );
}

function sameSegment(a: string, b: string, before: string): boolean {
  if (['devices', 'modules'].includes(before.toLowerCase())) return a === b || decoded(a) === decoded(b);
  return a.toLowerCase() === b.toLowerCase();
}

/** What a client showed in its TLS handshake. */
export interface ClientCertificate {
  /** DER. */
  raw: Buffer;
  commonName: string;
  /** Whether its chain leads to one of the hub's device authorities. */
  trusted: boolean;
}

/** Whether a certificate speaks for a device (or module, whose common name is `{device}/{module}`). */
export function certifies(
  certificate: ClientCertificate,
  { authentication, deviceId, moduleId }: Device,
): boolean {
  if (authentication.type === 'selfSigned') {
    const { primaryThumbprint, secondaryThumbprint } = authentication;
    return hasThumbprint(certificate.raw, [primaryThumbprint, secondaryThumbprint]);
  }
  const name = moduleId === undefined ? deviceId : `${deviceId}/${moduleId}`;
  return (
    authentication.type === 'certificateAuthority' && certificate.trusted && certificate.commonName === name
  );
}

/** SHA-1 or SHA-256, told apart by their length; compared in constant time. */
function hasThumbprint(certificate: Buffer, thumbprints: readonly string[]): boolean {
  return thumbprints.some((thumbprint) => {
    const wanted = Buffer.from(thumbprint.replaceAll(':', ''), 'hex');
    const hash = createHash(wanted.length === 32 ? 'sha256' : 'sha1')
      .update(certificate)
      .digest();
    return hash.length === wanted.length && timingSafeEqual(hash, wanted);
  });
}

/**
 * SASL PLAIN: `{policy}@sas.root.{hub}`, `{device}@sas.{hub}` or `{device}/modules/{module}@sas.{hub}` with a token as
 * the password; or, at the Event Hubs endpoint, a policy's name with its key.
 */
export function verifyPlain(user: string, password: string, ring: KeyRing): Verdict {
  if (/@sas\./i.test(user)) return verifyToken(password, ring);
  const policy = ring.policies.get(user);
  const known = policy && [policy.primaryKey, policy.secondaryKey].some((key) => sameText(key, password));
  if (!policy || !known) return { ok: false, reason: `"${user}" is not known, or its key is another` };
  return {
    ok: true,
    grant: { scope: [], holder: { kind: 'policy', rights: policy.rights }, expiresAt: Infinity },
  };
}

function sameText(a: string, b: string): boolean {
  const [left, right] = [a, b].map((text) => createHash('sha256').update(text).digest());
  return left !== undefined && right !== undefined && timingSafeEqual(left, right);
}

/** A key that depends on nothing but the hub's own key and the id, so that examples can be written down. */
export function derivedKey(hubKey: string, id: string): string {
  return createHmac('sha256', Buffer.from(hubKey, 'base64')).update(id).digest('base64');
}

function isoTime(milliseconds: number): string {
  const date = new Date(milliseconds);
  return Number.isNaN(date.getTime()) ? String(milliseconds) : date.toISOString();
}
