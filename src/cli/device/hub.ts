import { encodeFor, openHubSession, type HubSession } from '../../amqp/session.js';
import { systemClock, type Clock } from '../../clock.js';
import { AgentError } from '../../errors.js';
import type { DeviceConnectionString } from '../../identity/connection-string.js';
import { deviceTokens, type TokenMaker } from '../../identity/token.js';
import type { Log } from '../../log.js';
import type { TelemetryMessage } from '../../model.js';
import { endpointOf } from '../endpoint.js';
import type { ConnectionFlags } from '../identity-options.js';

/** The hub as one device sees it: how to open a session, make tokens, and encode for it. */
export interface DeviceHub {
  readonly identity: DeviceConnectionString;
  readonly makeToken: TokenMaker;
  readonly clock: Clock;
  readonly log: Log;
  /** Of the last token that was made, milliseconds since the epoch. */
  tokenExpiresAt(): number | undefined;
  open(links: readonly ('telemetry' | 'commands')[], signal: AbortSignal): Promise<HubSession>;
  encode(message: TelemetryMessage): Buffer;
}

export interface DeviceHubOptions extends ConnectionFlags {
  log: Log;
  tokenTtlMs?: number | undefined;
  idleTimeoutMs?: number | undefined;
}

export async function deviceHub(
  identity: DeviceConnectionString,
  options: DeviceHubOptions,
): Promise<DeviceHub> {
  const { log, idleTimeoutMs } = options;
  const tokens = deviceTokens(identity, options.tokenTtlMs);
  if (tokens === undefined) {
    throw new AgentError('config', 'a certificate (x509=true) cannot be used yet', {
      hint: 'use a connection string with SharedAccessKey=…',
    });
  }
  const endpoint = await endpointOf(identity.gatewayHost ?? identity.host, options);
  const clock = systemClock;
  let tokenExpiresAt: number | undefined;
  const makeToken: TokenMaker = (now) => {
    const token = tokens(now);
    tokenExpiresAt = token.expiresAt;
    return token;
  };
  return {
    identity,
    makeToken,
    clock,
    log,
    tokenExpiresAt: () => tokenExpiresAt,
    open: (links, signal) =>
      openHubSession(
        { endpoint, identity, links, log, idleTimeoutMs, token: () => makeToken(clock.now()) },
        signal,
      ),
    encode: encodeFor(identity),
  };
}
