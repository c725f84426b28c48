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
  const makeToken = deviceTokens(identity, options.tokenTtlMs);
  if (makeToken === undefined) {
    throw new AgentError('config', 'a certificate (x509=true) cannot be used yet', {
      hint: 'use a connection string with SharedAccessKey=…',
    });
  }
  const endpoint = await endpointOf(identity.gatewayHost ?? identity.host, options);
  const clock = systemClock;
  return {
    identity,
    makeToken,
    clock,
    log,
    open: (links, signal) =>
      openHubSession(
        { endpoint, identity, links, log, idleTimeoutMs, token: () => makeToken(clock.now()) },
        signal,
      ),
    encode: encodeFor(identity),
  };
}
