import type { AgentConfig } from '../../../daemon/config.js';
import type { ClientCertificate } from '../../../identity/certificate.js';
import type { Log } from '../../../log.js';
import type { Finding } from '../../check/checks.js';
import { readDeviceIdentity } from '../../identity-options.js';
import type { Io } from '../../io.js';
import type { CheckFlags } from '../check.js';
import { deviceHub, type DeviceHub } from '../hub.js';
import { waysOf, type Ways } from '../../check/ways.js';

/** Who we are, and where the hub is. */
export interface KnownDevice {
  hub: DeviceHub;
  ways: Ways;
  /** Undefined with a key or a token. */
  certificate: ClientCertificate | undefined;
}

/** A device's certificate is renewed by whoever has the device, and that takes a while. */
const warnBeforeMs = 14 * 86_400_000;

/** Reads the connection string, the certificate if there is one, and the authorities that are named. */
export async function whoWeAre(
  io: Io,
  flags: CheckFlags,
  config: AgentConfig,
  { tokenTtlMs = config.hub.tokenTtlMs, log }: { tokenTtlMs?: number | undefined; log: Log },
): Promise<Finding<KnownDevice>> {
  const identity = await readDeviceIdentity(io, flags, config.hub);
  const hub = await deviceHub(io, identity, { flags, configured: { ...config.hub, tokenTtlMs }, log });
  const ways = waysOf(hub.endpoint, flags.httpsPort ?? config.hub.httpsPort);
  const certificate = await hub.certificate?.forConnection();
  const { deviceId, moduleId, host, gatewayHost, credential } = identity;
  const name = moduleId === undefined ? deviceId : `${deviceId}/${moduleId}`;
  const gateway = gatewayHost === undefined ? '' : ` by way of ${gatewayHost}`;
  const facts = { hub: host, deviceId, moduleId, gatewayHost, credential: credential.kind };
  const value = { hub, ways, certificate };
  const detail = (how: string): string => `${name} on ${host}${gateway}, with ${how}`;
  if (certificate === undefined) {
    // One that has run out is refused here, before the hub is bothered.
    const until = hub.makeToken?.(hub.clock.now()).expiresAt ?? 0;
    const how =
      credential.kind === 'key' ? 'a key' : `a ready-made token until ${new Date(until).toISOString()}`;
    return { result: 'ok', detail: detail(how), value, facts };
  }
  const { subject, expiresAt } = certificate;
  const leftMs = expiresAt - hub.clock.now();
  const text = detail(`a certificate (${subject}) until ${new Date(expiresAt).toISOString().slice(0, 10)}`);
  if (leftMs >= warnBeforeMs) return { result: 'ok', detail: text, value, facts };
  const hint = leftMs < 0 ? 'it has run out: the hub will refuse it' : 'it runs out soon: renew it';
  return { result: 'warn', detail: text, hint, value, facts };
}
