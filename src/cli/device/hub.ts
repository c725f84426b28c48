import { DeviceCertificate } from '../../agent/certificate.js';
import { EarlyAttach } from '../../amqp/early-attach.js';
import { encodeFor, openHubSession, type HubSession, type HubSessionOptions } from '../../amqp/session.js';
import type { Endpoint } from '../../amqp/socket.js';
import { systemClock, type Clock } from '../../clock.js';
import type { HubConfig } from '../../daemon/config-hub.js';
import { AgentError } from '../../errors.js';
import type { ClientCertificate } from '../../identity/certificate.js';
import type { DeviceConnectionString } from '../../identity/connection-string.js';
import { deviceTokens, type TokenMaker } from '../../identity/token.js';
import type { Log } from '../../log.js';
import type { DeviceId, TelemetryMessage } from '../../model.js';
import { endpointOf } from '../endpoint.js';
import { readAuthority, type ConnectionFlags, type DeviceIdentity } from '../identity-options.js';
import type { Io } from '../io.js';

/** The hub as one device sees it: how to open a session, make tokens, and encode for it. */
export interface DeviceHub {
  readonly identity: DeviceConnectionString;
  /** The way there, without the certificate. */
  readonly endpoint: Endpoint;
  /** Undefined with a certificate. */
  readonly makeToken: TokenMaker | undefined;
  /** Undefined with a key or a token. */
  readonly certificate: DeviceCertificate | undefined;
  readonly clock: Clock;
  readonly log: Log;
  /** Of the last token that was made, milliseconds since the epoch. */
  tokenExpiresAt(): number | undefined;
  open(links: readonly ('telemetry' | 'commands')[], signal: AbortSignal): Promise<HubSession>;
  encode(message: TelemetryMessage): Buffer;
}

export interface DeviceHubOptions {
  flags: ConnectionFlags;
  /** What the configuration says, if there is one. */
  configured?: HubConfig | undefined;
  log: Log;
  goodbye?: HubSessionOptions['goodbye'];
}

export async function deviceHub(
  io: Pick<Io, 'env'>,
  identity: DeviceIdentity,
  { flags, configured, log, goodbye }: DeviceHubOptions,
): Promise<DeviceHub> {
  const clock = systemClock;
  const idleTimeoutMs = configured?.idleTimeoutMs;
  const tokens = deviceTokens(identity, configured?.tokenTtlMs);
  const certificate = tokens === undefined ? certificateOf(identity, clock, log) : undefined;
  const host = identity.gatewayHost ?? identity.host;
  const endpoint = await endpointOf(io, host, { side: 'device', flags, configured, log });
  const attach = flags.attach ?? configured?.attach;
  const early = attach === 'with-token' ? new EarlyAttach(log) : undefined;
  let tokenExpiresAt: number | undefined;
  let extraCa = endpoint.trust?.extraCa;
  let isFirst = true;
  const makeToken =
    tokens &&
    ((now: number) => {
      const token = tokens(now);
      tokenExpiresAt = token.expiresAt;
      return token;
    });
  return {
    identity,
    endpoint,
    makeToken,
    certificate,
    clock,
    log,
    tokenExpiresAt: () => tokenExpiresAt,
    async open(links, signal) {
      // Both are replaced on disk, and neither is worth a restart.
      const shown = await certificate?.forConnection();
      if (!isFirst) extraCa = await readAuthority({ ca: flags.ca ?? configured?.ca }).catch(() => extraCa);
      isFirst = false;
      try {
        return await openHubSession(
          {
            endpoint: { ...endpoint, trust: { ...endpoint.trust, extraCa }, certificate: shown },
            ...{ identity, links, log, idleTimeoutMs, goodbye, early },
            token: makeToken && (() => makeToken(clock.now())),
          },
          signal,
        );
      } catch (error) {
        throw shown === undefined ? error : aboutCertificate(error, shown, identity);
      }
    },
    encode: encodeFor(identity),
  };
}

function certificateOf({ certificate }: DeviceIdentity, clock: Clock, log: Log): DeviceCertificate {
  if (certificate !== undefined) return new DeviceCertificate({ ...certificate, clock, log });
  throw new AgentError('config', 'the device has a certificate (x509=true), and nobody says where it is', {
    hint: 'name its files with --cert FILE --key FILE, or as x509 = { cert = …, key = … } under [hub] in the configuration',
  });
}

/** A hub that refuses a certificate says no more than that it refuses. */
function aboutCertificate(
  error: unknown,
  shown: ClientCertificate,
  { deviceId, moduleId }: DeviceId,
): unknown {
  if (!(error instanceof AgentError) || error.code !== 'refused') return error;
  const { condition, cause, retry } = error;
  const name = moduleId === undefined ? deviceId : `${deviceId}/${moduleId}`;
  const { sha1, sha256 } = shown.thumbprints;
  return new AgentError('refused', error.message, {
    ...{ condition, cause, retry },
    hint:
      `the hub has to have the thumbprint of the certificate (SHA-1 ${sha1},\nSHA-256 ${sha256}),\n` +
      `or its authority, and then the common name has to be "${name}"; this is ${shown.subject}`,
  });
}
