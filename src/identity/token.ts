import { AgentError } from '../errors.js';
import type { DeviceId } from '../model.js';
import { Secret } from '../secret.js';
import {
  decodedKey,
  type DeviceConnectionString,
  type EventHubConnectionString,
  type ServiceConnectionString,
} from './connection-string.js';
import { createSasToken, deviceResource, parseSasToken } from './sas.js';

/** A SAS token with what the hub is told about it. */
export interface Token {
  /** What it is for, percent-encoded as the token carries it (`sr`); the `name` of a put-token request. */
  audience: string;
  value: Secret;
  /** Milliseconds since the epoch, by our clock. */
  expiresAt: number;
}

/** Makes a token that is good from `now` for `ttlMs`; a ready-made one is handed on with the life it has. */
export type TokenMaker = (now: number) => Token;

/** Longest life that makes sense: the hub takes more, but a leaked token stays good for as long. */
export const defaultTokenTtlMs = 3_600_000;

/** How this device or module makes its tokens; undefined when it has a certificate instead. */
export function deviceTokens(
  { host, deviceId, moduleId, credential }: DeviceConnectionString,
  ttlMs = defaultTokenTtlMs,
): TokenMaker | undefined {
  if (credential.kind === 'x509') return undefined;
  if (credential.kind === 'signature') return readyMade(credential.signature);
  const { key, policyName } = credential;
  return signed(decodedKey(key), deviceResource(host, deviceId, moduleId), policyName, ttlMs);
}

/** How an operator with a hub policy makes tokens: one for the whole hub, or for what concerns one device. */
export function serviceTokens(
  { host, credential }: ServiceConnectionString,
  ttlMs = defaultTokenTtlMs,
  device?: DeviceId,
): TokenMaker {
  if (credential.kind === 'signature') return readyMade(credential.signature);
  const resource = device === undefined ? host : deviceResource(host, device.deviceId, device.moduleId);
  return signed(decodedKey(credential.key), resource, credential.policyName, ttlMs);
}

/**
 * How a reader of an event hub makes tokens: one for all that is below `sb://{host}/{event hub}`, which is their
 * audience as it is put, not encoded. Their key is the text itself, where IoT Hub takes the bytes that it stands for.
 * Undefined when there is no credential: a development emulator.
 */
export function eventHubTokens(
  { host, credential }: Pick<EventHubConnectionString, 'host' | 'credential'>,
  eventHub: string,
  ttlMs = defaultTokenTtlMs,
): TokenMaker | undefined {
  if (credential.kind === 'none') return undefined;
  const resource = `sb://${host}/${eventHub}`;
  const make =
    credential.kind === 'signature'
      ? readyMade(credential.signature)
      : signed(Buffer.from(credential.key.reveal()), resource, credential.policyName, ttlMs);
  return (now) => ({ ...make(now), audience: resource });
}

function signed(key: Buffer, resource: string, policyName: string | undefined, ttlMs: number): TokenMaker {
  return (now) => {
    const expiresAtSeconds = Math.ceil((now + ttlMs) / 1000);
    const token = createSasToken({ resource, key, expiresAtSeconds, policyName });
    return {
      audience: parseSasToken(token).encodedResource,
      value: new Secret(token),
      expiresAt: expiresAtSeconds * 1000,
    };
  };
}

function readyMade(signature: Secret): TokenMaker {
  const { encodedResource, expiry } = parseSasToken(signature.reveal());
  const expiresAt = Number(expiry) * 1000;
  return (now) => {
    if (expiresAt <= now) {
      throw new AgentError('refused', `the token expired at ${new Date(expiresAt).toISOString()}`, {
        hint: `make a new one, or check this machine's clock (it says ${new Date(now).toISOString()})`,
      });
    }
    return { audience: encodedResource, value: signature, expiresAt };
  };
}
