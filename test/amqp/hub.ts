import {
  encodeFor,
  openHubSession,
  type HubSession,
  type HubSessionOptions,
} from '../../src/amqp/session.js';
import type { Endpoint } from '../../src/amqp/socket.js';
import { startEmulator, type Emulator, type EmulatorOptions } from '../../src/emulator/emulator.js';
import { hostName, hostPort, parseDeviceConnectionString } from '../../src/identity/connection-string.js';
import { deviceTokens } from '../../src/identity/token.js';
import { silentLog } from '../../src/log.js';
import type { TelemetryMessage } from '../../src/model.js';

/** The device that the tests are. */
export const device = 'dev-01';
export const never = new AbortController().signal;

/** A hub that knows the device. */
export function startHub(options: EmulatorOptions = {}): Promise<Emulator> {
  return startEmulator({ devices: [device], ...options });
}

export function endpointOf(hub: Emulator): Endpoint {
  return { host: 'localhost', port: hub.port, trust: { extraCa: hub.ca } };
}

/** Opens a session as the device, or as what `connectionString` says. */
export function openSession(
  hub: Emulator,
  {
    connectionString = hub.deviceConnectionString(device),
    signal = never,
    ...options
  }: Partial<HubSessionOptions> & { connectionString?: string; signal?: AbortSignal } = {},
): Promise<HubSession> {
  const identity = parseDeviceConnectionString(connectionString);
  const makeToken = deviceTokens(identity)!;
  return openHubSession(
    {
      endpoint: { ...endpointOf(hub), host: hostName(identity.host), port: hostPort(identity.host, 5671) },
      identity,
      token: () => makeToken(Date.now()),
      links: ['telemetry', 'commands'],
      log: silentLog,
      ...options,
    },
    signal,
  );
}

export const encode = encodeFor({ deviceId: device });

export function message(fields: Partial<TelemetryMessage> = {}): TelemetryMessage {
  return { messageId: 'm-1', properties: {}, body: Buffer.from('{"t":21.5}'), ...fields };
}

/** The reason for which a promise rejects. */
export async function failure(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error: unknown) => error,
  );
}

/** The reason for which a signal is aborted, once it is. */
export async function reasonOf(signal: AbortSignal): Promise<unknown> {
  if (!signal.aborted)
    await new Promise((resolve) => {
      signal.addEventListener('abort', resolve);
    });
  return signal.reason;
}
