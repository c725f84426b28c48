import { certifies, covers } from './access.js';
import type { ClientCertificate, Grant, Right } from './access.js';
import type { HubClock } from './clock.js';
import type { Device } from './device.js';

/** What one connection may do: by the tokens it has put, each until it expires, and by its certificate. */
export class Grants {
  readonly #certificate: ClientCertificate | undefined;
  readonly #clock: HubClock;
  readonly #graceMs: number;
  readonly #onExpired: () => void;
  /** By holder and scope: a new token for the same replaces the old one. */
  readonly #tokens = new Map<string, { grant: Grant; cancelExpiry: () => void }>();
  /** How many tokens were accepted. */
  accepted = 0;

  constructor(
    certificate: ClientCertificate | undefined,
    { clock, graceMs, onExpired }: { clock: HubClock; graceMs: number; onExpired: () => void },
  ) {
    this.#certificate = certificate;
    this.#clock = clock;
    this.#graceMs = graceMs;
    this.#onExpired = onExpired;
  }

  add(grant: Grant): void {
    const key = `${grant.holder.kind}:${grant.scope.join('/')}`;
    this.#tokens.get(key)?.cancelExpiry();
    const cancelExpiry = this.#clock.at(grant.expiresAt + this.#graceMs, () => {
      this.#tokens.delete(key);
      this.#onExpired();
    });
    this.#tokens.set(key, { grant, cancelExpiry });
    this.accepted++;
  }

  /** Whether it has this right on a path, for a device if the path is one of a device. */
  allow(right: Right, path: readonly string[], device: Device | undefined): boolean {
    for (const { grant } of this.#tokens.values()) if (grantAllows(grant, right, path, device)) return true;
    return device !== undefined && this.#certificate !== undefined && certifies(this.#certificate, device);
  }

  /** Lets tokens expire now, of one device or all; returns how many there were. */
  expire(deviceId?: string): number {
    const expired = [...this.#tokens].filter(
      ([
        ,
        {
          grant: { holder },
        },
      ]) => {
        return deviceId === undefined || (holder.kind === 'device' && holder.device.deviceId === deviceId);
      },
    );
    for (const [key, { cancelExpiry }] of expired) {
      cancelExpiry();
      this.#tokens.delete(key);
    }
    if (expired.length > 0) this.#onExpired();
    return expired.length;
  }

  stop(): void {
    for (const { cancelExpiry } of this.#tokens.values()) cancelExpiry();
    this.#tokens.clear();
  }
}

function grantAllows(
  { scope, holder }: Grant,
  right: Right,
  path: readonly string[],
  device: Device | undefined,
): boolean {
  if (holder.kind === 'policy') return holder.rights.includes(right) && covers(scope, path);
  if (right !== 'DeviceConnect' || device === undefined) return false;
  // Of the identity that the token was made for, not of one that was registered under its name since.
  const ofItsDevice = holder.device.moduleId === undefined && device.moduleId !== undefined;
  const own = holder.device === device || (ofItsDevice && holder.device.deviceId === device.deviceId);
  return own && covers(scope, path);
}
